"""Batched augmentation of images (B, C, H, W) float on any device, differentiable in the images.

Random numbers come from a CPU generator, so that every device sees the same crops. Names and parameters are those of
`AUGMENTATIONS`; "batch-" variants draw once for the whole batch, which is what the distillation methods do (a torchvision
transform on a batched tensor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from distillery.errors import PlanError, nearest
from distillery.training.dsa import dsa, read_mode
from distillery.training.recipe import split
from distillery.training.resample import move, resize_boxes

RATIO = (3 / 4, 4 / 3)
TRIES = 10


def crop(images: Tensor, generator: Generator, pad: int) -> Tensor:
    """Pad each side with `pad` zeros, cut the original size out again at a place of its own for each image."""
    batch, _, height, width = images.shape
    top, left = (
        move(x, images) for x in torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator)
    )
    rows, columns = (
        top + torch.arange(height, device=images.device),
        left + torch.arange(width, device=images.device),
    )
    return _pick(F.pad(images, (pad, pad, pad, pad)), rows, columns)


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at rows (B, h) and columns (B, w) of each image: (B, C, h, w)."""
    image, channel = (torch.arange(n, device=images.device) for n in images.shape[:2])
    return images[
        image[:, None, None, None],
        channel[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def batch_crop(images: Tensor, generator: Generator, pad: int) -> Tensor:
    """The same, at one place for all images."""
    top, left = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    return F.pad(images, (pad, pad, pad, pad))[..., top : top + height, left : left + width]


def flip(images: Tensor, generator: Generator, *, whole_batch: bool = False) -> Tensor:
    """Mirror left and right with probability 1/2: each image for itself, or all `whole_batch`."""
    mirrored = torch.rand(1 if whole_batch else len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(move(mirrored, images), images.flip(3), images)


def resized_crop(
    images: Tensor, generator: Generator, smallest: float, *, whole_batch: bool = False
) -> Tensor:
    """A random box of each image (or one box for all, `whole_batch`), resized to the size of the image; see `draw_boxes`."""
    boxes = draw_boxes(1 if whole_batch else len(images), images.shape[2:], generator, smallest)
    return resize_boxes(images, *boxes)


def draw_boxes(
    count: int,
    shape: Sequence[int],
    generator: Generator,
    smallest: float,
    ratios: tuple[float, float] = RATIO,
) -> tuple[Tensor, Tensor]:
    """Start and size (2, count) float of random boxes within `shape` (H, W), in whole pixels, row then column.

    A box's share of the area is uniform in [smallest, 1], its ratio width/height log-uniform in `ratios`, its sides are rounded
    to pixels and its place is uniform: torchvision's RandomResizedCrop. Of ten boxes the first that fits is used; when none
    does, the largest whose ratio is allowed (of a square image: all of it).
    """
    height, width = shape
    share = torch.empty(count, TRIES).uniform_(smallest, 1, generator=generator)
    ratio = torch.empty(count, TRIES).uniform_(*map(math.log, ratios), generator=generator).exp()
    sides = (
        (height * width * share * torch.stack([1 / ratio, ratio])).sqrt().round()
    )  # (2, count, tries)
    largest = torch.tensor(
        [min(height, round(width / ratios[0])), min(width, round(height * ratios[1]))],
        dtype=sides.dtype,
    )
    sides = torch.cat([sides, largest.view(2, 1, 1).expand(2, count, 1)], 2)
    limit = torch.tensor([height, width]).view(2, 1, 1)
    first = ((sides >= 1) & (sides <= limit)).all(0).byte().argmax(1)
    size = sides[:, torch.arange(count), first]
    return (
        torch.rand(size.shape, generator=generator) * (limit.view(2, 1) - size + 1)
    ).floor(), size


def roll(images: Tensor, generator: Generator, reach: int, *, centred: bool = False) -> Tensor:
    """Shift the whole batch cyclically, down and right by two integers uniform in 0..reach (INFER's and SRe2L's code); where
    `centred`, in -reach..reach (SRe2L's code for Tiny-ImageNet)."""
    return images.roll(
        torch.randint(-reach if centred else 0, reach + 1, (2,), generator=generator).tolist(),
        (2, 3),
    )


def patch_shuffle(images: Tensor, generator: Generator, factor: int) -> Tensor:
    """Permute the columns, then the rows of a grid of factor x factor patches, anew for each image (RDED's code)."""
    columns, rows = (
        move(_shuffled(length, len(images), factor, generator), images)
        for length in images.shape[:1:-1]
    )
    return _pick(images, rows, columns)


def _shuffled(length: int, batch: int, factor: int, generator: Generator) -> Tensor:
    """Indices (batch, length) that permute the `factor` strips of a line; the first ones are a pixel longer if need be."""
    strips = torch.arange(length).tensor_split(factor)
    strip = torch.cat([torch.full_like(pixels, i) for i, pixels in enumerate(strips)])
    rank = torch.rand(batch, factor, generator=generator).argsort(1)
    return rank[:, strip].argsort(dim=1, stable=True)


def _count(text: str) -> int:
    return _within(int(text), math.inf)


def _factor(text: str) -> int:
    return _within(int(text), math.inf, 1)


def _share(text: str) -> float:
    return _within(float(text), 1)


def _within(value: float, most: float, least: float = 0) -> float:
    if not least <= value <= most:
        raise ValueError
    return value


class Augmentation(NamedTuple):
    """apply: (images, generator), then the parameter if it has one. read: of its text. default: None asks for one."""

    apply: Callable[..., Tensor]
    read: Callable[[str], Any] | None = None
    default: Any = None


AUGMENTATIONS = {
    "crop": Augmentation(crop, _count),
    "flip": Augmentation(flip),
    "resized-crop": Augmentation(resized_crop, _share, 0.08),
    "roll": Augmentation(roll, _count),
    "batch-crop": Augmentation(batch_crop, _count),
    "centred-roll": Augmentation(partial(roll, centred=True), _count),
    "patch-shuffle": Augmentation(patch_shuffle, _factor),
    "batch-flip": Augmentation(partial(flip, whole_batch=True)),
    "batch-resized-crop": Augmentation(partial(resized_crop, whole_batch=True), _share, 0.08),
    "dsa": Augmentation(dsa, read_mode, "idc"),
}
Pipeline = Callable[[Tensor, Generator], Tensor]


def pipeline(names: Sequence[str]) -> Pipeline:
    """The augmentations `names` in order, as one function of images (B, C, H, W) float and a CPU generator.

    A parameter stands behind a colon: "crop:4". The images are pixels, or normalised already; `around` does both in turn.
    Raises PlanError for an unknown name and for a missing, superfluous or unreadable parameter.
    """
    steps = [_parse(name) for name in names]

    def apply(images: Tensor, generator: Generator) -> Tensor:
        for step in steps:
            images = step(images, generator)
        return images

    return apply


def around(normalise: Callable[[Tensor], Tensor], names: Sequence[str]) -> Pipeline:
    """The augmentations `names` in order as one function of images in [0, 1], with `normalise` between those that work on
    pixels and those that work on normalised images (`recipe.split`). Raises PlanError as both do.
    """
    before, after = (pipeline(part) for part in split(names))
    return lambda images, generator: after(normalise(before(images, generator)), generator)


def _parse(text: str) -> Pipeline:
    name, colon, value = text.partition(":")
    if name not in AUGMENTATIONS:
        raise PlanError(f"augmentation '{text}' does not exist: {nearest(name, AUGMENTATIONS)}")
    apply, read, default = AUGMENTATIONS[name]
    if read is None:
        if colon:
            raise PlanError(f"augmentation '{text}' takes no parameter: write '{name}'")
        return apply
    try:
        parameter = read(value) if colon or default is None else default
    except ValueError:
        raise PlanError(
            f"augmentation '{text}' cannot be read: write a number behind it, as in '{name}:1'"
        ) from None
    return lambda images, generator: apply(images, generator, parameter)
