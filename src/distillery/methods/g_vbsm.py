"""G-VBSM, recovery by the statistics of several backbones (CVPR 2024).

"Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.components.fields import (
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    Precision,
    Quality,
)
from distillery.errors import BudgetError, TeacherError
from distillery.matching.densification import densification
from distillery.matching.statistics import (
    AverageDistance,
    batch_norm_statistics,
    convolution_statistics,
    record_inputs,
    reference_statistics,
    running_statistics,
)
from distillery.methods.shared.crops import augmented_reader
from distillery.methods.shared.recovery import augment_groups, diverged, pixel_range, recover
from distillery.nets.features import fired_layers
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts, quantised
from distillery.store.checkpoint import Checkpoint, folding, gathered
from distillery.training.frozen import frozen
from distillery.training.normalise import denormalise
from distillery.training.recipe import Augmentations, NormalisedAugmentations

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("g-vbsm",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of the authors' code for CIFAR.

    Attributes:
        teachers: the backbones, one per step in turn.
        iterations: steps per batch.
        lr: of Adam, falling as a cosine to 0.
        betas: of Adam.
        batch: images that are made side by side and share their statistics.
        per_class: images of a class in a row before the next class comes (None: all ipc; Tiny
            ImageNet: ipc / 10).
        weight: of the statistics.
        first_weight: of the first layer within them.
        drop: beta_dr, probability with which a convolution is left out of a step (ImageNet 0).
        ema: alpha, decay of the moving averages (ImageNet 0.4).
        patch: side of a cell in pixels (ImageNet 16).
        densification: weight of that loss.
        tau: its temperature.
        augment: names of training.augment, drawn once per step for the whole batch, as the authors
            do.
        reference_augment: names of training.augment, for the real images whose statistics the
            convolutions are to match; a first "resized-crop" cuts the original images where the
            data keep them (ImageNet).
        reference_batch: real images per batch.
        reference_images: real images in all; None: the whole training set.
        jpeg: quality of the JPEG files that are stored; None stores without loss.
        precision: of the backbones' passes, those over real images included: "fp32", or "bf16"
            under autocast. Images, statistics, losses and Adam are float32 all the same.
    """

    teachers: tuple[str, ...]
    iterations: Count = 4000
    lr: Positive = 0.05
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    batch: Count = 100
    per_class: Count | None = None
    weight: NonNegative = 0.01
    first_weight: NonNegative = 10.0
    drop: Fraction = 0.4
    ema: Fraction = 0.8
    patch: Count = 4
    densification: NonNegative = 1.0
    tau: Positive = 4.0
    augment: NormalisedAugmentations = ("batch-crop:4", "batch-flip", "roll:32")
    reference_augment: Augmentations = ("crop:4", "flip")
    reference_batch: Count = 64
    reference_images: Count | None = None
    jpeg: Quality | None = None
    precision: Precision = "fp32"

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one image through each backbone, a backward pass counting as two.

        The backbones take turns; the pass over the real images is left out.
        """
        return 3 * ipc * classes * self.iterations / len(self.teachers)

    def at_once(self, ipc: float, classes: int) -> tuple[float, float]:
        """Images that go through a backbone together: with gradients, and without."""
        return min(self.batch, ipc * classes), self.reference_batch


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Recover `ipc` images of each class from N(0, 1) noise in normalised units.

    CE(f_t(A(x)), y) + weight * (distances of the statistics of f_t's batch norms and convolutions)
    + densification(A(x)). The backbone f_t is the next in turn at each step; the turn goes on
    across batches, as do the moving averages. A backbone without batch normalisation contributes
    its convolutions alone. Batches are made in order, the images of a class side by side. Images
    are kept within the pixel range after every step.

    Deviation: the statistics are those of the whole batch, where the authors' two processes
    (CIFAR-100 and larger) take those of half a batch each; stored rounded, where they floor; the
    averages start at the references (see AverageDistance). Normalised as the data set is, where
    the authors use CIFAR-100's constants for CIFAR-10 and ImageNet's for Tiny-ImageNet: in pixels,
    noise and steps are 22 to 27 % smaller than theirs on CIFAR-10, 1 % larger on Tiny-ImageNet.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: the backbones.
        job: gives device, random streams and folders.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, rounded, ordered by index, then class.

    Raises:
        BudgetError: ipc is 0.
        TeacherError: a teacher has nothing to match.
        DistilleryError: the optimisation diverges.
    """
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    batches = class_major(ipc, len(train.classes), recipe)
    with ExitStack() as hooks:
        backbones = [
            hooks.enter_context(backbone(j, t, train, recipe, job)) for j, t in enumerate(teachers)
        ]
        labels = [places % len(train.classes) for places in batches]
        made = recovered(train, labels, backbones, recipe, job)
    images = torch.empty(ipc * len(train.classes), *train.shape, dtype=torch.uint8)
    for places, of_batch in zip(batches, made, strict=True):
        images[places] = of_batch
    parts = image_parts(images, torch.arange(len(train.classes)).repeat(ipc), recipe.jpeg)
    return DistilledSet(
        "g-vbsm", ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts
    )


def class_major(ipc: int, classes: int, recipe: Recipe) -> list[Tensor]:
    """Which images each batch makes: class by class, `per_class` of a class at a time.

    Args:
        ipc: images per class.
        classes: how many there are.
        recipe: gives per_class and batch.

    Returns:
        For each batch the places (b,) int64 of its images in the set: index * classes + class.
    """
    groups = torch.arange(ipc * classes).view(ipc, classes).split(recipe.per_class or ipc)
    return [batch for group in groups for batch in group.T.flatten().split(recipe.batch)]


@dataclass
class Backbone:
    """A network whose layers report their statistics at each pass.

    Attributes:
        model: the network.
        layers: its batch norms and convolutions.
        distance: of their statistics to those of real images.
        silent: layers that report None.
        statistics: of each layer, of the last pass.
    """

    model: nn.Module
    layers: list[nn.Module]
    distance: AverageDistance
    silent: set[nn.Module] = field(default_factory=set)
    statistics: Sequence[Sequence[Tensor] | None] = ()

    def drop(self, probability: float, stream: torch.Generator) -> None:
        """Silence each convolution with this probability until the next call."""
        drawn = (torch.rand(len(self.layers), generator=stream) < probability).tolist()
        self.silent.clear()
        self.silent.update(
            layer
            for layer, dropped in zip(self.layers, drawn, strict=True)
            if dropped and isinstance(layer, nn.Conv2d)
        )


@contextmanager
def backbone(
    j: int, teacher: Teacher, train: ImageSet, recipe: Recipe, job: Job
) -> Iterator[Backbone]:
    """A teacher with hooks on the inputs of its batch norms and convolutions.

    The hooks go when the context ends.

    Args:
        j: its number among the teachers.
        teacher: the network.
        train: the real images.
        recipe: the settings.
        job: gives device, random stream and folder.

    Raises:
        TeacherError: it has neither kind of layer.
    """
    model = frozen(teacher.model, job.device, recipe.precision)
    kinds = (nn.BatchNorm2d, nn.Conv2d)
    layers = fired_layers(model, torch.zeros(1, *train.shape, device=job.device), kinds)
    if not layers:
        raise TeacherError(
            f"teacher '{teacher.name}' has no batch norms or convolutions to match: "
            f"name another network"
        )
    real = references(j, model, layers, train, recipe, job)
    weights = [recipe.first_weight] + [1.0] * (len(layers) - 1)
    hooked = Backbone(model, layers, AverageDistance(real, weights, recipe.ema))

    def measure(layer: nn.Module, features: Tensor) -> tuple[Tensor, ...] | None:
        if layer in hooked.silent:
            return None
        if isinstance(layer, nn.BatchNorm2d):
            return batch_norm_statistics(layer, features)
        return convolution_statistics(features, recipe.patch)

    with record_inputs(layers, measure) as hooked.statistics:
        yield hooked


def references(
    j: int, model: nn.Module, layers: list[nn.Module], train: ImageSet, recipe: Recipe, job: Job
) -> list[Sequence[Tensor]]:
    """What the statistics of each layer are to be.

    Args:
        j: number of the backbone.
        model: its network.
        layers: its batch norms and convolutions.
        train: the real images.
        recipe: the settings.
        job: gives device, random stream and folder.

    Returns:
        The running statistics of batch norms, their mean as 0 (`batch_norm_statistics` measures
        from the running mean on); of convolutions those of augmented real images.
    """
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    batches, read, stream = real_batches(j, train, recipe, job)
    label = f"statistics of {recipe.teachers[j]}"
    fold = folding(job, f"reference-{j}", streams=[stream], label=label)
    measured = reference_statistics(model, convolutions, batches, recipe.patch, read, fold)
    of_convolutions = iter(measured)
    return [
        _running_reference(layer) if isinstance(layer, nn.BatchNorm2d) else next(of_convolutions)
        for layer in layers
    ]


def _running_reference(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = running_statistics(layer)
    return torch.zeros_like(mean), variance


def real_batches(
    j: int, train: ImageSet, recipe: Recipe, job: Job
) -> tuple[Sequence[Tensor], Callable[[Tensor], Tensor], torch.Generator]:
    """Random real images without repetition, augmented, normalised.

    Args:
        j: number of the backbone that sees them.
        train: the real images.
        recipe: the settings.
        job: gives device and random stream.

    Returns:
        Batches of indices (reference_batch,) int64; a function from one, in their order, to its
        images (reference_batch, C, H, W) float32 on the device; the stream that it draws from.
    """
    stream = job.generator(f"reference/{j}")
    read = augmented_reader(train, recipe.reference_augment, stream, job.device)
    chosen = torch.randperm(len(train), generator=stream)[: recipe.reference_images]
    return chosen.split(recipe.reference_batch), read, stream


@dataclass
class BackboneObjective:
    """The objective of a batch: at each step that of the next backbone.

    Attributes:
        backbones: all of them.
        recipe: the settings.
        counts: images of each class in the batch, in order.
        turn: steps made so far, over all batches.
        stream: what is dropped follows from it.
    """

    backbones: Sequence[Backbone]
    recipe: Recipe
    counts: Sequence[int]
    turn: int
    stream: torch.Generator

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both losses and the gradient of the objective.

        Args:
            images: (1, B, C, H, W), normalised.
            labels: (B,) int64.

        Returns:
            Cross entropy, distance of the statistics, and the gradient by the images, in their
            shape.
        """
        backbone, self.turn = self.backbones[self.turn % len(self.backbones)], self.turn + 1
        backbone.drop(self.recipe.drop, self.stream)
        leaf = images[0].detach().requires_grad_()
        ce = cross_entropy(backbone.model(leaf), labels)
        copies = densification(leaf, self.counts, self.recipe.tau)
        distance = backbone.distance(backbone.statistics)
        total = ce + self.recipe.weight * distance + self.recipe.densification * copies
        (gradient,) = torch.autograd.grad(total, leaf)
        return ce.detach(), distance.detach(), gradient[None]

    def get_state(self) -> Tensor:
        """The turn: () int64."""
        return torch.tensor(self.turn)

    def set_state(self, state: Tensor) -> None:
        """Go on at a turn."""
        self.turn = int(state)


def recovered(
    train: ImageSet,
    labels: Sequence[Tensor],
    backbones: Sequence[Backbone],
    recipe: Recipe,
    job: Job,
) -> list[Tensor]:
    """The images of all batches, which hand their moving averages on.

    Args:
        train: only the shape and the normalisation are read.
        labels: of each batch, (B,) int64.
        backbones: the networks, whose moving averages go on.
        recipe: the settings.
        job: gives device, random streams and folder.

    Returns:
        For each batch (B, C, H, W) uint8: all of them as floats would fill a machine's memory.
    """
    checkpoint, averages = Checkpoint(job, "batch-steps"), [b.distance for b in backbones]

    def make(number: int) -> Tensor:
        bar.update(number * recipe.iterations - bar.n)  # what was read and not made
        stream, classes = job.generator(f"batch/{number}"), labels[number]
        noise = torch.randn(1, len(classes), *train.shape, generator=stream).to(job.device)
        counts = classes.unique_consecutive(return_counts=True)[1].tolist()
        turn = number * recipe.iterations
        objective = BackboneObjective(backbones, recipe, counts, turn, stream)
        try:
            (images,) = recover(
                noise,
                augment_groups(lambda step: recipe.augment, [stream]),
                classes.to(job.device),
                objective,
                recipe,
                bar,
                pixel_range(train, job.device),
                streams=[stream, objective, *averages],
                checkpoint=checkpoint.of(number),
            )
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # absent from the stub
            raise diverged(recipe) from None
        return quantised(denormalise(images.cpu(), train.mean, train.std), recipe.jpeg)

    with job.progress(len(labels) * recipe.iterations, "recover") as bar:
        return gathered(job, "batch", range(len(labels)), make, streams=averages)
