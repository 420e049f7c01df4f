"""SRe2L (NeurIPS 2023), its second stage: images recovered from what a teacher knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.errors import BudgetError
from distillery.methods.shared.recipes import Recovery
from distillery.methods.shared.recovery import (
    TeacherObjective,
    augment_groups,
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
    from distillery.methods.shared.recovery import StepAugmentations
    from distillery.store.checkpoint import Checkpoint
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("sre2l",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe(Recovery):
    """The fields of `Recovery`.

    The authors' code for Tiny-ImageNet: lr 0.1, r_bn 1, 4000 iterations, augment
    batch-resized-crop, batch-flip, centred-roll:4; for ImageNet: lr 0.25, r_bn 0.01, 4000
    iterations, augment batch-resized-crop, batch-flip, roll:32.
    """


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Recover `ipc` images of each class from noise.

    Args:
        train: whose classes and normalisation the images have.
        recipe: the settings.
        ipc: images per class.
        teachers: the first recovers.
        job: gives device, random streams and folders.

    Returns:
        The parts of `recovered_set`, which also says what it raises and where it deviates.
    """
    return recovered_set(
        "sre2l", train, recipe, lambda step: recipe.augment, ipc=ipc, teacher=teachers[0], job=job
    )


def recovered_set(
    method: str,
    train: ImageSet,
    recipe: Recovery,
    augment: StepAugmentations,
    *,
    ipc: int,
    teacher: Teacher,
    job: Job,
) -> DistilledSet:
    """SRe2L's recovery with augmentations that may depend on the step.

    Images start as N(0, 1) noise in normalised units and are kept within the pixel range after
    every step.

    Deviation: without `jpeg` images are stored rounded and without loss, where the authors floor
    them and write JPEG files.

    Args:
        method: the method's name.
        train: only the shape, the classes and the normalisation are read.
        recipe: the settings.
        augment: from a step (0 .. iterations - 1) to the names of its augmentations.
        ipc: images per class.
        teacher: the network that recovers.
        job: gives device, random streams and folders.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, or JPEG files of them, ordered by index, then
        class.

    Raises:
        BudgetError: ipc is 0.
        TeacherError: the teacher has no batch normalisation.
        DistilleryError: the optimisation diverges.
    """
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    chunks, images = torch.arange(len(train.classes)).split(recipe.batch), []
    with job.progress(len(chunks) * ipc * recipe.iterations, "recover") as bar:
        for classes in chunks:
            images.append(recovered(train, classes, ipc, teacher, recipe, augment, job, bar))
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
    augment: StepAugmentations,
    job: Job,
    bar: tqdm,
) -> Tensor:
    """`ipc` batches of one image of each of some classes.

    Args:
        train: only the shape and the normalisation are read.
        classes: (b,) int64.
        ipc: batches.
        teacher: the network that recovers.
        recipe: the settings.
        augment: from a step to the names of its augmentations.
        job: gives device, random streams and folders.
        bar: advances by a step of each batch.

    Returns:
        (ipc, b, C, H, W) uint8: all of them as floats would fill a machine's memory.
    """
    objective = TeacherObjective.of(teacher, recipe.r_bn, recipe, train.shape, job.device)
    first, labels = int(classes[0]), classes.to(job.device)
    project = pixel_range(train, job.device)

    def optimise(group: list[int], checkpoint: Checkpoint) -> Tensor:
        streams = [job.generator(f"batch/{first}/{i}") for i in group]
        noise = torch.stack(
            [torch.randn(len(classes), *train.shape, generator=stream) for stream in streams]
        ).to(job.device)
        images = augment_groups(augment, streams)
        made = recover(
            noise,
            images,
            labels,
            objective,
            recipe,
            bar,
            project,
            streams=streams,
            checkpoint=checkpoint,
        )
        return quantised(denormalise(made.cpu(), train.mean, train.std), recipe.jpeg)

    return in_groups(range(ipc), optimise, f"batch-{first}", recipe, job, bar)
