"""What a paper's and a table's files may hold: workflow/tables/<paper>/paper.yaml, <table>.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from distillery.errors import PlanError, nearest, shown
from distillery.plan.model_types import Axis, Block, Names, Text, Value
from distillery.plan.models import Strict
from distillery.table.published import PaperNames


class PaperWords(Strict):
    """What the words in a paper's printed tables mean, as `table.published` needs it.

    Attributes:
        same: names that mean the same, by column of the files in workflow/published: another name
            of that column, or several columns that it stands for. It holds for printed cells and
            for what the tables ask.
        hard_labels_where_blank: methods whose labels are hard where the paper does not say.
        variants_of_one_table: beginnings of variants that mean something in their own table only.
    """

    same: dict[str, dict[str, str | dict[str, str]]] = {}
    hard_labels_where_blank: list[str] = []
    variants_of_one_table: list[str] = []

    def names(self) -> PaperNames:
        """The same, written out in full."""
        same = {
            column: {
                name: {column: meaning} if isinstance(meaning, str) else meaning
                for name, meaning in meanings.items()
            }
            for column, meanings in self.same.items()
        }
        return PaperNames(same, self.hard_labels_where_blank, self.variants_of_one_table)


class Paper(Strict):
    """workflow/tables/<paper>/paper.yaml: what belongs to the paper as a whole.

    Attributes:
        name: its short name, as tables print it.
        title: its title, and where it was published.
        words: what the words in its printed tables mean.
        printed: facts that it prints about a table or figure, by table, then by name; the figure
            that draws the table shows them.
        compression_ratio: whether it counts a compression ratio (`table.budget.cr_paper`).
    """

    NESTED: ClassVar[tuple[type[Strict], ...]] = (PaperWords,)

    name: str
    title: str
    words: PaperWords = PaperWords()
    printed: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]] = {}
    compression_ratio: bool = False


class AxisMeaning(Strict):
    """What the values of an axis beyond dataset, student and ipc change.

    Attributes:
        values: recipe overrides of each value, by stage.
        sets: or the one setting (stage.key.key) that takes the value.
        published: whether printed numbers are told apart by it, in a column of the axis' name.
        variants: or by the variant that is printed for a value.
    """

    values: dict[str, dict[str, Block]] = {}
    sets: str | None = None
    published: bool = False
    variants: dict[str, str] = {}

    def override(self, value: Any, place: str, where: str) -> dict[str, Block]:
        """The overrides of a value.

        Args:
            value: on the axis.
            place: file and key of the value, for errors.
            where: file and key of this meaning, for errors.

        Raises:
            PlanError: the value has none.
        """
        if self.sets:
            found: Any = value
            for key in reversed(self.sets.split(".")):
                found = {key: found}
            return found
        if value not in self.values:
            raise PlanError(
                f"{place}: {shown(value)} means nothing to {where}: "
                f"{nearest(str(value), self.values)}"
            )
        return self.values[value]


class RowLabels(Strict):
    """The labels of a row. In a table file `labels: static` is short for kind and recipe `static`.

    Attributes:
        kind: a component of `labels`: what labels they are, and when they are made.
        recipe: the block of the scale's `label` that says how; one named like the kind by default.
    """

    kind: str
    recipe: str

    @model_validator(mode="before")
    @classmethod
    def _recipe_of_its_kind(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "kind" in values:
            return {"recipe": values["kind"], **values}
        return values


def _all_in(place: Mapping[str, Any], values: Mapping[str, list[Any]]) -> bool:
    return all(place.get(axis) in listed for axis, listed in values.items())


class Row(Strict):
    """A row of a table: a method, labels, a protocol, and what differs from the scale's recipes.

    Attributes:
        row: its name in the table.
        method: a component of `methods`.
        labels: the kind of labels, or `{kind: ..., recipe: ...}` where their recipe is another
            block than the one of the kind's name.
        distill: the block of the scale's `distill`; one named like the method by default.
        protocol: the block of the scale's `evaluate`; one named like the kind of labels by default.
        variant: a name that tells it apart from the plain method in the table and in
            workflow/published.
        measured: whether it is run; otherwise it shows the published numbers only.
        comparable: whether a difference from the printed number may be drawn where data set, ipc
            and student are the paper's; or at which values of axes, as `only` says them.
        because: the reason where it may not.
        override: changes of recipes, by stage.
        published: the keys that find it in workflow/published where they differ from its own.
        against: another row of the table, from which this one's gain is measured; where only this
            one is measured, there is no gain, and a note under the table says so.
        against_at: values of axes at which that row is looked up, where not at this one's own: a
            poster of 0.3 images per class beside images at one.
        only: the values of an axis at which the row stands; everywhere where it says nothing.
        steps_as: another row, after as many steps of the optimiser as whose students this one's
            stop, whatever epochs its protocol says.
        budget: "ipc": so many images per class; "bytes": the largest set that takes, with its
            stored labels, no more bytes than so many images per class of a byte per number.
    """

    RENAMED: ClassVar[dict[str, str]] = {"label": "labels: {kind: ..., recipe: ...}"}

    row: Text
    method: str
    labels: RowLabels
    distill: Text | None = None
    protocol: Text | None = None
    variant: str = ""
    measured: bool = True
    comparable: bool | dict[str, list[Value]] = True
    because: str | None = None
    override: dict[str, Block] = {}
    published: dict[str, str] = {}
    against: str | None = None
    against_at: dict[str, Value] = {}
    only: dict[str, Annotated[list[Value], Field(min_length=1)]] = {}
    budget: Literal["ipc", "bytes"] = "ipc"
    steps_as: Text | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_by_their_kind(cls, labels: Any) -> Any:
        return {"kind": labels} if isinstance(labels, str) else labels

    @model_validator(mode="after")
    def _reasoned(self) -> Row:
        if (self.comparable is True) == (self.because is not None):
            raise ValueError("comparable: false and because: '<the reason>' belong together")
        return self

    def stands_at(self, place: Mapping[str, Any]) -> bool:
        """Whether the row has a cell at a place, that is at the value of each axis."""
        return _all_in(place, self.only)

    def comparable_at(self, place: Mapping[str, Any]) -> bool:
        """Whether a difference from the number printed for a place may be drawn."""
        if isinstance(self.comparable, bool):
            return self.comparable
        return _all_in(place, self.comparable)

    @property
    def evaluation(self) -> str:
        """The block of the scale's `evaluate` that trains its students."""
        return self.protocol or self.labels.kind


class Table(Strict):
    """workflow/tables/<paper>/<table>.yaml: a published table or figure as a grid.

    Attributes:
        title: its title.
        published: the file of its printed numbers in workflow/published.
        panel: the axis whose values have a grid of their own each.
        columns: the other axes.
        axes: what the axes beyond dataset, student and ipc mean.
        paper: the paper's own axes.
        quantity: what a cell holds, with its unit.
        digits: decimals of a cell.
        analysis: the component of `analyses` whose value a cell holds; None: accuracies.
        figure: the component of `figures` that draws it.
        unmeasured: values of the panel that are printed only, such as an average over data sets.
        averages: those of them that are averages over the other values; beside the printed ones
            stand those of the measured cells.
        drop_from: values of axes; the table shows by how many percent each row is below itself
            there.
        scores: whether DD-Ranking's robustness scores stand beside the accuracies; they take four
            more sets of students, and a teacher of each student's network.
        rows: its rows, in order.
    """

    NESTED: ClassVar[tuple[type[Strict], ...]] = (Row, RowLabels, AxisMeaning)

    title: Text
    published: str | None = None
    panel: str = "dataset"
    columns: list[str]
    axes: dict[str, AxisMeaning] = {}
    paper: dict[str, Axis] = {}
    quantity: str = "top-1 accuracy on the test set, percent"
    digits: int = Field(default=1, ge=0, le=9)
    analysis: str | None = None
    figure: str | None = None
    unmeasured: Names = []
    averages: Names = []
    drop_from: dict[str, Value] = {}
    scores: bool = False
    rows: list[Row] = Field(min_length=1)
