"""BPTT (Deng and Russakovsky, 2022), without memory addressing.

Images are learned by differentiating through all of a student's training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import one_hot

from distillery.components.fields import Count, Fraction, Positive
from distillery.methods.rat_bptt import expand, learned_images
from distillery.methods.shared.image_space import ImageSpace
from distillery.methods.shared.meta_draws import balanced_batches, full_batch, window_starts
from distillery.methods.shared.meta_learning import LearnedTensor, MetaProblem, learn
from distillery.methods.shared.recipes import Unrolled
from distillery.unroll.optimizers import Sgd

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("bptt",)
TRAITS = {"free_pixels": True}

__all__ = ["Recipe", "distill", "expand"]


@dataclass(frozen=True)
class Recipe(Unrolled):
    """The window is the whole training, and the clip no multiple of a running mean.

    Attributes:
        momentum: of the set's SGD.
        inner_momentum: of the student's SGD.
    """

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
    """Learn `ipc` images of each class, Xavier-uniform noise at the start; hard labels.

    Deviation: each image draws its own augmentation, where the authors' code shares one draw over a
    whole meta-step; a real batch has images of all classes, theirs 64 of each of ten; 10,000
    meta-steps for up to 500,000, without selection on the test set.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: none.
        job: gives device, random streams and folders.

    Returns:
        Parts: images (classes ipc, C, H, W) float32, class by class, whitened, or pixels
        (`ImageSpace.stored`); labels int64.

    Raises:
        DistilleryError: a meta-step is not finite.
    """
    space, classes = ImageSpace.of(train, job), len(train.classes)
    labels = torch.arange(classes).repeat_interleave(ipc)
    targets = one_hot(labels, classes).float().to(job.device)
    size = train.shape[0] * train.shape[1] * train.shape[2]
    bound = (6 / (len(labels) + size)) ** 0.5  # Xavier's, of a matrix whose rows are the images
    start = torch.empty(len(labels), *train.shape).uniform_(
        -bound, bound, generator=job.generator("noise")
    )
    optimizer = Sgd(recipe.lr, momentum=recipe.momentum)
    problem = MetaProblem(
        {"images": LearnedTensor(start.to(job.device), optimizer)},
        unfold=lambda values: (values["images"], targets),
        draw=full_batch(len(labels)),
        real=balanced_batches(train.labels, recipe.batch, classes, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Sgd(recipe.inner_lr, momentum=recipe.inner_momentum),
    )
    values = learn(problem, space, classes, recipe, job)
    return learned_images("bptt", values, labels, ipc, train, space)
