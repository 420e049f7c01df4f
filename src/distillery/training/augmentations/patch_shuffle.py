"""Permute the columns, then the rows of a grid of patches (RDED's code)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from distillery.training.resample import gather_pixels, to_like

NAMES = ("patch-shuffle",)
TRAITS = {"parameter": "count"}  # patches along a side


def apply(name: str, images: Tensor, generator: Generator, parameter: int) -> Tensor:
    """Permute a grid of parameter x parameter patches, anew for each image."""
    columns, rows = (
        to_like(_shuffled(length, len(images), parameter, generator), images)
        for length in images.shape[:1:-1]
    )
    return gather_pixels(images, rows, columns)


def _shuffled(length: int, batch: int, factor: int, generator: Generator) -> Tensor:
    """Indices (batch, length) that permute the `factor` strips of a line of pixels.

    The first strips are a pixel longer where the length does not divide.
    """
    strips = torch.arange(length).tensor_split(factor)
    strip = torch.cat([torch.full_like(pixels, i) for i, pixels in enumerate(strips)])
    rank = torch.rand(batch, factor, generator=generator).argsort(1)
    # A stable sort of the pixels by the rank of their strip moves whole strips.
    return rank[:, strip].argsort(dim=1, stable=True)
