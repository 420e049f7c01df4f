"""RDED (CVPR 2024): the crops of real images that a teacher recognises best, without optimisation.

Several crops make an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.components.fields import Count, Fraction, Precision, Quality
from distillery.errors import BudgetError
from distillery.methods.shared.crops import random_crops
from distillery.methods.shared.selection import rarest
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts, quantised
from distillery.store.checkpoint import gathered
from distillery.training.frozen import frozen
from distillery.training.normalise import normalise

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("rded",)
TRAITS = {"needs": ("teachers",)}
BATCH = 256  # crops that are scored together


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of the authors' code for CIFAR and Tiny-ImageNet.

    Images of 224 pixels have factor 2.

    Attributes:
        teachers: network names; the first scores.
        factor: crops per row and column of an image.
        pool: images of a class that are looked at, at random.
        crops: crops drawn of each, of which the best is kept.
        smallest: least share of the area of a crop.
        jpeg: quality of the JPEG files that are stored, 75 in the authors' code; None stores
            without loss.
        precision: of the teacher's passes: "fp32", or "bf16" under autocast.
    """

    teachers: tuple[str, ...]
    factor: Count = 1
    pool: Count = 300
    crops: Count = 5
    smallest: Fraction = 0.08
    jpeg: Quality | None = None
    precision: Precision = "fp32"

    def misfit(self, ipc: float, classes: int, side: int, images: float) -> tuple[str, str] | None:
        """The field that does not go with the budget or the data, and why; None: all is well.

        Args:
            ipc: images per class.
            classes: how many there are; not read.
            side: of the images in pixels; not read.
            images: of each class, about.
        """
        crops, pool = round(ipc * self.factor**2), min(self.pool, int(images))
        if crops <= pool:
            return None
        why = f"ipc {ipc:g} with factor {self.factor} needs {crops} images of each class"
        return "pool", f"{self.pool}: {why}, of about {images:.0f}; raise pool or lower ipc"

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one crop through the teacher, whatever the budget."""
        return classes * self.pool * self.crops

    def at_once(self, ipc: float, classes: int) -> tuple[float, float]:
        """Crops that go through the teacher together: with gradients, and without."""
        return 0, BATCH + self.crops


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Make `ipc` images of each class, each of factor x factor crops, one crop per real image.

    Crops are cut out of the original images where the data keep them (`originals`), as the authors
    do, else out of the stored ones. A class with fewer than `pool` images uses all.

    Deviation: normalised as the teacher is, where the authors use ImageNet's constants for all
    data; without `jpeg` stored rounded and without loss.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: the first scores.
        job: gives device, random streams and folders.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, or JPEG files of them, ordered by index, then
        class.

    Raises:
        BudgetError: ipc is 0, or the pool of a class holds fewer images than crops are needed.
    """
    check_pool(train, recipe, ipc)
    model = frozen(teachers[0].model, job.device, recipe.precision)
    teacher = replace(teachers[0], model=model)

    def make(label: int) -> Tensor:
        return class_images(train, label, ipc, teacher, recipe, job)

    images = gathered(job, "class", range(len(train.classes)), make, label="crops")
    labels = torch.arange(len(train.classes)).repeat(ipc)
    parts = image_parts(torch.stack(images, 1).flatten(0, 1), labels, recipe.jpeg)
    return DistilledSet(
        "rded", ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts
    )


def check_pool(train: ImageSet, recipe: Recipe, ipc: int) -> None:
    """Raise BudgetError unless every class's pool has an image for each of ipc factor^2 crops."""
    if ipc < 1:
        raise BudgetError(f"ipc = {ipc}: makes no image of any class; ask for ipc 1 or more")
    name, size = rarest(train)
    cells = recipe.factor**2
    if (pool := min(size, recipe.pool)) < ipc * cells:
        raise BudgetError(
            f"ipc = {ipc}: RDED with factor {recipe.factor} needs {ipc * cells} images of each "
            f"class, {pool} of the {size} images of class '{name}' are in the pool "
            f"(pool = {recipe.pool}); lower ipc to {pool // cells} or raise pool"
        )


def class_images(
    train: ImageSet, label: int, ipc: int, teacher: Teacher, recipe: Recipe, job: Job
) -> Tensor:
    """The images of one class: (ipc, C, H, W) uint8.

    Args:
        train: the real images.
        label: the class.
        ipc: how many.
        teacher: scores.
        recipe: the settings.
        job: gives device and random stream.
    """
    stream, members = job.generator(f"class/{label}"), train.of_class(label)
    pool = members[torch.randperm(len(members), generator=stream)[: recipe.pool]]

    def score(part: Tensor) -> tuple[Tensor, Tensor]:
        return best_crops(train, part, label, teacher, recipe, stream, job)

    parts = pool.split(-(-BATCH // recipe.crops))
    scored = gathered(job, "crops", parts, score, streams=[stream], within=label)
    losses, crops = (torch.cat(parts) for parts in zip(*scored, strict=True))
    best = losses.argsort(stable=True)[: ipc * recipe.factor**2]
    _, *shape = train.shape
    return quantised(stitch(crops[best], shape, recipe.factor).clamp(0, 1), recipe.jpeg)


@torch.no_grad()
def best_crops(
    train: ImageSet,
    members: Tensor,
    label: int,
    teacher: Teacher,
    recipe: Recipe,
    stream: torch.Generator,
    job: Job,
) -> tuple[Tensor, Tensor]:
    """For each image the crop that the teacher is surest of.

    The teacher sees a crop in the middle of an image of zeros, in normalised units.

    Args:
        train: the real images.
        members: (n,) int64, indices of images of one class.
        label: the class.
        teacher: scores.
        recipe: the settings.
        stream: crops follow from it.
        job: gives the device.

    Returns:
        The cross entropies (n,) and the crops (n, C, H // factor, W // factor) float32 in [0, 1],
        on the CPU.
    """
    _, *shape = train.shape
    size = [side // recipe.factor for side in shape]
    crops = random_crops(
        train,
        members,
        recipe.crops,
        stream,
        job.device,
        smallest=recipe.smallest,
        ratios=(1, 1),
        size=size,
    )
    logits = teacher.model(centred(normalise(crops, teacher.mean, teacher.std), shape))
    labels = torch.full((len(crops),), label, device=job.device)
    losses = F.cross_entropy(logits, labels, reduction="none")
    losses, best = losses.view(-1, recipe.crops).min(1)
    crops = crops.unflatten(0, (-1, recipe.crops))
    return losses.cpu(), crops[torch.arange(len(best), device=best.device), best].cpu()


def centred(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Images (B, C, h, w) in the middle of zeros of `shape` (H, W).

    An odd row or column goes below or to the right.
    """
    down, right = (side - own for side, own in zip(shape, images.shape[2:], strict=True))
    return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))


def stitch(crops: Tensor, shape: Sequence[int], factor: int) -> Tensor:
    """Images of factor^2 crops each.

    The crop of rank r is in image r mod ipc, cell r div ipc, row by row. Crops are resized with
    nearest neighbour where cells differ in size: a side that factor does not divide has larger
    cells first.

    Args:
        crops: (ipc * factor^2, C, h, w), best first.
        shape: (H, W) of the images.
        factor: crops per row and column.

    Returns:
        (ipc, C, H, W).
    """
    heights, widths = (
        [len(cell) for cell in torch.arange(side).tensor_split(factor)] for side in shape
    )
    cells = crops.unflatten(0, (factor, factor, -1))
    rows = [
        torch.cat(
            [F.interpolate(cell, (height, width)) for cell, width in zip(row, widths, strict=True)],
            3,
        )
        for row, height in zip(cells, heights, strict=True)
    ]
    return torch.cat(rows, 2)
