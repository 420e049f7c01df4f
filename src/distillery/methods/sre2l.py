"""SRe2L: images recovered from noise by what a teacher knows (NeurIPS 2023), its second stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.errors import BudgetError
from distillery.methods.shared.recipes import Recovery
from distillery.methods.shared.recovery import (
    Objective,
    each_group,
    in_groups,
    pixel_range,
    recover,
)
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts, quantised
from distillery.training.normalise import denormalise

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("sre2l",)
TRAITS = {"needs": ("teachers",)}

Augment = Callable[[int], Sequence[str]]  # from a step to the names of its augmentations


@dataclass(frozen=True)
class Recipe(Recovery):
    """The authors' code for Tiny-ImageNet: lr 0.1, r_bn 1, 4000 iterations, augment batch-resized-crop, batch-flip,
    centred-roll:4; for ImageNet: lr 0.25, r_bn 0.01, 4000 iterations, augment batch-resized-crop, batch-flip, roll:32.
    """


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """`ipc` images of each class from N(0, 1) noise in normalised units, kept within the pixel range after every step.

    Parts, errors and deviations are those of `recovered_set`.
    """
    return recovered_set(
        "sre2l", train, recipe, lambda step: recipe.augment, ipc=ipc, teacher=teachers[0], job=job
    )


def recovered_set(
    method: str,
    train: ImageSet,
    recipe: Recovery,
    augment: Augment,
    *,
    ipc: int,
    teacher: Teacher,
    job: Job,
) -> DistilledSet:
    """SRe2L's recovery with augmentations that may depend on the step (0 .. iterations - 1).

    Of `train` only the shape, the classes and the normalisation are read. Parts: images (ipc * classes, C, H, W) uint8, or JPEG
    files of them, ordered by index, then class. Raises BudgetError when ipc is 0, TeacherError for a teacher without batch
    normalisation, DistilleryError when the optimisation diverges.
    Deviation: without `jpeg` images are stored rounded and without loss, where the authors floor them and write JPEG files.
    """
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    chunks, images = torch.arange(len(train.classes)).split(recipe.batch), []
    with job.progress(len(chunks) * ipc * recipe.iterations, "recover") as bar:
        for classes in chunks:
            found = recovered(train, classes, ipc, teacher, recipe, augment, job, bar)
            images.append(quantised(denormalise(found, train.mean, train.std), recipe.jpeg))
    parts = image_parts(
        torch.cat(images, 1).flatten(0, 1),
        torch.arange(len(train.classes)).repeat(ipc),
        recipe.jpeg,
    )
    return DistilledSet(
        method, ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts
    )


def recovered(
    train: ImageSet,
    classes: Tensor,
    ipc: int,
    teacher: Teacher,
    recipe: Recovery,
    augment: Augment,
    job: Job,
    bar: tqdm,
) -> Tensor:
    """`ipc` batches of one image of each of `classes` (b,): (ipc, b, C, H, W) float32 on the CPU, normalised, in range."""
    objective = Objective.of(teacher, recipe.r_bn, recipe, train.shape, job.device)
    start, labels, project = int(classes[0]), classes.to(job.device), pixel_range(train, job.device)

    def optimise(group: list[int]) -> Tensor:
        streams = [job.generator(f"batch/{start}/{i}") for i in group]
        noise = torch.stack(
            [torch.randn(len(classes), *train.shape, generator=stream) for stream in streams]
        ).to(job.device)
        return recover(noise, each_group(augment, streams), labels, objective, recipe, bar, project)

    return in_groups(range(ipc), optimise, f"batch-{start}", recipe, job, bar)
