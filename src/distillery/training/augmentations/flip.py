"""Mirror left and right with probability 1/2."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from distillery.training.resample import to_like

NAMES = ("flip", "batch-flip")


def apply(name: str, images: Tensor, generator: Generator, parameter: None) -> Tensor:
    """Mirror each image for itself ("flip"), or all of them or none ("batch-flip")."""
    draws = len(images) if name == "flip" else 1
    mirrored = torch.rand(draws, 1, 1, 1, generator=generator) < 0.5
    return torch.where(to_like(mirrored, images), images.flip(3), images)
