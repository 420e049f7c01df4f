"""The plan document of a table: what `distillery table` reads it off by, and what DVC compares.

The planner writes it as JSON (`Plan.document`); tables and pictures read it. It names artefacts by
their address, so that a table needs neither the settings nor the code of the planner.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from distillery.errors import PlanError, nearest
from distillery.store.canonical import digest, read_json
from distillery.table.published import PrintedNumber

AxisValue = str | bool | int | float | None
T = TypeVar("T")

ADVICE = "write it again with `distillery plan --write`"


@dataclass(frozen=True)
class Place:
    """A place on the axes of a table: one of ours, or the paper's that it stands for.

    Attributes:
        dataset: a data set, or another value of the panel, such as an average over data sets.
        student: a network; None where the table has no such axis.
        ipc: images per class.
        axes: the values on the table's own axes, by their names.
    """

    dataset: str
    student: str | None
    ipc: int | float
    axes: dict[str, AxisValue] = field(default_factory=dict)

    @classmethod
    def on(cls, axes: Mapping[str, Any]) -> Place:
        """The place with these values of all axes, by their names."""
        own = {axis: value for axis, value in axes.items() if axis not in _COMMON}
        return cls(axes["dataset"], axes.get("student"), axes["ipc"], own)

    def at(self, axis: str) -> AxisValue:
        """The value on an axis.

        Raises:
            PlanError: there is no such axis.
        """
        values = {name: getattr(self, name) for name in _COMMON} | self.axes
        if axis not in values:
            raise PlanError(f"axis '{axis}' does not exist: {nearest(axis, values)}")
        return values[axis]


_COMMON = ("dataset", "student", "ipc")


@dataclass(frozen=True)
class PrintedTeacher:
    """A teacher whose accuracy the paper prints.

    Attributes:
        name: of its network, and of its data set.
        artefact: of the teacher that labels or makes the set of a cell: its id without the hash.
        accuracy: printed, percent.
    """

    name: str
    artefact: str
    accuracy: float


@dataclass(frozen=True)
class DocumentCell:
    """One cell of a table: what was asked, the printed number, and the artefacts of its own.

    Attributes:
        row: name of its row.
        method: name of the method.
        variant: what tells the row apart from the plain method.
        labels: kind of the labels.
        counted_as: the kind as which the papers' compression ratio counts them.
        protocol: name of the evaluation recipe.
        place: where it stands on the axes.
        against: the row that its gain is measured from.
        paper: the paper's place that it stands for; None where the paper has none.
        published: the number that the paper prints for it.
        comparable: whether that number is of this very setting, recipe and network.
        reason: why it is not, where there is one.
        label_epochs: epochs of dynamic labels that the papers' compression ratio counts; 0 where
            nobody said.
        original_bytes: size of the training set as the paper counts it; None: its raw bytes.
        evaluations: addresses whose numbers the cell holds: per draw of the set, one per student;
            none where it shows the published number only.
        distilled: address of the distilled set of each draw.
        label: address of the stored labels of each draw.
        data: address of the data set.
        teachers: those behind the cell whose accuracy the paper prints, trained on its data set.
        scores: addresses of what DD-Ranking's scores compare with, by the name of the accuracy.
        against_at: values of axes at which the row `against` is looked up, where not at its own.
    """

    row: str
    method: str
    variant: str
    labels: str
    counted_as: str
    protocol: str
    place: Place
    against: str | None
    paper: Place | None
    published: PrintedNumber | None
    comparable: bool
    reason: str
    label_epochs: int
    original_bytes: int | None
    evaluations: tuple[tuple[str, ...], ...]
    distilled: tuple[str, ...]
    label: tuple[str, ...]
    data: str | None
    teachers: tuple[PrintedTeacher, ...]
    scores: dict[str, tuple[str, ...]]
    against_at: dict[str, AxisValue] = field(default_factory=dict)

    @property
    def students(self) -> list[str]:
        """The evaluations of all draws."""
        return [address for draw in self.evaluations for address in draw]

    @property
    def printed_place(self) -> Place | None:
        """Where the published number stands: in this very setting, or in the paper's."""
        return self.place if self.comparable else self.paper


@dataclass(frozen=True)
class TableShape:
    """The grid of a table.

    Attributes:
        rows: names of the rows, in order.
        columns: the axes whose values are columns.
        panel: the axis whose values have a grid of their own each.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panel: str


@dataclass(frozen=True)
class TableDocument:
    """The plan of one table.

    Attributes:
        table: `<paper>/<table>`.
        title: its title.
        paper: folder of the paper below workflow/tables.
        paper_name: the paper's short name, as it is printed.
        scale: name of the scale.
        quantity: what a cell holds, with its unit.
        digits: decimals of a cell.
        analysis: the analysis whose value a cell holds; None: accuracies.
        figure: the figure that draws the table.
        printed: facts that the paper prints about this table or figure, by name.
        scores: whether DD-Ranking's scores stand beside the accuracies.
        compression_ratio: whether the paper counts a compression ratio.
        shape: its grid.
        axes: names of the table's own axes.
        code: digest of the code that assembles tables.
        cells: its cells, row by row.
        drop_from: values of axes from which it shows relative drops; nothing where it shows none.
        averages: values of the panel that are averages over the others.
    """

    table: str
    title: str
    paper: str
    paper_name: str
    scale: str
    quantity: str
    digits: int
    analysis: str | None
    figure: str | None
    printed: dict[str, float]
    scores: bool
    compression_ratio: bool
    shape: TableShape
    axes: tuple[str, ...]
    code: str
    cells: tuple[DocumentCell, ...]
    drop_from: dict[str, AxisValue] = field(default_factory=dict)
    averages: tuple[str, ...] = ()

    @classmethod
    def parse(cls, values: object, where: str) -> TableDocument:
        """The document that the JSON value `values`, found at `where`, says.

        Raises:
            PlanError: a key is unknown or missing, or a value has another type.
        """
        return _read(cls, values, where)

    def json(self) -> dict[str, Any]:
        """Its JSON value."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """SHA-256 of its canonical JSON, in hex."""
        return digest(self.json(), 64)


def read_document(file: Path) -> TableDocument:
    """The plan document of a file.

    Raises:
        PlanError: it cannot be read, or is no plan document.
    """
    try:
        values = read_json(Path(file))
    except (OSError, ValueError) as error:
        raise PlanError(f"{file}: not a readable plan ({error}); {ADVICE}") from None
    return TableDocument.parse(values, str(file))


def _read(kind: type[T], values: object, where: str) -> T:
    """An object of the dataclass `kind` from a JSON object with exactly its fields."""
    if not isinstance(values, dict):
        raise PlanError(f"{where}: expected keys and values, not {values!r}; {ADVICE}")
    hints = _fields(typing.cast(Hashable, kind))
    for key in values:
        if key not in hints:
            raise PlanError(f"{where}.{key}: unknown key: {nearest(key, hints)}; {ADVICE}")
    for key in hints:
        if key not in values:
            raise PlanError(f"{where}: lacks '{key}'; {ADVICE}")
    return kind(**{key: _value(hints[key], values[key], f"{where}.{key}") for key in hints})


@functools.cache
def _fields(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, value: object, where: str) -> Any:
    """`value` as `hint` says: a dataclass, a tuple or dict, a union, or a plain type."""
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type, hint), value, where)
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return _option(arguments, value, where)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_value(arguments[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if kind is dict and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    number = hint is float and isinstance(value, int)
    if (
        kind
        or not (number or isinstance(value, hint))
        or (isinstance(value, bool) and hint is not bool)
    ):
        raise PlanError(
            f"{where} = {value!r}: expected {getattr(hint, '__name__', hint)}; {ADVICE}"
        )
    return value


def _option(options: tuple[Any, ...], value: object, where: str) -> Any:
    """`value` as the first of the types that fits; the last one's complaint where none does."""
    if value is None and type(None) in options:
        return None
    *others, last = (option for option in options if option is not type(None))
    for option in others:
        try:
            return _value(option, value, where)
        except PlanError:
            continue
    return _value(last, value, where)
