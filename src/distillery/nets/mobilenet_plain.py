"""MobileNetV2 as in G-VBSM's pool of backbones.

It comes from the model zoo of knowledge distillation (Jin et al. 2019, "Knowledge Distillation via
Route Constrained Optimization").
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models import MobileNetV2

from distillery.components.fields import Positive
from distillery.nets.mobilenet import STAGES, Block
from distillery.nets.stem import restem

NAMES = ("mobilenet_v2_plain",)


@dataclass(frozen=True)
class Recipe:
    """A plain MobileNetV2.

    Attributes:
        width: factor on all channels, the head's 1280 never below that (G-VBSM: 0.5).
    """

    width: Positive = 0.5

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return True


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A MobileNetV2 whose shortcuts are identities and whose widths are no multiples of 8.

    The stem has stride 2. An expansion convolution stands also where the expansion is 1, ReLU in
    the place of ReLU6, no dropout. Weights of convolutions are N(0, 2 / (area of the kernel times
    output channels)), those of the last layer N(0, 0.01^2), which torchvision's constructor draws.
    Deviation: a width is the nearest integer, theirs the one below; equal at width 0.5, 0.25 and 1.
    Global average pool where theirs has the side of the last map, which is the same.

    Args:
        name: has one value.
        recipe: width.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.
    """
    net = MobileNetV2(
        classes, recipe.width, STAGES, round_nearest=1, block=_PlainBlock, dropout=0.0
    )
    restem(net, in_channels=channels)
    for layer in (net.features[0], net.features[-1]):
        layer[2] = nn.ReLU(inplace=True)
    return net


class _PlainBlock(Block):
    """A block without a shortcut where the channels change."""

    projects = False
