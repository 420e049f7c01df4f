"""ConvNet of the small-image literature (DC, MTT, PoDD).

It consists of blocks of convolution, norm, ReLU and average pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from distillery.components.fields import Count
from distillery.errors import PlanError

NAMES = ("convnet",)


@dataclass(frozen=True)
class Recipe:
    """A ConvNet.

    Attributes:
        width: filters per block.
        depth: blocks, each halving the side; None means round(log2(side)) - 2 and at least 2, that
            is 2 at 8 and 16 px, 3 at 32, 4 at 64, 5 at 128, 6 at 256.
        norm: "instance" is affine GroupNorm with one group per channel (DC, MTT, G-VBSM), "batch"
            is BatchNorm2d (UFC's ConvNet128).
    """

    width: Count = 128
    depth: Count | None = None
    norm: Literal["instance", "batch"] = "instance"

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return self.norm == "batch"

    def misfit(self, size: int) -> tuple[str, str] | None:
        """The field that does not go with images of `size` pixels, and why; None where all is well.

        The planner asks before anything is trained.
        """
        if self.depth is None or size >> self.depth:
            return None
        why = f"pools images of {size} px below one pixel"
        return "depth", f"{self.depth}: {why}; use {size.bit_length() - 1} or less"


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A ConvNet.

    Deviation: the references pad one-channel 28 px images to 32 in the first block; here 28 px
    stays 28 px.

    Args:
        name: for error messages.
        recipe: width, depth and norm.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.

    Raises:
        PlanError: the pools of so many blocks would leave less than one pixel.
    """
    depth = recipe.depth or max(2, round(math.log2(size)) - 2)
    side, deepest = size >> depth, int(math.log2(size))
    if side < 1:
        raise PlanError(
            f"network {name}: depth {depth} pools {size} px below one pixel; "
            f"use depth {deepest} or less"
        )
    inputs = [channels] + [recipe.width] * (depth - 1)
    blocks = [layer for inp in inputs for layer in _block(inp, recipe)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(recipe.width * side**2, classes))


def _block(inp: int, recipe: Recipe) -> list[nn.Module]:
    width = recipe.width
    norm = nn.BatchNorm2d(width) if recipe.norm == "batch" else nn.GroupNorm(width, width)
    return [nn.Conv2d(inp, width, 3, padding=1), norm, nn.ReLU(inplace=True), nn.AvgPool2d(2)]
