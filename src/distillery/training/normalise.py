"""Normalise images per channel, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images - mean) / std; images (..., C, H, W) in [0, 1], mean and std one number per channel of such pixels.

    torchvision has the same function; importing it takes 4 s, as long as many of our jobs.
    """
    mean, std = (
        torch.tensor(tuple(v), dtype=images.dtype, device=images.device).view(-1, 1, 1)
        for v in (mean, std)
    )
    return (images - mean) / std


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse, clamped to [0, 1]; images on the CPU."""
    mean, std = (torch.tensor(tuple(v))[:, None, None] for v in (mean, std))
    return (images * std + mean).clamp(0, 1)
