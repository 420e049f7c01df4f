"""What the files that a user edits may hold: params.yaml, a scale, a table file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distillery.errors import PlanError, nearest
from distillery.plan.types import explain

Block = dict[str, Any]
Axis = list[Any] | dict[str, list[Any]]


class Strict(BaseModel):
    """A mapping that holds what it declares and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Expected(Strict):
    """What the planner may assume of a data set before it was read: for estimates and budget checks, never for results."""

    classes: int = Field(gt=1)
    train: int = Field(gt=0)
    test: int = Field(gt=0)
    shape: list[int] = Field(min_length=3, max_length=3)
    original_bytes: int | None = None


class Recipes(Strict):
    """What a scale, a data set and params.yaml may each say: networks, the ensemble, and recipes by stage."""

    networks: dict[str, Block] = {}
    ensemble: list[str] = []
    whiten: dict[str, Block] = {}
    embed: dict[str, Block] = {}
    teacher: Block = {}
    distill: dict[str, Block] = {}
    label: dict[str, Block] = {}
    evaluate: dict[str, Block] = {}
    analyse: dict[str, Block] = {}


class Dataset(Recipes):
    """A data source and what differs for it: networks and recipes of any stage below the same keys as in the scale."""

    source: str
    digest: str | None = None
    size: int | None = Field(default=None, gt=0)
    fit: dict[str, str] = {}
    channels: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    expected: Expected | None = None


class Scale(Recipes):
    """workflow/scales/<name>.yaml: every recipe, network and axis at that scale.

    ensemble: the papers' teachers in their order (INFER: R, M, E, S); a recipe's `teachers: ensemble` names all of them,
    `ensemble:2` the first two. network_aliases: networks that take the places of those that a table's rows name. An axis of a table
    is a list of values, or one list for each value of the panel.
    """

    about: str
    network_aliases: dict[str, str] = {}
    datasets: dict[str, Dataset]
    tables: dict[str, dict[str, Axis]]


class Params(Recipes):
    """params.yaml. Blocks named like stages override the scale's recipes, key by key; `grid` replaces axes of its tables, and
    its `rows` names the rows to measure."""

    paper: str = "infer"
    scale: str = "demo"
    repeats: int = Field(default=3, ge=1)
    tables: list[str] = Field(min_length=1)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    environment: int = Field(default=1, ge=1)
    datasets: dict[str, Block] = {}
    grid: dict[str, dict[str, Axis]] = {}


class AxisMeaning(Strict):
    """What the values of an axis beyond dataset, student and ipc change: `values` has recipe overrides for each, by stage, or
    `sets` names the one setting (stage.key.key) that takes the value. published: whether printed numbers are told apart by it,
    in a column of the axis' name; variants: or by the variant that is printed for a value."""

    values: dict[str, dict[str, Block]] = {}
    sets: str | None = None
    published: bool = False
    variants: dict[str, str] = {}

    def override(self, value: Any, where: str) -> dict[str, Block]:
        """The overrides of a value. Raises PlanError for one that has none."""
        if self.sets:
            found: Any = value
            for key in reversed(self.sets.split(".")):
                found = {key: found}
            return found
        if value not in self.values:
            raise PlanError(
                f"{where} = {value!r}: means nothing here: {nearest(str(value), self.values)}"
            )
        return self.values[value]


class Row(Strict):
    """A row of a table: a method, the kind of labels, and what differs from the scale's recipes (`override`, by stage).

    distill, label and protocol name blocks of the scale's `distill`, `label` and `evaluate`; the first defaults to the method,
    the others to the kind of labels. A row with
    `measured: false` shows the published numbers only. published: the keys that find it in workflow/published when they differ.
    against: another row of the table, from which this one's gain is measured. only: the values of an axis at which the row
    stands (everywhere where it says nothing). comparable: whether a difference from the printed
    number may be drawn where data set, ipc and student are the paper's.
    """

    row: str
    method: str
    labels: str
    distill: str | None = None
    label: str | None = None
    protocol: str | None = None
    variant: str = ""
    measured: bool = True
    comparable: bool = True
    override: dict[str, Block] = {}
    published: dict[str, str] = {}
    against: str | None = None
    only: dict[str, list[Any]] = {}


class Table(Strict):
    """workflow/tables/<paper>/<table>.yaml: a published table or figure as a grid.

    published: the file of its printed numbers. paper: the paper's own axes. quantity: what a cell holds, with its unit; digits:
    its decimals. analysis: the component of `analyses` whose value a cell holds (None: accuracies). figure: the component of
    `figures` that draws it. unmeasured: values of the panel that are printed only, such as an average
    over data sets. scores: whether DD-Ranking's robustness scores stand beside the accuracies; they take four more sets of
    students, and a teacher of each student's network.
    """

    title: str
    published: str | None = None
    panel: str = "dataset"
    columns: list[str]
    axes: dict[str, AxisMeaning] = {}
    paper: dict[str, Axis] = {}
    quantity: str = "top-1 accuracy on the test set, percent"
    digits: int = Field(default=1, ge=0)
    analysis: str | None = None
    figure: str | None = None
    unmeasured: list[str] = []
    scores: bool = False
    rows: list[Row] = Field(min_length=1)


def checked(model: type[Strict], values: Any, where: str) -> Any:
    """`values` as `model`. Raises PlanError: one line with file, key, value and the nearest valid key."""
    if not isinstance(values, Mapping):
        raise PlanError(f"{where}: holds {type(values).__name__}, expected keys and values")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        nested = [Row, Dataset] if model in (Table, Scale) else []
        raise PlanError(
            explain(error, where, [name for kind in (model, *nested) for name in kind.model_fields])
        ) from None
