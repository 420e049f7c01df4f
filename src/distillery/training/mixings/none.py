"""No mixing."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from distillery.training.batches import Mixing

NAMES = ("none",)


def draw(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    """Every image keeps all of itself; nothing is drawn."""
    return Mixing(1.0, torch.arange(len(images), device=images.device))
