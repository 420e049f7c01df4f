"""RaT-BPTT (Feng et al., ICLR 2024): images learned by differentiating through a random window of a student's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distillery.components.fields import Count, Positive
from distillery.methods.shared.meta import (
    Learned,
    Problem,
    Space,
    by_class,
    learn,
    passes,
    window_starts,
)
from distillery.methods.shared.recipes import Unrolled
from distillery.sets.contract import check_lengths
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.parts import Kind, Part
from distillery.unroll.optimizers import Adam

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.methods.shared.meta import Values
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("rat-bptt",)
TRAITS = {"free_pixels": True}


@dataclass(frozen=True)
class Recipe(Unrolled):
    """step_ipc, step_classes: images of a class and classes in an inner step (None: all). labels: "fixed", one-hot, or "learned" with
    learning rate label_lr (None: lr)."""

    step_ipc: Count | None = None
    step_classes: Count | None = None
    labels: Literal["fixed", "learned"] = "fixed"
    label_lr: Positive | None = None

    @property
    def soft(self) -> bool:
        """Whether the labels are learned."""
        return self.labels == "learned"

    def images_per_step(self, ipc: float, classes: int) -> float:
        """Images of an inner step."""
        return (self.step_ipc or ipc) * (self.step_classes or classes)


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """`ipc` images of each class, Gaussian noise of unit norm at the start, and where they are learned a label for each.

    Parts: images (classes ipc, C, H, W) float32, class by class, whitened, or pixels (`Space.stored`); labels int64; where
    the labels are learned soft (N, classes) float32, at least 0. Learned labels enter the inner loss as they are, whatever
    their sum. Raises DistilleryError when a meta-step is not finite.
    Deviation: the set is that of the last meta-step; the authors' code keeps the one with the best accuracy on the test set.
    """
    space, classes = Space.of(train, job), len(train.classes)
    labels = torch.arange(classes).repeat_interleave(ipc)
    targets = one_hot(labels, classes).float().to(job.device)
    learned = {
        "images": Learned(noise((len(labels), *train.shape), job).to(job.device), Adam(recipe.lr))
    }
    if recipe.labels == "learned":
        learned["soft"] = Learned(
            targets, Adam(recipe.label_lr or recipe.lr), images=False, least=0.0
        )
    problem = Problem(
        learned,
        unfold=lambda values: (values["images"], values.get("soft", targets)),
        draw=by_class(classes, ipc, recipe.step_ipc or ipc, recipe.step_classes or classes),
        real=passes(len(train), recipe.batch, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Adam(recipe.inner_lr),
    )
    values = learn(problem, space, classes, recipe, job)
    return learned_images("rat-bptt", values, labels, ipc, train, space)


def noise(shape: tuple[int, ...], job: Job) -> Tensor:
    """Gaussian noise (N, C, H, W) float32 on the CPU, each image of Euclidean norm 1."""
    drawn = torch.randn(shape, generator=job.generator("noise"))
    return drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def learned_images(
    method: str, values: Values, labels: Tensor, ipc: float, train: ImageSet, space: Space
) -> DistilledSet:
    """The set that stores learned images as they are."""
    parts = {
        "images": Part(values["images"], Kind.IMAGE),
        "labels": Part(labels, Kind.HARD_LABEL, derived=True),
    }
    if "soft" in values:
        parts["soft"] = Part(values["soft"], Kind.SOFT_LABEL)
    return DistilledSet(
        method, ipc, tuple(train.classes), space.mean, space.std, parts, whitening=space.whitening
    )


def expand(distilled: DistilledSet) -> Instances:
    """The stored images and the logarithms of their learned labels.

    Deviation: a student sees learned labels as probabilities (their sum is divided out); the inner loop saw their sum too.
    """
    check_lengths(distilled, "images", "labels", "soft")
    soft = (distilled["soft"] + 1e-8).log() if "soft" in distilled else None
    return Instances(distilled["labels"], distilled["images"].__getitem__, soft)
