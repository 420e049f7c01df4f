"""The experiment setting that a cell of a table measures, and the cell with what was planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distillery.errors import PlanError
from distillery.plan.nodes import Node
from distillery.plan.table_models import Row
from distillery.table.document import Place
from distillery.table.published import PrintedNumber


@dataclass(frozen=True)
class Experiment:
    """One experiment setting: everything that decides a number but which student it is of.

    Attributes:
        dataset: a data set of the scale.
        ipc: images per class, above 0; a fraction where the method allows it.
        student: a network, or an entry of the scale's `networks`; None: the table measures none.
        row: method, labels, protocol and overrides.
        augmented: whether its protocol may augment.
        epochs: of its students, in place of those of the protocol.
        draw: number of the set; another one draws anew what is random in it.
        places: file and key of its value on each axis of the table, for errors.
        table_file: of the table that the row stands in, for errors.
    """

    dataset: str
    ipc: float
    student: str | None
    row: Row
    augmented: bool = True
    epochs: int | None = None
    draw: int = 0
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    table_file: str = field(default="", compare=False, repr=False)

    @classmethod
    def at(
        cls,
        place: Mapping[str, Any],
        row: Row,
        places: Mapping[str, str] | None = None,
        table_file: str = "",
    ) -> Experiment:
        """The setting of a row at a place of the axes.

        Args:
            place: the value of each axis. 10.0 images per class are the same setting as 10.
            row: of a table, with the overrides of this place.
            places: file and key of each value, for errors.
            table_file: of the row's table, for errors.
        """
        ipc = place["ipc"]
        whole = isinstance(ipc, float) and ipc.is_integer()
        dataset, student = place["dataset"], place.get("student")
        ipc = int(ipc) if whole else ipc
        return cls(dataset, ipc, student, row, places=places or {}, table_file=table_file)

    @property
    def row_place(self) -> str:
        """File and name of the row, for errors."""
        start = f"{self.table_file}: " if self.table_file else ""
        return f"{start}row '{self.row.row}'"

    @property
    def student_network(self) -> str:
        """The student, of a setting that needs one.

        Raises:
            PlanError: it has none.
        """
        if self.student is None:
            raise PlanError(
                f"{self.row_place} on '{self.dataset}': no student; give the table that axis"
            )
        return self.student


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """One cell of a table: its place, the printed number, and the artefacts of what it measures.

    A cell that shows published numbers only has no artefacts.

    Attributes:
        row: of the table file, without the overrides of the place.
        extra: values of the table's own axes.
        dataset: value of the axis `dataset`: a data set, or a name such as "average".
        student: value of the axis `student`, or None.
        ipc: images per class.
        paper: the place of the paper's table that it stands for, if there is one.
        published: the printed number, if there is one.
        comparable: whether the printed number is of this very setting, recipe and network.
        reason: why it is not, where there is a printed number.
        evaluations: the artefacts that its number is read off: per draw, one per student.
        distilled: the distilled set of each draw.
        label: the stored labels of each draw, if their kind stores any.
        data: the canonical data set.
        scores: artefacts that its DD-Ranking scores compare with, by the name of the accuracy;
            None in a table without scores.
    """

    row: Row
    extra: dict[str, Any]
    dataset: str
    student: str | None
    ipc: float
    paper: Place | None
    published: PrintedNumber | None
    comparable: bool
    reason: str = ""
    evaluations: tuple[tuple[Node, ...], ...] = ()
    distilled: tuple[Node, ...] = ()
    label: tuple[Node, ...] = ()
    data: Node | None = None
    scores: dict[str, tuple[Node, ...]] | None = None

    @property
    def students(self) -> list[Node]:
        """The evaluations of all draws."""
        return [node for draw in self.evaluations for node in draw]

    def artefacts(self) -> list[Node]:
        """Everything whose meta.json its values are read off."""
        compared = [node for nodes in (self.scores or {}).values() for node in nodes]
        return [*self.students, *compared]
