"""What each kind of component promises: its traits, which the planner reads, and its functions.

A component's file may assign one literal mapping, `TRAITS`. Its keys are the fields of the class of
traits of its kind, below; what it leaves out has the default. The planner reads the mapping from
the source text (`plan.types.traits`), so that nothing is imported to plan. The Protocols say what
the module of a component defines; mypy and a test over all components hold every file to them.

Nothing that runs in a job imports this file: a new trait makes no artefact anew.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from distillery.components.parameters import PARAMETERS
from distillery.errors import PlanError, nearest

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Generator, Tensor, nn

    from distillery.analyses.inputs import AnalysisInputs, Result
    from distillery.data.images import ImageSet
    from distillery.data.source import Source
    from distillery.embeddings.distances import ClassDistances
    from distillery.figures.panel import Panel
    from distillery.losses.target import Target
    from distillery.sets.distilled import DistilledSet, Instances
    from distillery.store.artefact import Artefact
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher
    from distillery.training.batches import Batch, Mixing
    from distillery.training.recipe import Optimizer, Schedule

T = TypeVar("T", bound="Traits")


@dataclass(frozen=True)
class Traits:
    """Traits of a kind that has none."""

    # The values that a trait allows, where its type allows more.
    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def read(cls: type[T], values: Any, where: str) -> T:
        """The traits of the literal mapping `values`, found at `where` (a file).

        Raises:
            PlanError: it is no mapping, has an unknown key, or a value of a wrong type or, in
                `ALLOWED`, one that does not exist.
        """
        if not isinstance(values, Mapping):
            raise PlanError(f"{where}: TRAITS = {values!r}: expected keys and values")
        hints = typing.get_type_hints(cls)
        fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
        for key, value in values.items():
            if key not in fields:
                raise PlanError(f"{where}: TRAITS['{key}']: unknown trait: {nearest(key, fields)}")
            _check(value, fields[key], cls.ALLOWED.get(key), f"{where}: TRAITS['{key}']")
        return cls(**values)

    @classmethod
    def check_stray(cls, names: Iterable[str], where: str) -> None:
        """Refuse a module constant of `names` that looks like a trait but stands outside TRAITS.

        Raises:
            PlanError: a constant is called like a trait, or nearly so.
        """
        traits = [field.name.upper() for field in dataclasses.fields(cls)]
        for name in names:
            if name not in READ and difflib.get_close_matches(name, READ, n=1, cutoff=0.82):
                raise PlanError(f"{where}: {name}: is read by nothing: {nearest(name, READ)}")
            if close := difflib.get_close_matches(name, traits, n=1, cutoff=0.8):
                trait = close[0].lower()
                raise PlanError(
                    f"{where}: {name}: is read by nothing; write TRAITS = {{'{trait}': ...}}"
                )


READ = ("NAMES", "TRAITS")  # the constants of a component that are read from its source text


def _check(value: Any, hint: Any, allowed: Sequence[str] | None, where: str) -> None:
    if not _is_of(value, hint):
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        raise PlanError(f"{where} = {value!r}: expected {expected}")
    if allowed is None:
        return
    for name in (value,) if isinstance(value, str) else value:
        if name not in allowed:
            raise PlanError(f"{where} = '{name}': does not exist: {nearest(name, allowed)}")


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a literal is of a type as the traits have them; a whole number is no `bool`."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, options[0]) for item in value)
    if isinstance(hint, types.UnionType):
        return any(_is_of(value, option) for option in options)
    return type(value) is hint


@dataclass(frozen=True)
class MethodTraits(Traits):
    """Of a method.

    Attributes:
        needs: "teachers": its recipe must name at least one.
        soft_labels: whether its sets hold soft labels; where the recipe decides, its property
            `soft` does.
        fractional_ipc: whether it takes fractions of an image per class.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {"needs": ("teachers",)}
    needs: tuple[str, ...] = ()
    soft_labels: bool = False
    fractional_ipc: bool = False


@dataclass(frozen=True)
class LabelTraits(Traits):
    """Of a kind of labels.

    Attributes:
        logits: whether it gives soft labels.
        stored: whether it writes files, an artefact of the label stage.
        stored_in_set: whether they are the labels that a distilled set holds itself.
        counted_as: the kind as which the papers' compression ratio counts it; None: as itself.
        replays: fields of the training recipe that its labels are made for.
    """

    logits: bool = False
    stored: bool = False
    stored_in_set: bool = False
    counted_as: str | None = None
    replays: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossTraits(Traits):
    """Of a loss.

    Attributes:
        needs_soft_labels: whether it compares with a teacher's logits.
        mixed_images: whether it is defined where images are mixed.
    """

    needs_soft_labels: bool = False
    mixed_images: bool = True


@dataclass(frozen=True)
class RefinementTraits(Traits):
    """Of a refinement of labels.

    Attributes:
        needs_soft_labels: whether it changes a teacher's logits.
    """

    needs_soft_labels: bool = False


@dataclass(frozen=True)
class EmbeddingTraits(Traits):
    """Of a source of class embeddings.

    Attributes:
        needs: "teachers": its recipe must name at least one.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {"needs": ("teachers",)}
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisTraits(Traits):
    """Of an analysis.

    Attributes:
        needs: what it looks at: the inputs of its job, and "protocol" where it trains students.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "needs": ("distilled", "label", "teachers", "embeddings", "student", "protocol")
    }
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceTraits(Traits):
    """Of a kind of data source.

    Attributes:
        on_disk: whether its place is a folder with content of its own, which identifies it.
    """

    on_disk: bool = False


@dataclass(frozen=True)
class AugmentationTraits(Traits):
    """Of the augmentations of a file.

    Attributes:
        normalised: whether they work on normalised images, where 0 is the mean, not on pixels.
        parameter: what stands behind the colon of a name: one of `parameters.PARAMETERS`, or the
            words to choose from; None: nothing may.
        default: the parameter where nothing stands there; None: something must.
    """

    normalised: bool = False
    parameter: str | tuple[str, ...] | None = None
    default: str | int | float | None = None

    @classmethod
    def read(cls: type[T], values: Any, where: str) -> T:
        """As of all traits; `parameter`, where it is one word, must be known."""
        traits = super().read(values, where)
        parameter = values.get("parameter")
        if isinstance(parameter, str) and parameter not in PARAMETERS:
            wrong = f"{where}: TRAITS['parameter'] = '{parameter}'"
            raise PlanError(f"{wrong}: does not exist: {nearest(parameter, PARAMETERS)}")
        return traits


TRAITS: dict[str, type[Traits]] = {
    "method": MethodTraits,
    "label": LabelTraits,
    "loss": LossTraits,
    "refinement": RefinementTraits,
    "network": Traits,
    "embedding": EmbeddingTraits,
    "analysis": AnalysisTraits,
    "figure": Traits,
    "source": SourceTraits,
    "augmentation": AugmentationTraits,
    "optimizer": Traits,
    "schedule": Traits,
    "mixing": Traits,
}


class MethodModule(Protocol):
    """A file of `methods/`."""

    Recipe: Any

    def distill(
        self, train: ImageSet, recipe: Any, *, ipc: Any, teachers: list[Teacher], job: Job
    ) -> DistilledSet:
        """The distilled set of the budget `ipc`, images per class."""
        ...


class ExpandingMethodModule(MethodModule, Protocol):
    """A method whose sets hold something else than plain images."""

    def expand(self, distilled: DistilledSet) -> Instances:
        """The training images that the stored parts stand for, on the device of the parts."""
        ...


class LabelModule(Protocol):
    """A file of `labels/`."""

    Recipe: Any

    def labeller(
        self,
        recipe: Any,
        *,
        stored: Artefact | None,
        teachers: list[Teacher],
        device: torch.device,
        set_labels: Tensor | None = None,
    ) -> Callable[[Batch], Tensor | None]:
        """From a training batch to its logits (B, classes) float32, or None."""
        ...


class StoredLabelModule(LabelModule, Protocol):
    """A kind of labels that writes files."""

    def make(
        self,
        recipe: Any,
        instances: Instances,
        teachers: list[Teacher],
        job: Job,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Write the labels of `instances` into `job.out`."""
        ...


class ReplayedLabelModule(StoredLabelModule, Protocol):
    """A kind of labels that is made for the batches of one training."""

    def seeds(self, stored: Artefact) -> dict[str, int]:
        """The seeds of the random streams that a student of these labels replays, by role."""
        ...


class LossModule(Protocol):
    """A file of `losses/`."""

    Recipe: Any

    def loss(self, logits: Tensor, target: Target, recipe: Any) -> Tensor:
        """A scalar, the mean over the batch, of logits (B, classes)."""
        ...


class RefinementModule(Protocol):
    """A file of `refinements/`."""

    Recipe: Any

    def refine(self, target: Target, recipe: Any) -> Target:
        """The target with other soft labels."""
        ...


class NetworkModule(Protocol):
    """A file of `nets/`."""

    Recipe: Any

    def build(self, name: str, recipe: Any, *, channels: int, size: int, classes: int) -> nn.Module:
        """A network from images (B, channels, size, size), normalised, to logits (B, classes)."""
        ...


class EmbeddingModule(Protocol):
    """A file of `embeddings/`."""

    Recipe: Any

    def embed(
        self,
        classes: Sequence[str],
        recipe: Any,
        *,
        train: ImageSet,
        teachers: list[Teacher],
        job: Job,
    ) -> ClassDistances:
        """Distances between the classes, and their embeddings where they share one space."""
        ...


class AnalysisModule(Protocol):
    """A file of `analyses/`."""

    Recipe: Any

    def analyse(self, inputs: AnalysisInputs, recipe: Any, job: Job) -> Result:
        """What a figure says of a set, its labels or a student."""
        ...


class FigureModule(Protocol):
    """A file of `figures/`."""

    def draw(self, panel: Panel) -> Figure:
        """The picture of a table and its analyses."""
        ...


class SourceModule(Protocol):
    """A file `data/source_<kind>.py`."""

    def read(self, place: str) -> Source:
        """The source at `place`: class names in label order, and two splits."""
        ...


class AugmentationModule(Protocol):
    """A file of `training/augmentations/`."""

    def apply(self, name: str, images: Tensor, generator: Generator, parameter: Any) -> Tensor:
        """Images (B, C, H, W) float, augmented by `name`, drawn from a CPU generator.

        `parameter` is what the name's `TRAITS` say: None, a number, or a word.
        """
        ...


class OptimizerModule(Protocol):
    """A file of `training/optimizers/`."""

    def build(
        self, name: str, groups: list[dict[str, Any]], recipe: Optimizer
    ) -> torch.optim.Optimizer:
        """The optimiser over parameter groups, each with its `params` and `weight_decay`."""
        ...


class ScheduleModule(Protocol):
    """A file of `training/schedules/`."""

    def factor(self, schedule: Schedule, epoch: int, epochs: int) -> float:
        """The factor on the learning rate in `epoch` (0 .. epochs - 1), after the warm-up."""
        ...


class MixingModule(Protocol):
    """A file of `training/mixings/`."""

    def draw(self, alpha: float, images: Tensor, generator: Generator) -> Mixing:
        """How a batch (B, C, H, W) is mixed, drawn from a CPU generator."""
        ...


CONTRACTS: dict[str, type] = {
    "method": MethodModule,
    "label": LabelModule,
    "loss": LossModule,
    "refinement": RefinementModule,
    "network": NetworkModule,
    "embedding": EmbeddingModule,
    "analysis": AnalysisModule,
    "figure": FigureModule,
    "source": SourceModule,
    "augmentation": AugmentationModule,
    "optimizer": OptimizerModule,
    "schedule": ScheduleModule,
    "mixing": MixingModule,
}
# The kinds whose files define a `Recipe`.
WITH_RECIPE = tuple(
    kind for kind, contract in CONTRACTS.items() if "Recipe" in contract.__annotations__
)
