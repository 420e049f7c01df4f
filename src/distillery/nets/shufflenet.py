"""ShuffleNet V1 (Zhang et al. 2018), with 2 groups, and V2 (Ma et al. 2018).

Small images get the stem of the CIFAR model zoo. The INFER paper says ShuffleNetV2; its code (UFC)
runs V1. Both are here under their own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2
from torchvision.models.efficientnet import MBConvConfig
from torchvision.ops import Conv2dNormActivation

from distillery.components.fields import Range
from distillery.errors import PlanError, nearest
from distillery.nets.stem import LARGE, restem

NAMES = ("shufflenet_v1", "shufflenet_v2")
REPEATS = (4, 8, 4)
GROUPS = 2
V1_CHANNELS = (24, 200, 400, 800)
V2_CHANNELS = {
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}


@dataclass(frozen=True)
class Recipe:
    """A ShuffleNet.

    Attributes:
        width: V1: factor on all channels, rounded to multiples of 8, at least 8. V2: one of the
            published 0.5, 1, 1.5, 2.
    """

    width: Annotated[float, Range(ge=0.1)] = 1.0

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return True


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A ShuffleNet.

    Below 128 px the stem is a 1x1 convolution of stride 1 without a pool; from 128 px on a 3x3 one
    of stride 2 and a max-pool, as published. V1 has a ReLU after its depthwise convolution, as in
    UFC.
    Deviation: V1 ends in a global average pool where UFC pools 4x4; equal at 32 px, and other sizes
    work.

    Args:
        name: V1 or V2.
        recipe: the width.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.

    Raises:
        PlanError: V2 has no such width.
    """
    net = {"shufflenet_v1": _v1, "shufflenet_v2": _v2}[name](recipe.width, classes)
    small = {"kernel_size": 1, "stride": 1, "padding": 0} if size < LARGE else {}
    restem(net, in_channels=channels, **small)
    if small:
        net.maxpool = nn.Identity()
    return net


def _v2(width: float, classes: int) -> ShuffleNetV2:
    if width not in V2_CHANNELS:
        published = map(str, V2_CHANNELS)
        raise PlanError(
            f"network shufflenet_v2: no width {width}: {nearest(str(width), published)}"
        )
    return ShuffleNetV2(list(REPEATS), list(V2_CHANNELS[width]), classes)


def _v1(width: float, classes: int) -> ShuffleNetV2:
    """V1's units within the V2 of torchvision: its stem, three stages, pool and classifier.

    V1 has no 1x1 head.
    """
    channels = [MBConvConfig.adjust_channels(c, width) for c in V1_CHANNELS]
    net = ShuffleNetV2(list(REPEATS), [*channels, channels[-1]], classes, _Unit)
    net.stage2[0] = _Unit(channels[0], channels[1], 2, groups=1)
    net.conv5 = nn.Identity()
    return net


class _Unit(nn.Module):
    """V1's unit: a branch of grouped 1x1, shuffle, 3x3 depthwise and grouped 1x1 convolutions.

    At stride 1 the input is added to the branch; at stride 2 its 3x3 average is concatenated with
    it. The bottleneck has a quarter of the channels that the branch makes. `groups` are those of
    the first convolution, 1 where the unit reads the stem.
    """

    def __init__(self, inp: int, out: int, stride: int, groups: int = GROUPS):
        super().__init__()
        made = out if stride == 1 else out - inp
        hidden = made // 4
        self.branch = nn.Sequential(
            Conv2dNormActivation(inp, hidden, 1, groups=groups),
            nn.ChannelShuffle(groups),
            Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden),
            Conv2dNormActivation(hidden, made, 1, groups=GROUPS, activation_layer=None),
        )
        self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return torch.relu(y + x if self.pool is None else torch.cat((y, self.pool(x)), 1))
