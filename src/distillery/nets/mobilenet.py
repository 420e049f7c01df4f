"""MobileNetV2 (Sandler et al. 2018).

Small images get the variant of the CIFAR model zoo, large ones torchvision's. G-VBSM's is another
one, `mobilenet_plain.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import MobileNetV2
from torchvision.ops import Conv2dNormActivation

from distillery.components.fields import Positive
from distillery.nets.stem import LARGE, default_init, restem

NAMES = ("mobilenet_v2",)
# Per stage: expansion, channels, blocks, stride. The second stage of torchvision has stride 2.
STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


@dataclass(frozen=True)
class Recipe:
    """A MobileNetV2.

    Attributes:
        width: factor on all channels, rounded to multiples of 8, the head's 1280 never below that
            (torchvision's rule).
        stem_stride: stride of the first convolution below 128 px (UFC: 1); from 128 px on it is
            torchvision's 2.
    """

    width: Positive = 1.0
    stem_stride: Literal[1, 2] = 1

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return True


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A MobileNetV2.

    Below 128 px, as in UFC: ReLU, not ReLU6; an expansion convolution also for expansion 1; a
    shortcut around every block of stride 1, with 1x1 convolution and batch norm where the channels
    change; no dropout.
    Deviation: global average pool where UFC pools 4x4; equal at 32 px, and other sizes work.

    Args:
        name: has one value.
        recipe: width and stride of the stem.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.
    """
    if size >= LARGE:
        net = MobileNetV2(classes, recipe.width)
        restem(net, in_channels=channels)
        return net
    net = MobileNetV2(classes, recipe.width, STAGES, block=Block, dropout=0.0)
    restem(net, in_channels=channels, stride=recipe.stem_stride)
    for layer in (net.features[0], net.features[-1]):
        layer[2] = nn.ReLU(inplace=True)
    default_init(net)
    return net


class Block(nn.Module):
    """Inverted residual: 1x1 expansion, 3x3 depthwise, linear 1x1 projection.

    The signature is that of torchvision's block.

    Attributes:
        projects: whether a block of stride 1 has a shortcut also where the channels change.
    """

    projects = True

    def __init__(self, inp: int, out: int, stride: int, expand_ratio: int, norm_layer: Any):
        """A block from `inp` to `out` channels."""
        super().__init__()
        hidden = inp * expand_ratio
        self.branch = nn.Sequential(
            Conv2dNormActivation(inp, hidden, 1),
            Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden),
            Conv2dNormActivation(hidden, out, 1, activation_layer=None),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1 and inp == out:
            self.shortcut = nn.Identity()
        elif stride == 1 and self.projects:
            self.shortcut = Conv2dNormActivation(inp, out, 1, activation_layer=None)

    def forward(self, x: Tensor) -> Tensor:
        """Images or features (B, inp, H, W) to features (B, out, H / stride, W / stride)."""
        branch: Tensor = self.branch(x)
        return branch if self.shortcut is None else branch + self.shortcut(x)
