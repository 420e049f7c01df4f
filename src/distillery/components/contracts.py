"""What the module of a component defines: one Protocol for each kind.

`registry.load` returns modules of these types. mypy and a test over all components hold every file
to the Protocol of its kind. Nothing that runs in a job imports this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

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


class MethodModule(Protocol):
    """A file of `methods/`."""

    Recipe: Any

    def distill(
        self, train: ImageSet, recipe: Any, *, ipc: Any, teachers: list[Teacher], job: Job
    ) -> DistilledSet:
        """Distil a data set.

        Args:
            train: the training split.
            recipe: a `Recipe` of the module.
            ipc: the budget, images per class; an int where the trait `fractional_ipc` is not set.
            teachers: those that the recipe names, on the job's device.
            job: random streams, progress, the scratch folder, further inputs.
        """
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
        """How the labels of a training batch are found.

        Args:
            recipe: a `Recipe` of the module.
            stored: the artefact of a kind with the trait `stored`.
            teachers: those that the recipe names, where nothing is stored.
            device: of the batches.
            set_labels: (N, classes) float32; the soft labels that the distilled set itself holds.

        Returns:
            From a batch to its logits (B, classes) float32, or None where there are none.
        """
        ...


class StoredLabelModule(LabelModule, Protocol):
    """A kind of labels that writes files: its trait `stored` is set."""

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
        """Write the labels of a distilled set.

        Args:
            recipe: a `Recipe` of the module.
            instances: of the set, N images.
            teachers: those that the recipe names, on the job's device.
            job: the files go into `job.out`.
            mean: per channel, of pixels in [0, 1]; what the images are normalised with.
            std: as `mean`.
        """
        ...


class ReplayedLabelModule(StoredLabelModule, Protocol):
    """A kind of labels that is made for the batches of one training: it has the trait `replays`."""

    def seeds(self, stored: Artefact) -> dict[str, int]:
        """The seeds of the random streams that a student of these labels replays, by role."""
        ...


class LossModule(Protocol):
    """A file of `losses/`."""

    Recipe: Any

    def loss(self, logits: Tensor, target: Target, recipe: Any) -> Tensor:
        """A scalar, the mean over the batch.

        Args:
            logits: of the student, (B, classes) float.
            target: hard, mixed and, where there are any, soft labels.
            recipe: a `Recipe` of the module.
        """
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
        """A network from images (B, channels, size, size), normalised, to logits (B, classes).

        Args:
            name: the one of the module's names that was asked for.
            recipe: a `Recipe` of the module.
            channels: of the images.
            size: height and width of the images, in pixels.
            classes: outputs.
        """
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
        """Distances between the classes, and their embeddings where they share one space.

        Args:
            classes: names in label order.
            recipe: a `Recipe` of the module.
            train: the training split.
            teachers: those that the recipe names, on the job's device.
            job: random streams, progress, the device.
        """
        ...


class AnalysisModule(Protocol):
    """A file of `analyses/`."""

    Recipe: Any

    def analyse(self, inputs: AnalysisInputs, recipe: Any, job: Job) -> Result:
        """What a figure says of a set, its labels or a student.

        Args:
            inputs: what the trait `needs` names, and the data.
            recipe: a `Recipe` of the module.
            job: random streams, progress, the scratch folder.
        """
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
        """Augment a batch, differentiably in the images.

        Args:
            name: the one of the module's names that was asked for.
            images: (B, C, H, W) float, on any device; in [0, 1], or normalised where the trait
                `normalised` is set.
            generator: a CPU generator; nothing is drawn from another.
            parameter: what stands behind the colon of the name, as the trait `parameter` says:
                None, a number, or a word.

        Returns:
            Images of the same shape.
        """
        ...


class OptimizerModule(Protocol):
    """A file of `training/optimizers/`."""

    def build(
        self, name: str, groups: list[dict[str, Any]], recipe: Optimizer
    ) -> torch.optim.Optimizer:
        """The optimiser of a training.

        Args:
            name: the one of the module's names that was asked for.
            groups: of parameters, each with its `params` and `weight_decay`.
            recipe: learning rate, momentum and so on; the file says which fields it reads.
        """
        ...


class ScheduleModule(Protocol):
    """A file of `training/schedules/`."""

    def factor(self, schedule: Schedule, epoch: int, epochs: int) -> float:
        """The factor on the learning rate in an epoch after the warm-up.

        Args:
            schedule: the recipe; the file says which fields it reads.
            epoch: from 0, counted from the end of the warm-up.
            epochs: of the training, without the warm-up.
        """
        ...


class MixingModule(Protocol):
    """A file of `training/mixings/`."""

    def draw(self, alpha: float, images: Tensor, generator: Generator) -> Mixing:
        """How a batch is mixed.

        Args:
            alpha: of the recipe; lambda ~ Beta(alpha, alpha).
            images: (B, C, H, W) float; left alone.
            generator: a CPU generator; nothing is drawn from another.

        Returns:
            The mixing, its permutation on the device of `images`.
        """
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
