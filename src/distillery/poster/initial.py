"""What a poster is before the first step. Pure functions of a CPU generator; posters are (C, H, W) float32, whitened pixels."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from distillery.poster.geometry import Grid, positions


def noise(channels: int, width: int, height: int, std: float, generator: Generator) -> Tensor:
    """Independent Gaussian pixels: N(0, 1) in the paper (section 4.1, Algorithm 1), 1 / sqrt(C side^2) to start as large as
    `tiles` does."""
    return std * torch.randn(channels, height, width, generator=generator)


def tiles(
    channels: int, width: int, height: int, side: int, class_grid: Grid, generator: Generator
) -> Tensor:
    """A Gaussian tile of unit length per class, laid on the class grid and faded into its neighbours: the authors' code.

    Every class draws a mean from N(0, I); with d the smallest distance of two means, its tile is drawn from
    N(mean, (d / 4)^2 I) and divided by its length, so that its pixels have std 1 / sqrt(C side^2). Tiles lie at `positions`;
    where two overlap one fades linearly into the next, left to right, then top to bottom.
    Deviations: the paper starts from N(0, 1) pixels (`noise`). The code's vertical fade is wrong for grids higher than wide,
    ours is not. On a poster larger than its tiles (ipc above 1) tiles grow until they touch, with the same std.
    """
    breadth, length = (
        max(side, -(-width // class_grid.columns)),
        max(side, -(-height // class_grid.rows)),
    )
    drawn = (
        _drawn(class_grid.count, channels * length * breadth, generator)
        * math.sqrt(length * breadth)
        / side
    )
    placed = drawn.view(class_grid.rows, class_grid.columns, channels, length, breadth)
    left, top = (
        positions(width, breadth, class_grid.columns),
        positions(height, length, class_grid.rows),
    )
    strips = [_faded(list(row), left.tolist()) for row in placed]
    return (
        _faded([strip.transpose(1, 2) for strip in strips], top.tolist())
        .transpose(1, 2)
        .contiguous()
    )


def _drawn(count: int, values: int, generator: Generator) -> Tensor:
    """Tiles (count, values) of unit length."""
    means = torch.randn(count, values, generator=generator)
    spread = torch.pdist(means).min() / 4 if count > 1 else 1.0
    found = means + spread * torch.randn(count, values, generator=generator)
    return found / found.norm(dim=1, keepdim=True)


def _faded(parts: list[Tensor], starts: list[int]) -> Tensor:
    """Parts (C, h, w) side by side at ascending `starts`, without gaps: (C, h, starts[-1] + w)."""
    whole = parts[0]
    for part, start in zip(parts[1:], starts[1:], strict=True):
        common = whole.shape[2] - start
        share = (torch.arange(common) + 0.5) / common
        faded = (1 - share) * whole[:, :, start:] + share * part[:, :, :common]
        whole = torch.cat([whole[:, :, :start], faded, part[:, :, common:]], 2)
    return whole
