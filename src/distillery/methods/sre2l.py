"""SRe2L: images recovered from noise by what a teacher knows (NeurIPS 2023), its second stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.distilled import DistilledSet
from distillery.errors import BudgetError
from distillery.methods.recovery import Objective, each_group, in_groups, recover
from distillery.normalise import normalise
from distillery.recipe import Count, Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("sre2l",)
NEEDS = ("teachers",)


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of the authors' code for CIFAR-100.

    teachers: network names; the first recovers. iterations: steps per batch. lr: of Adam, falling as a cosine to 0. r_bn:
    weight of the BN loss. first_bn_weight: weight of the first layer within it. augment: names of training.augment. batch:
    classes per batch, one image of each; the feature statistics are the batch's. micro_batch: images of a batch per forward
    pass (None: all), same gradient for less memory. together: batches optimised side by side, same result up to rounding.
    """

    teachers: tuple[str, ...]
    iterations: Count = 1000
    lr: Positive = 0.25
    betas: tuple[Fraction, Fraction] = (0.5, 0.9)
    r_bn: NonNegative = 0.01
    first_bn_weight: NonNegative = 10.0
    augment: tuple[str, ...] = ("roll:4",)
    batch: Count = 100
    micro_batch: Count | None = None
    together: Count = 1


def distill(train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job) -> DistilledSet:
    """`ipc` images of each class from N(0, 1) noise in normalised units, kept within the pixel range after every step.

    Of `train` only the shape, the classes and the normalisation are read. Parts: images (ipc * classes, C, H, W) uint8,
    rounded, ordered by index, then class. Raises BudgetError when ipc is 0, TeacherError for a teacher without batch
    normalisation, DistilleryError when the optimisation diverges.
    Deviation: images are stored as rounded uint8 without loss, where the authors floor them and write JPEG of quality 75.
    """
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    chunks = torch.arange(len(train.classes)).split(recipe.batch)
    with job.progress(len(chunks) * ipc * recipe.iterations, "recover") as bar:
        found = torch.cat([recovered(train, classes, ipc, teachers[0], recipe, job, bar) for classes in chunks], 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (train.mean, train.std))
    images = ((found * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    parts = {"images": images.flatten(0, 1), "labels": torch.arange(len(train.classes)).repeat(ipc)}
    return DistilledSet("sre2l", ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts)


def recovered(train: ImageSet, classes: Tensor, ipc: int, teacher: Teacher, recipe: Recipe, job: Job, bar: tqdm) -> Tensor:
    """`ipc` batches of one image of each of `classes` (b,): (ipc, b, C, H, W) float32 on the CPU, normalised, in range."""
    black, white = (normalise(torch.full((1, *train.shape), v, device=job.device), train.mean, train.std) for v in (0.0, 1.0))
    objective = Objective.of(teacher, recipe.r_bn, recipe, train.shape, job.device)
    start, labels = int(classes[0]), classes.to(job.device)

    def optimise(group: list[int]) -> Tensor:
        streams = [job.generator(f"batch/{start}/{i}") for i in group]
        noise = torch.stack([torch.randn(len(classes), *train.shape, generator=stream) for stream in streams]).to(job.device)
        augment = each_group(recipe.augment, streams)
        return recover(noise, augment, labels, objective, recipe, bar, project=lambda x: x.clamp_(black, white))

    return in_groups(range(ipc), optimise, f"batch-{start}", recipe, job, bar)
