"""G-VBSM ("Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching", CVPR 2024), recovery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.components.fields import Count, Fraction, NonNegative, Positive, Quality
from distillery.errors import BudgetError, TeacherError
from distillery.matching.densification import densification
from distillery.matching.statistics import (
    AverageDistance,
    batch_norm_statistics,
    convolution_statistics,
    record_inputs,
    reference_statistics,
)
from distillery.methods.shared.recovery import diverged, each_group, pixel_range, recover
from distillery.nets.features import fired_layers
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts, quantised
from distillery.store.checkpoint import kept
from distillery.training.augment import normalising_pipeline
from distillery.training.normalise import denormalise
from distillery.training.recipe import Augmentations, NormalisedAugmentations
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("g-vbsm",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of the authors' code for CIFAR.

    teachers: the backbones, one per step in turn. iterations: steps per batch. lr: of Adam, falling as a cosine to 0. batch:
    images that are made side by side and share their statistics. per_class: images of a class in a row before the next class
    comes (None: all ipc; Tiny ImageNet: ipc / 10). weight: of the statistics. first_weight: of the first layer within them.
    drop: beta_dr, probability with which a convolution is left out of a step (ImageNet 0). ema: alpha, decay of the moving
    averages (ImageNet 0.4). patch: side of a cell in pixels (ImageNet 16). densification, tau: weight and temperature of that
    loss. augment: names of training.augment, drawn once per step for the whole batch, as the authors do. reference_augment,
    reference_batch, reference_images: how the real images are read whose statistics convolutions are to match; None: all.
    """

    teachers: tuple[str, ...]
    iterations: Count = 4000
    lr: Positive = 0.05
    betas: tuple[Fraction, Fraction] = (0.5, 0.9)
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

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one image through each backbone, a backward pass counting as two.

        The backbones take turns; the pass over the real images is left out.
        """
        return 3 * ipc * classes * self.iterations / len(self.teachers)


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """`ipc` images of each class from N(0, 1) noise in normalised units, kept within the pixel range after every step.

    CE(f_t(A(x)), y) + weight * (distances of the statistics of f_t's batch norms and convolutions) + densification(A(x)), the
    backbone f_t the next in turn at each step, on across batches, as are the moving averages. One without batch normalisation
    contributes its convolutions alone. Batches are made in order, the images of a class side by side.
    Parts: images (ipc * classes, C, H, W) uint8, rounded, ordered by index, then class. Raises BudgetError when ipc is 0,
    TeacherError for a teacher with nothing to match, DistilleryError when the optimisation diverges.
    Deviation: the statistics are those of the whole batch, where the authors' two processes (CIFAR-100 and larger) take those
    of half a batch each; stored rounded, where they floor; the averages start at the references (see AverageDistance).
    """
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    places = class_major(ipc, len(train.classes), recipe)
    found = torch.empty(ipc * len(train.classes), *train.shape)
    with ExitStack() as hooks:
        backbones = [
            hooks.enter_context(backbone(j, t, train, recipe, job)) for j, t in enumerate(teachers)
        ]
        with job.progress(len(places) * recipe.iterations, "recover") as bar:
            for number, batch in enumerate(places):
                labels = batch % len(train.classes)
                found[batch] = recovered(train, labels, number, backbones, recipe, job, bar)
    images = quantised(denormalise(found, train.mean, train.std), recipe.jpeg)
    parts = image_parts(images, torch.arange(len(train.classes)).repeat(ipc), recipe.jpeg)
    return DistilledSet(
        "g-vbsm", ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts
    )


def class_major(ipc: int, classes: int, recipe: Recipe) -> list[Tensor]:
    """The places index * classes + class of the images of each batch: class by class, `per_class` indices at a time."""
    rows = torch.arange(ipc * classes).view(ipc, classes).split(recipe.per_class or ipc)
    return [batch for part in rows for batch in part.T.flatten().split(recipe.batch)]


@dataclass
class Backbone:
    """A network whose `layers` report their statistics into `found` at each pass, those in `silent` excepted."""

    model: nn.Module
    layers: list[nn.Module]
    distance: AverageDistance
    silent: set[nn.Module] = field(default_factory=set)
    found: Sequence = ()

    def drop(self, probability: float, stream: torch.Generator) -> None:
        """Silence each convolution with this probability until the next call."""
        drawn = (torch.rand(len(self.layers), generator=stream) < probability).tolist()
        self.silent.clear()
        self.silent.update(
            m for m, out in zip(self.layers, drawn, strict=True) if out and isinstance(m, nn.Conv2d)
        )


@contextmanager
def backbone(
    j: int, teacher: Teacher, train: ImageSet, recipe: Recipe, job: Job
) -> Iterator[Backbone]:
    """Teacher j with hooks on the inputs of its batch norms and convolutions, which go when the context ends.

    The statistics of its convolutions on real images are kept in the job's scratch folder.
    Raises TeacherError when it has neither kind of layer.
    """
    model, kinds = teacher.model, (nn.BatchNorm2d, nn.Conv2d)
    layers = fired_layers(model, torch.zeros(1, *train.shape, device=job.device), kinds)
    if not layers:
        raise TeacherError(
            f"teacher '{teacher.name}' has no batch norms or convolutions to match: name another network"
        )
    real = references(j, model, layers, train, recipe, job)
    weights = [recipe.first_weight] + [1.0] * (len(layers) - 1)
    made = Backbone(model, layers, AverageDistance(real, weights, recipe.ema))

    def measure(layer: nn.Module, features: Tensor) -> tuple[Tensor, ...] | None:
        if layer in made.silent:
            return None
        if isinstance(layer, nn.BatchNorm2d):
            return batch_norm_statistics(layer, features)
        return convolution_statistics(features, recipe.patch)

    with record_inputs(layers, measure) as made.found:
        yield made


def references(
    j: int, model: nn.Module, layers: list[nn.Module], train: ImageSet, recipe: Recipe, job: Job
) -> list[Sequence[Tensor]]:
    """What the statistics of each layer are to be: running ones of batch norms, those of augmented real images elsewhere."""
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]

    def measure() -> dict[str, Tensor]:
        measured = reference_statistics(
            model, convolutions, real_batches(j, train, recipe, job), recipe.patch
        )
        return {f"{i}.{s}": v for i, four in enumerate(measured) for s, v in enumerate(four)}

    parts = kept(job.scratch / f"reference-{j}.safetensors", measure)
    real = iter(
        [[parts[f"{i}.{s}"].to(job.device) for s in range(4)] for i in range(len(convolutions))]
    )
    return [
        next(real)
        if isinstance(layer, nn.Conv2d)
        else (torch.zeros_like(layer.running_mean), layer.running_var)
        for layer in layers
    ]


def real_batches(j: int, train: ImageSet, recipe: Recipe, job: Job) -> Iterator[Tensor]:
    """Random real images without repetition, augmented, normalised: (reference_batch, C, H, W) float32 on the device."""
    stream, samples = job.generator(f"reference/{j}"), Samples.from_images(train, job.device)
    augment = normalising_pipeline(samples.normalise, recipe.reference_augment)
    chosen = torch.randperm(len(samples), generator=stream)[: recipe.reference_images].split(
        recipe.reference_batch
    )
    for indices in job.progress(chosen, f"statistics of {recipe.teachers[j]}"):
        yield augment(samples.take(indices.to(job.device)), stream)


@dataclass
class Matching:
    """The objective of a batch: at each step that of the next backbone. counts: images of each class in the batch, in order."""

    backbones: Sequence[Backbone]
    recipe: Recipe
    counts: Sequence[int]
    turn: int
    stream: torch.Generator

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy, distance of the statistics, and the gradient of the objective for images (1, B, C, H, W)."""
        backbone, self.turn = self.backbones[self.turn % len(self.backbones)], self.turn + 1
        backbone.drop(self.recipe.drop, self.stream)
        leaf = images[0].detach().requires_grad_()
        ce, spread = (
            cross_entropy(backbone.model(leaf), labels),
            densification(leaf, self.counts, self.recipe.tau),
        )
        distance = backbone.distance(backbone.found)
        (grad,) = torch.autograd.grad(
            ce + self.recipe.weight * distance + self.recipe.densification * spread, leaf
        )
        return ce.detach(), distance.detach(), grad[None]


def recovered(
    train: ImageSet,
    labels: Tensor,
    number: int,
    backbones: Sequence[Backbone],
    recipe: Recipe,
    job: Job,
    bar: tqdm,
) -> Tensor:
    """Batch `number` of images with these labels (B,): (B, C, H, W) float32 on the CPU, normalised, in range.

    Kept in the job's scratch folder with the moving averages that it leaves to the next batch.
    """

    def make() -> dict[str, Tensor]:
        stream = job.generator(f"batch/{number}")
        noise = torch.randn(1, len(labels), *train.shape, generator=stream).to(job.device)
        counts = labels.unique_consecutive(return_counts=True)[1].tolist()
        objective = Matching(backbones, recipe, counts, number * recipe.iterations, stream)
        augment, project = (
            each_group(lambda step: recipe.augment, [stream]),
            pixel_range(train, job.device),
        )
        try:
            images = recover(
                noise, augment, labels.to(job.device), objective, recipe, bar, project
            )[0]
        except torch.linalg.LinAlgError:
            raise diverged(recipe) from None
        return {"images": images} | {
            f"average-{j}": b.distance.average for j, b in enumerate(backbones)
        }

    done = bar.n + recipe.iterations
    parts = kept(job.scratch / f"batch-{number}.safetensors", make)
    bar.update(done - bar.n)  # what was read and not made
    for j, b in enumerate(backbones):
        b.distance.average = parts[f"average-{j}"].to(job.device)
    return parts["images"]
