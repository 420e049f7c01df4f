"""Show one cell of a grid of patches at full size (GIFT's code, for RDED's images of patches)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from distillery.training.resample import resize_boxes

NAMES = ("patch-crop",)
TRAITS = {"parameter": "count"}  # patches along a side


def apply(name: str, images: Tensor, generator: Generator, parameter: int) -> Tensor:
    """Of each image, with probability 1 - 1 / f^2, one of its f x f cells; else all of it.

    f = `parameter`. All cells are equally likely; a cell has floor(length / f) pixels along a side
    and is resized to the image's size, bilinearly. With f = 1 nothing happens.
    """
    batch, factor = len(images), parameter
    whole = torch.rand(batch, generator=generator) < 1 / factor**2
    cell = torch.randint(0, factor, (2, batch), generator=generator)
    length = torch.tensor(images.shape[2:]).view(2, 1)
    start = torch.where(whole, 0, cell * (length // factor))
    size = torch.where(whole, length, length // factor)
    return resize_boxes(images, start.float(), size.float())
