"""Differentiable siamese augmentation (DSA; Zhao and Bilen 2021), as GIFT evaluates with it (GIFT Table 10, its code)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from distillery.errors import PlanError, nearest
from distillery.training.resample import at_lines, at_points, move


@dataclass(frozen=True)
class Parameters:
    """One number for each operation, those of GIFT's Table 10; the operation of that name explains it."""

    flip: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    scale: float = 1.2
    rotate: float = 15.0
    cutout: float = 0.5


def dsa(
    images: Tensor, generator: Generator, mode: str = "idc", parameters: Parameters = Parameters()
) -> Tensor:
    """Augment normalised images (B, C, H, W) float: what comes in from outside and what is cut out is 0, the data set's mean.

    An operation draws for each image, the choice of operations for the whole batch. mode: "idc", which GIFT uses: flip,
    brightness, saturation, contrast, then one of crop, scale and rotate, then cutout. "one", the original: one of colour (the
    three together), crop, cutout, flip, scale, rotate. "all": these six groups in this order. "flip-rotate": one of these two
    (PoDD, RaT-BPTT). Differentiable in the images, any number of times.
    Deviation: bilinear sampling at pixel centres (align_corners=False), as GIFT's code; the original has corners (True).
    """
    for name in MODES[mode](generator):
        images = OPERATIONS[name](images, generator, getattr(parameters, name))
    return images


def read_mode(text: str) -> str:
    """The mode named `text`. Raises PlanError for one that does not exist."""
    if text not in MODES:
        raise PlanError(f"augmentation 'dsa:{text}' does not exist: {nearest(text, MODES)}")
    return text


def flip(images: Tensor, generator: Generator, probability: float) -> Tensor:
    """Mirror left and right with this probability."""
    return torch.where(_uniform(images, generator) < probability, images.flip(3), images)


def brightness(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Add strength (u - 1/2), u uniform in [0, 1): with 1, up to half a standard deviation."""
    return images + strength * (_uniform(images, generator) - 0.5)


def saturation(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Multiply by strength u, u uniform in [0, 1), what a pixel's channels differ from their mean."""
    return _stretched(images, 1, strength * _uniform(images, generator))


def contrast(images: Tensor, generator: Generator, least: float) -> Tensor:
    """Multiply by least + u, u uniform in [0, 1), what an image differs from its mean over all channels and pixels."""
    return _stretched(images, (1, 2, 3), least + _uniform(images, generator))


def crop(images: Tensor, generator: Generator, share: float) -> Tensor:
    """Shift by whole pixels, uniform in -d..d along each side, d = floor(share length + 1/2); zeros come in."""
    reach = [_rounded(share, length) for length in images.shape[2:]]
    shifts = (torch.randint(-d, d + 1, (len(images), 1), generator=generator) for d in reach)
    return at_lines(
        images, *(_centres(n) + shift for n, shift in zip(images.shape[2:], shifts, strict=True))
    )


def scale(images: Tensor, generator: Generator, most: float) -> Tensor:
    """Stretch the grid of places by a factor for each side, uniform in [1/most, most]: above 1 the picture shrinks."""
    factors = torch.empty(2, len(images), 1).uniform_(1 / most, most, generator=generator)
    places = (
        (_centres(n) - n / 2) * factor + n / 2
        for n, factor in zip(images.shape[2:], factors, strict=True)
    )
    return at_lines(images, *places)


def rotate(images: Tensor, generator: Generator, most: float) -> Tensor:
    """Rotate about the centre by an angle uniform in [-most, most] degrees. Both sides count as length 2, as in the code, hence
    images that are not square are sheared a little."""
    angle = torch.empty(len(images), 1, 1).uniform_(-most, most, generator=generator).deg2rad()
    half = [n / 2 for n in images.shape[2:]]
    row, column = (
        _centres(images.shape[2])[:, None] / half[0] - 1,
        _centres(images.shape[3]) / half[1] - 1,
    )
    rows, columns = (
        angle.sin() * column + angle.cos() * row,
        angle.cos() * column - angle.sin() * row,
    )
    return at_points(images, (rows + 1) * half[0], (columns + 1) * half[1])


def cutout(images: Tensor, generator: Generator, share: float) -> Tensor:
    """Set a rectangle to 0, of sides n = floor(share length + 1/2), clipped at the border. It starts n // 2 before a pixel that
    is uniform in 0..length where n is even, in 0..length - 1 where it is odd."""
    sides = [_rounded(share, length) for length in images.shape[2:]]
    rows, columns = (
        _span(len(images), *pair, generator) for pair in zip(images.shape[2:], sides, strict=True)
    )
    cut = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(move(cut, images), 0)


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    return move(torch.rand(len(images), 1, 1, 1, generator=generator), images)


def _stretched(images: Tensor, dims: int | Sequence[int], factor: Tensor) -> Tensor:
    mean = images.mean(dims, keepdim=True)
    return mean + (images - mean) * factor


def _rounded(share: float, length: int) -> int:
    return math.floor(share * length + 0.5)


def _centres(length: int) -> Tensor:
    return torch.arange(length) + 0.5


def _span(count: int, length: int, side: int, generator: Generator) -> Tensor:
    start = torch.randint(0, length + 1 - side % 2, (count, 1), generator=generator) - side // 2
    pixels = torch.arange(length)
    return (pixels >= start) & (pixels < start + side)


OPERATIONS: dict[str, Callable[[Tensor, Generator, float], Tensor]] = {
    "flip": flip,
    "brightness": brightness,
    "saturation": saturation,
    "contrast": contrast,
    "crop": crop,
    "scale": scale,
    "rotate": rotate,
    "cutout": cutout,
}
COLOUR = ("brightness", "saturation", "contrast")
GEOMETRY = (("crop",), ("scale",), ("rotate",))
GROUPS = (COLOUR, ("crop",), ("cutout",), ("flip",), ("scale",), ("rotate",))


def _one(groups: Sequence[tuple[str, ...]], generator: Generator) -> tuple[str, ...]:
    return groups[int(torch.randint(len(groups), (), generator=generator))]


MODES: dict[str, Callable[[Generator], Iterable[str]]] = {
    "idc": lambda generator: ("flip", *COLOUR, *_one(GEOMETRY, generator), "cutout"),
    "one": lambda generator: _one(GROUPS, generator),
    "all": lambda generator: sum(GROUPS, ()),
    "flip-rotate": lambda generator: _one((("flip",), ("rotate",)), generator),
}
