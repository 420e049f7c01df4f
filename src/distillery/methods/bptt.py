"""BPTT (Deng and Russakovsky, 2022), without memory addressing: images learned by differentiating through all of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import one_hot

from distillery.components.fields import Count, Fraction, Positive
from distillery.methods.rat_bptt import expand, learned_images
from distillery.methods.shared.meta import (
    Learned,
    Problem,
    Space,
    balanced,
    every,
    learn,
    window_starts,
)
from distillery.methods.shared.recipes import Unrolled
from distillery.sets.distilled import DistilledSet
from distillery.unroll.optimizers import Sgd

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("bptt",)
TRAITS = {"free_pixels": True}

__all__ = ["Recipe", "distill", "expand"]


@dataclass(frozen=True)
class Recipe(Unrolled):
    """momentum, inner_momentum: of the set's SGD and the student's. The window is the whole training, the clip no multiple."""

    meta_steps: Count = 10000
    batch: Count = 640
    window: Count = 150
    inner_steps: Count = 150
    window_start: Literal["epoch", "step", "fixed"] = "fixed"
    lr: Positive = 0.1
    momentum: Fraction = 0.5
    inner_lr: Positive = 0.01
    inner_momentum: Fraction = 0.9
    clip_in: Literal["running means", "units"] = "units"


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """`ipc` images of each class, Xavier-uniform noise at the start; hard labels.

    Parts: images (classes ipc, C, H, W) float32, class by class, whitened, or pixels (`Space.stored`); labels int64.
    Raises DistilleryError when a meta-step is not finite.
    Deviation: each image draws its own augmentation, where the authors' code shares one draw over a whole meta-step; a real
    batch has images of all classes, theirs 64 of each of ten; 10,000 meta-steps for up to 500,000, without selection on the
    test set.
    """
    space, classes = Space.of(train, job), len(train.classes)
    labels = torch.arange(classes).repeat_interleave(ipc)
    targets = one_hot(labels, classes).float().to(job.device)
    size = train.shape[0] * train.shape[1] * train.shape[2]
    bound = (6 / (len(labels) + size)) ** 0.5  # the images are the rows of a matrix
    start = torch.empty(len(labels), *train.shape).uniform_(
        -bound, bound, generator=job.generator("noise")
    )
    problem = Problem(
        {"images": Learned(start.to(job.device), Sgd(recipe.lr, momentum=recipe.momentum))},
        unfold=lambda values: (values["images"], targets),
        draw=every(len(labels)),
        real=balanced(train.labels, recipe.batch, classes, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Sgd(recipe.inner_lr, momentum=recipe.inner_momentum),
    )
    return learned_images(
        "bptt", learn(problem, space, classes, recipe, job), labels, ipc, train, space
    )
