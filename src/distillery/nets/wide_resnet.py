"""Wide ResNet (Zagoruyko and Komodakis 2016) for small images, of depth 16, widened by 2.

Its residual blocks activate before they convolve.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillery.components.fields import Positive

NAMES = ("wrn16_2",)
BLOCKS = 2  # per group; the depth is 6 * BLOCKS + 4
WIDEN = 2
BASE = (16, 32, 64)


@dataclass(frozen=True)
class Recipe:
    """A WRN-16-2.

    Attributes:
        width: factor on the channels of the stem and of the groups (16, 32, 64, 128), rounded, at
            least 1 channel.
    """

    width: Positive = 1.0

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return True


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A WRN-16-2.

    Three groups of two blocks, the second and third of stride 2, no dropout; He initialisation
    (fan-out), as published. 691,674 parameters for 10 classes and 703,284 for 100. The stem keeps
    the size of the image at any size.
    Deviation: global average pool where the reference pools 8x8; equal at 32 px, and other sizes
    work.

    Args:
        name: has one value.
        recipe: the width.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.
    """
    stem, *widths = (
        max(1, round(planes * recipe.width))
        for planes in (BASE[0], *(WIDEN * planes for planes in BASE))
    )
    blocks: list[nn.Module] = []
    inp = stem
    for group, out in enumerate(widths):
        for block in range(BLOCKS):
            blocks.append(_Block(inp, out, 2 if group and not block else 1))
            inp = out
    head = [
        nn.BatchNorm2d(inp),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inp, classes),
    ]
    net = nn.Sequential(nn.Conv2d(channels, stem, 3, padding=1, bias=False), *blocks, *head)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class _Block(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3, plus the input.

    Where the channels or the size change, a 1x1 convolution of the activated input is added.
    """

    def __init__(self, inp: int, out: int, stride: int):
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inp), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            nn.Conv2d(inp, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
        )
        self.shortcut = (
            None if inp == out and stride == 1 else nn.Conv2d(inp, out, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        return torch.add(self.branch(active), x if self.shortcut is None else self.shortcut(active))
