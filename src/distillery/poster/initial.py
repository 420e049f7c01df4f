"""What a poster is before the first step. Pure functions of a CPU generator.

Posters are (C, H, W) float32, whitened pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from distillery.poster.geometry import Grid, positions


def noise(channels: int, width: int, height: int, std: float, generator: Generator) -> Tensor:
    """Independent Gaussian pixels (C, H, W).

    std is 1 in the paper (section 4.1, Algorithm 1), 1 / sqrt(C side^2) to start as large as
    `tiles` does.
    """
    return std * torch.randn(channels, height, width, generator=generator)


def tiles(
    channels: int, width: int, height: int, side: int, class_grid: Grid, generator: Generator
) -> Tensor:
    """A Gaussian tile of unit length per class, blended at its borders: the authors' code.

    Every class draws a mean from N(0, I); with d the smallest distance of two means, its tile is
    drawn from N(mean, (d / 4)^2 I) and divided by its length, so that its pixels have std
    1 / sqrt(C side^2). Tiles lie at `positions` on the class grid; where two overlap one fades
    linearly into the next, left to right, then top to bottom.

    Deviations: the paper starts from N(0, 1) pixels (`noise`). The code's vertical fade is wrong
    for grids higher than wide, ours is not. Its fade runs from 1 to 0 inclusive, so that overlaps
    of one or two pixels are hard seams; ours is (i + 1/2) / n, which changes the start by 3 (ipc
    0.3) to 13 % (ipc 0.9) of its norm. On a poster larger than its tiles (ipc above 1) tiles grow
    until they touch, with the same std.

    Args:
        channels: C.
        width: of the poster.
        height: of the poster.
        side: of a tile, where they cover the poster.
        class_grid: of the tiles.
        generator: on the CPU.

    Returns:
        The poster (C, H, W).
    """
    tile_width = max(side, -(-width // class_grid.columns))
    tile_height = max(side, -(-height // class_grid.rows))
    values = channels * tile_height * tile_width
    drawn = _unit_tiles(class_grid.count, values, generator)
    # A tile of unit length has smaller pixels the larger it is; this undoes it.
    drawn = drawn * math.sqrt(tile_height * tile_width) / side
    grid = drawn.view(class_grid.rows, class_grid.columns, channels, tile_height, tile_width)
    left = positions(width, tile_width, class_grid.columns).tolist()
    top = positions(height, tile_height, class_grid.rows).tolist()
    strips = [blended(list(row), left) for row in grid]
    # Top to bottom is left to right of the transposed strips.
    transposed = blended([strip.transpose(1, 2) for strip in strips], top)
    return transposed.transpose(1, 2).contiguous()


def _unit_tiles(count: int, values: int, generator: Generator) -> Tensor:
    """Tiles (count, values) of unit length."""
    means = torch.randn(count, values, generator=generator)
    spread = torch.pdist(means).min() / 4 if count > 1 else 1.0
    drawn = means + spread * torch.randn(count, values, generator=generator)
    return drawn / drawn.norm(dim=1, keepdim=True)


def blended(parts: list[Tensor], starts: list[int]) -> Tensor:
    """Parts (C, h, w) side by side at ascending `starts`, without gaps: (C, h, starts[-1] + w)."""
    whole = parts[0]
    for part, start in zip(parts[1:], starts[1:], strict=True):
        overlap = whole.shape[2] - start
        share = (torch.arange(overlap) + 0.5) / overlap
        blend = (1 - share) * whole[:, :, start:] + share * part[:, :, :overlap]
        whole = torch.cat([whole[:, :, :start], blend, part[:, :, overlap:]], 2)
    return whole
