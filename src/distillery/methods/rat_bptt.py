"""RaT-BPTT (Feng et al., ICLR 2024).

Images are learned by differentiating through a random window of a student's training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distillery.components.fields import Count, Positive
from distillery.methods.shared.image_space import ImageSpace
from distillery.methods.shared.meta_draws import class_subset, shuffled_passes, window_starts
from distillery.methods.shared.meta_learning import LearnedTensor, MetaProblem, learn
from distillery.methods.shared.recipes import Unrolled
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.parts import Kind, Part, check_lengths
from distillery.unroll.optimizers import Adam

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.methods.shared.snapshots import Values
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("rat-bptt",)
TRAITS = {"free_pixels": True}
EPSILON = 1e-8


@dataclass(frozen=True)
class Recipe(Unrolled):
    """RaT-BPTT for CIFAR-10; the window starts as the commands of its README draw it.

    Attributes:
        step_ipc: images of a class in an inner step (None: all).
        step_classes: classes in an inner step (None: all).
        labels: "fixed", one-hot, or "learned".
        label_lr: learning rate of learned labels (None: lr).
    """

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
    """Learn `ipc` images of each class, Gaussian noise of unit norm at the start.

    Where labels are learned each image has one. They enter the inner loss as they are, whatever
    their sum.

    Deviation: the set is that of the last meta-step; the authors' code keeps the one with the best
    accuracy on the test set.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: none.
        job: gives device, random streams and folders.

    Returns:
        Parts: images (classes ipc, C, H, W) float32, class by class, whitened, or pixels
        (`ImageSpace.stored`); labels int64; where labels are learned soft (N, classes) float32, at
        least 0.

    Raises:
        DistilleryError: a meta-step is not finite.
    """
    space, classes = ImageSpace.of(train, job), len(train.classes)
    labels = torch.arange(classes).repeat_interleave(ipc)
    targets = one_hot(labels, classes).float().to(job.device)
    start = noise((len(labels), *train.shape), job).to(job.device)
    learned = {"images": LearnedTensor(start, Adam(recipe.lr))}
    if recipe.labels == "learned":
        optimizer = Adam(recipe.label_lr or recipe.lr)
        learned["soft"] = LearnedTensor(targets, optimizer, images=False, least=0.0)
    problem = MetaProblem(
        learned,
        unfold=lambda values: (values["images"], values.get("soft", targets)),
        draw=class_subset(classes, ipc, recipe.step_ipc or ipc, recipe.step_classes or classes),
        real=shuffled_passes(len(train), recipe.batch, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Adam(recipe.inner_lr),
    )
    values = learn(problem, space, classes, recipe, job)
    return learned_images("rat-bptt", values, labels, ipc, train, space)


def noise(shape: tuple[int, ...], job: Job) -> Tensor:
    """Gaussian noise (N, C, H, W) float32 on the CPU, each image of Euclidean norm 1."""
    gaussian = torch.randn(shape, generator=job.generator("noise"))
    return gaussian / gaussian.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def learned_images(
    method: str, values: Values, labels: Tensor, ipc: float, train: ImageSet, space: ImageSpace
) -> DistilledSet:
    """The set that stores learned images as they are.

    Args:
        method: the method that learned them.
        values: `images`, and `soft` where labels were learned.
        labels: (N,) int64.
        ipc: the budget.
        train: whose classes they are.
        space: where they were learned.
    """
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
    """The stored images and the logarithms of their learned labels, whatever their sum.

    Under the loss `raw-ce` a student sees the sum, as in the inner loop and in the authors' code;
    under others, `soft-ce` for one, it is divided out.
    """
    check_lengths(distilled.tensors, "images", "labels", "soft")
    soft = (distilled["soft"] + EPSILON).log() if "soft" in distilled else None
    return Instances(distilled["labels"], distilled["images"].__getitem__, soft)
