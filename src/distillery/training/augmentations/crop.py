"""Zero-pad and cut the original size out again."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from distillery.training.resample import gather_pixels, to_like

NAMES = ("crop", "batch-crop")
TRAITS = {"parameter": "natural", "within_image": True}  # zeros on each side, in pixels


def apply(name: str, images: Tensor, generator: Generator, parameter: int) -> Tensor:
    """Pad each side with `parameter` zeros and crop back.

    "crop" crops at a place of its own for each image, "batch-crop" at one place for the batch.
    """
    crop = {"crop": _each, "batch-crop": _whole_batch}[name]
    return crop(images, generator, parameter)


def _each(images: Tensor, generator: Generator, pad: int) -> Tensor:
    batch, _, height, width = images.shape
    offsets = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator)
    top, left = (to_like(offset, images) for offset in offsets)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    return gather_pixels(F.pad(images, (pad, pad, pad, pad)), rows, columns)


def _whole_batch(images: Tensor, generator: Generator, pad: int) -> Tensor:
    top, left = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    height, width = images.shape[2:]
    return F.pad(images, (pad, pad, pad, pad))[..., top : top + height, left : left + width]
