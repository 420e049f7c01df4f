"""What the files that a user edits may hold: params.yaml and a scale; and how they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from distillery.components.fields import MOST
from distillery.errors import PlanError
from distillery.plan.model_types import (
    Axis,
    Block,
    Counted,
    Key,
    Names,
    PositiveShare,
    Share,
    Side,
)
from distillery.plan.origins import Where
from distillery.plan.types import explain


class Strict(BaseModel):
    """A mapping that holds what it declares and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Keys of older files, and what to write instead.
    RENAMED: ClassVar[dict[str, str]] = {}
    # The models inside, whose keys an error may mean.
    NESTED: ClassVar[tuple[type[Strict], ...]] = ()


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


class Counts(NamedTuple):
    """How often the numbers of a table are measured.

    Attributes:
        draws: sets of a cell.
        students: networks trained on each.
    """

    draws: int
    students: int


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

    NESTED: ClassVar[tuple[type[Strict], ...]] = (Dataset, Expected, TableCounts)

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

    NESTED: ClassVar[tuple[type[Strict], ...]] = (TableCounts,)

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


class PassCost(Strict):
    """What is counted of a network on one image, and the width that it had."""

    multiply_adds: float = Field(gt=0)
    activations: float = Field(gt=0)
    kept: float = Field(gt=0)
    widest: float = Field(gt=0)
    parameters: float = Field(gt=0)
    width: float = Field(default=1, gt=0)


class Costs(Strict):
    """workflow/costs.yaml: what is counted of networks, for estimates.

    Attributes:
        multiply_adds_per_second: of a job, by scale.
        networks: by name and side of the images, what `plan.network_costs.NetworkCost` says.
    """

    NESTED: ClassVar[tuple[type[Strict], ...]] = (PassCost,)

    multiply_adds_per_second: dict[str, Annotated[float, Field(gt=0)]]
    networks: dict[str, Annotated[dict[int, PassCost], Field(min_length=1)]]


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
        kinds = [model, *model.NESTED]
        names = list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))
        renamed = {old: new for kind in kinds for old, new in kind.RENAMED.items()}
        raise PlanError(explain(error, where, names, renamed)) from None
