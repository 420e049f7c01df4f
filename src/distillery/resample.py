"""Separable resampling of images as matrix products: deterministic on a GPU, backwards too, where torch's own are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def separable(images: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply the linear map `resample`, of lines (1, n, length) to lines (1, n, new length), to both sides.

    images: (..., H, W) float. The map's matrix is what it makes of the unit impulses.
    """
    rows, columns = (resample(torch.eye(n, dtype=images.dtype, device=images.device)[None])[0] for n in images.shape[-2:])
    return rows.T @ images @ columns
