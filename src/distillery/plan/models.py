"""What the files that a user edits may hold: params.yaml, a scale, a table file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from distillery.components.fields import MOST
from distillery.errors import PlanError, nearest, shown
from distillery.plan.model_types import (
    Axis,
    Block,
    Counted,
    Key,
    Names,
    PositiveShare,
    Share,
    Side,
    Text,
)
from distillery.plan.origins import Where
from distillery.plan.types import explain
from distillery.table.published import PaperNames


class Strict(BaseModel):
    """A mapping that holds what it declares and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Keys of older files, and what to write instead.
    RENAMED: ClassVar[dict[str, str]] = {}


class Expected(Strict):
    """What the planner may assume of a data set before it was read.

    Estimates and checks of ipc use it, results never do.

    Attributes:
        classes: number of classes, above 1.
        train: training images.
        test: test images.
        shape: (C, H, W) of an image.
        original_bytes: of the training set as it is published; the compression ratio's numerator.
    """

    classes: int = Field(gt=1)
    train: int = Field(gt=0)
    test: int = Field(gt=0)
    shape: list[Side] = Field(min_length=3, max_length=3)
    original_bytes: int | None = Field(default=None, gt=0)

    @field_validator("shape")
    @classmethod
    def _channels_first(cls, shape: list[int]) -> list[int]:
        if shape[0] not in (1, 3):
            raise ValueError("write channels, 1 or 3, before height and width")
        if shape[1] != shape[2]:
            raise ValueError("images are square here; state a `size` that they are brought to")
        return shape


class Recipes(Strict):
    """What a scale, a data set and params.yaml may each say.

    Attributes:
        networks: references to network components, by the name that recipes use.
        ensemble: the papers' teachers in their order (INFER: R, M, E, S); a recipe's `teachers:
            ensemble` names all of them, `ensemble:2` the first two.
        whiten: recipes of the stage, by name; and so for the other stages.
        embed: by the name of the embeddings.
        teacher: by the name of the network.
        distill: by the name of the method, or one that a row gives.
        label: by the kind of labels, or a name that a row gives.
        evaluate: by the name of the protocol.
        analyse: by the name of the analysis.
    """

    networks: dict[Key, Block] = {}
    ensemble: Names = []
    whiten: dict[Key, Block] = {}
    embed: dict[Key, Block] = {}
    teacher: Block = {}
    distill: dict[Key, Block] = {}
    label: dict[Key, Block] = {}
    evaluate: dict[Key, Block] = {}
    analyse: dict[Key, Block] = {}


class Dataset(Recipes):
    """A data source and what differs for it, below the same keys as in the scale.

    Attributes:
        source: `kind:place`, such as `folder:data/flowers`.
        digest: what identifies its content; None: it is computed.
        size: height and width in pixels that images are brought to; None: their own.
        fit: how, by split: a name in `data.convert.FITS`.
        channels: 1 grey, 3 RGB; None: as the first training image.
        mean: of each channel, of pixels in [0, 1]; None: measured.
        std: the same for the standard deviation.
        orientation: what is done about EXIF tags.
        transparency: what lies behind transparent pixels.
        originals: "keep": the training images are stored at their own size, too.
        expected: what the planner may assume of it.
    """

    RENAMED: ClassVar[dict[str, str]] = {"facts": "expected"}

    source: str
    digest: str | None = Field(default=None, min_length=1, max_length=200)
    size: Side | None = None
    fit: dict[str, str] = {}
    channels: int | None = None
    mean: list[Share] | None = Field(default=None, min_length=1)
    std: list[PositiveShare] | None = Field(default=None, min_length=1)
    orientation: str | None = None
    transparency: str | None = None
    originals: str | None = None
    expected: Expected | None = None


class TableCounts(Strict):
    """How often the numbers of a table are measured, where it has numbers of its own.

    Attributes:
        draws: sets of a cell.
        students: networks trained on each.
    """

    draws: Counted | None = None
    students: Counted | None = None


class Scale(Recipes):
    """workflow/scales/<name>.yaml: every recipe, network and axis at that scale.

    Attributes:
        about: what the scale is for.
        network_aliases: networks that take the places of those that a table's rows name.
        datasets: data sets by name.
        tables: axes of each table `paper/table`: a list of values, or one list for each value of
            the panel.
        counts: draws and students of tables `paper/table` that have numbers of their own.
    """

    RENAMED: ClassVar[dict[str, str]] = {"stand_ins": "network_aliases"}

    about: str
    network_aliases: dict[str, str] = {}
    datasets: dict[Key, Dataset]
    tables: dict[str, dict[str, Axis]]
    counts: dict[str, TableCounts] = {}


class Params(Recipes):
    """params.yaml. Blocks named like stages override the scale's recipes, key by key.

    Attributes:
        paper: whose tables are named without a paper.
        scale: a file of workflow/scales.
        draws: sets of a cell, each made with random numbers of its own.
        students: networks trained on each set.
        tables: what Snakemake and DVC make when no target is given.
        device: where jobs compute.
        environment: raised by hand when an upgrade of libraries should make everything anew.
        datasets: data sets, and changes to the scale's.
        grid: axes of tables in place of the scale's; its `rows` names the rows to measure.
        counts: draws and students of tables that have numbers of their own, over the scale's.
        scales: the same keys again, for one scale alone each; they win over those beside.
    """

    RENAMED: ClassVar[dict[str, str]] = {"repeats": "students"}

    paper: str = "infer"
    scale: str = "demo"
    draws: Counted = 1
    students: Counted = 3
    tables: Names = Field(min_length=1)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    environment: int = Field(default=1, ge=1, le=MOST)
    datasets: dict[Key, Block] = {}
    grid: dict[str, dict[str, Axis]] = {}
    counts: dict[str, TableCounts] = {}
    scales: dict[str, Block] = {}


class ScaleChanges(Params):
    """A block of `scales` in params.yaml: the keys of params.yaml, for one scale alone."""

    tables: Names = Field(default=[], min_length=1)


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

    name: str
    title: str
    words: PaperWords = PaperWords()
    printed: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]] = {}
    compression_ratio: bool = False


class PassCost(Strict):
    """What is counted of a network on one image, and the width that it had."""

    multiply_adds: float = Field(gt=0)
    activations: float = Field(gt=0)
    parameters: float = Field(gt=0)
    width: float = Field(default=1, gt=0)


class Costs(Strict):
    """workflow/costs.yaml: what is counted of networks, for estimates.

    Attributes:
        multiply_adds_per_second: of a job, by scale.
        networks: by name and side of the images, what `plan.network_costs.NetworkCost` says.
    """

    multiply_adds_per_second: dict[str, Annotated[float, Field(gt=0)]]
    networks: dict[str, Annotated[dict[int, PassCost], Field(min_length=1)]]


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
    comparable: bool | dict[str, list[Any]] = True
    because: str | None = None
    override: dict[str, Block] = {}
    published: dict[str, str] = {}
    against: str | None = None
    against_at: dict[str, Any] = {}
    only: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    budget: Literal["ipc", "bytes"] = "ipc"

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
    drop_from: dict[str, Any] = {}
    scores: bool = False
    rows: list[Row] = Field(min_length=1)


# The models inside another one, whose keys an error may mean.
NESTED: dict[type[Strict], tuple[type[Strict], ...]] = {
    Table: (Row, RowLabels, AxisMeaning),
    Scale: (Dataset, Expected, TableCounts),
    Params: (TableCounts,),
    Paper: (PaperWords,),
    Costs: (PassCost,),
}


def checked(model: type[Strict], values: Any, where: Where | str) -> Any:
    """`values` as `model`.

    Args:
        model: the type.
        values: what a file holds.
        where: the file, or the place of each value, for errors.

    Raises:
        PlanError: one line with file, key, value and the nearest valid key.
    """
    if not isinstance(values, Mapping):
        raise PlanError(f"{where}: holds {type(values).__name__}, expected keys and values")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        kinds = [model, *NESTED.get(model, ())]
        names = list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))
        renamed = {old: new for kind in kinds for old, new in kind.RENAMED.items()}
        raise PlanError(explain(error, where, names, renamed)) from None
