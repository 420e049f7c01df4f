"""Differentiable siamese augmentation (DSA; Zhao and Bilen 2021), as GIFT evaluates with it.

GIFT's Table 10 and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from distillery.training.resample import at_lines, at_points, to_like

NAMES = ("dsa",)
TRAITS = {
    "normalised": True,
    "parameter": ("idc", "one", "all", "flip-rotate"),
    "default": "idc",
}


@dataclass(frozen=True)
class Strengths:
    """One number for each operation, those of GIFT's Table 10.

    Attributes:
        flip: probability.
        brightness: range of what is added, in standard deviations of the data set.
        saturation: the largest factor on a pixel's deviation from its mean over the channels.
        contrast: the smallest factor on an image's deviation from its mean; the largest is 1 more.
        crop: the longest shift, as a share of the side.
        scale: the largest factor on a side; the smallest is its inverse.
        rotate: the largest angle, in degrees.
        cutout: side of the rectangle, as a share of the image's.
    """

    flip: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    scale: float = 1.2
    rotate: float = 15.0
    cutout: float = 0.5


def apply(name: str, images: Tensor, generator: Generator, parameter: str) -> Tensor:
    """`dsa` in the mode `parameter`, at the strengths of GIFT."""
    return dsa(images, generator, parameter)


def dsa(
    images: Tensor, generator: Generator, mode: str = "idc", strengths: Strengths = Strengths()
) -> Tensor:
    """Augment normalised images; what comes in from outside and what is cut out is 0, the mean.

    An operation draws for each image, the choice of operations for the whole batch. Differentiable
    in the images, any number of times. Bilinear sampling at pixel centres (align_corners=False),
    as in the code of GIFT, of the original and of PoDD.
    Deviation: images are normalised with the constants of their own data set; GIFT's code has
    CIFAR-10's on CIFAR-100 too, where a brightness of 1 is then 0.201 of the range of a pixel, mean
    over the channels, against 0.267 here: 33 % more.

    Args:
        images: (B, C, H, W) float, normalised.
        generator: a CPU generator.
        mode: "idc", which GIFT uses: flip, brightness, saturation, contrast, then one of crop,
            scale and rotate, then cutout. "one", the original: one of colour (the three together),
            crop, cutout, flip, scale, rotate. "all": these six groups in this order.
            "flip-rotate": one of these two (PoDD, RaT-BPTT).
        strengths: of the operations.

    Returns:
        Images of the same shape.
    """
    for name in MODES[mode](generator):
        images = OPERATIONS[name](images, generator, getattr(strengths, name))
    return images


def flip(images: Tensor, generator: Generator, probability: float) -> Tensor:
    """Mirror left and right with this probability."""
    return torch.where(_uniform(images, generator) < probability, images.flip(3), images)


def brightness(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Add strength (u - 1/2), u uniform in [0, 1): with 1, up to half a standard deviation."""
    return images + strength * (_uniform(images, generator) - 0.5)


def saturation(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Multiply what a pixel's channels differ from their mean by strength u, u in [0, 1)."""
    return _stretched(images, (1,), strength * _uniform(images, generator))


def contrast(images: Tensor, generator: Generator, least: float) -> Tensor:
    """Multiply what an image differs from its mean by least + u, u uniform in [0, 1).

    The mean is over all channels and pixels.
    """
    return _stretched(images, (1, 2, 3), least + _uniform(images, generator))


def crop(images: Tensor, generator: Generator, share: float) -> Tensor:
    """Shift by whole pixels, uniform in -d..d along each side; zeros come in.

    d = floor(share length + 1/2).
    """
    shape = images.shape[2:]
    reach = [_rounded(share, length) for length in shape]
    shifts = (torch.randint(-d, d + 1, (len(images), 1), generator=generator) for d in reach)
    rows, columns = (_centres(n) + shift for n, shift in zip(shape, shifts, strict=True))
    return at_lines(images, rows, columns)


def scale(images: Tensor, generator: Generator, most: float) -> Tensor:
    """Stretch the grid of places by a factor for each side, uniform in [1/most, most].

    Above 1 the picture shrinks.
    """
    factors = torch.empty(2, len(images), 1).uniform_(1 / most, most, generator=generator)
    rows, columns = (
        (_centres(n) - n / 2) * factor + n / 2
        for n, factor in zip(images.shape[2:], factors, strict=True)
    )
    return at_lines(images, rows, columns)


def rotate(images: Tensor, generator: Generator, most: float) -> Tensor:
    """Rotate about the centre by an angle uniform in [-most, most] degrees.

    Both sides count as length 2, as in the code, hence images that are not square are sheared a
    little.
    """
    angle = torch.empty(len(images), 1, 1).uniform_(-most, most, generator=generator).deg2rad()
    half_height, half_width = (n / 2 for n in images.shape[2:])
    row = _centres(images.shape[2])[:, None] / half_height - 1
    column = _centres(images.shape[3]) / half_width - 1
    rows = angle.sin() * column + angle.cos() * row
    columns = angle.cos() * column - angle.sin() * row
    return at_points(images, (rows + 1) * half_height, (columns + 1) * half_width)


def cutout(images: Tensor, generator: Generator, share: float) -> Tensor:
    """Set a rectangle to 0, of sides n = floor(share length + 1/2), clipped at the border.

    It starts n // 2 before a pixel that is uniform in 0..length where n is even, in 0..length - 1
    where it is odd.
    """
    shape = images.shape[2:]
    rows, columns = (_span(len(images), n, _rounded(share, n), generator) for n in shape)
    cut = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(to_like(cut, images), 0)


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    return to_like(torch.rand(len(images), 1, 1, 1, generator=generator), images)


def _stretched(images: Tensor, dims: tuple[int, ...], factor: Tensor) -> Tensor:
    mean = images.mean(dims, keepdim=True)
    return mean + (images - mean) * factor


def _rounded(share: float, length: int) -> int:
    return math.floor(share * length + 0.5)


def _centres(length: int) -> Tensor:
    return torch.arange(length) + 0.5


def _span(count: int, length: int, side: int, generator: Generator) -> Tensor:
    """Which of `length` pixels (count, length) lie in a stretch of `side` pixels of each image."""
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


# From a mode to the operations of one batch; the keys are TRAITS["parameter"].
MODES: dict[str, Callable[[Generator], Iterable[str]]] = {
    "idc": lambda generator: ("flip", *COLOUR, *_one(GEOMETRY, generator), "cutout"),
    "one": lambda generator: _one(GROUPS, generator),
    "all": lambda generator: sum(GROUPS, ()),
    "flip-rotate": lambda generator: _one((("flip",), ("rotate",)), generator),
}
