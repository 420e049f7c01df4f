"""EfficientNet-B0 (Tan and Le 2019).

Small images get the variant of the CIFAR model zoo, large ones torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models import EfficientNet
from torchvision.models.efficientnet import MBConvConfig

from distillery.components.fields import Positive
from distillery.nets.stem import LARGE, default_init, restem

NAMES = ("efficientnet_b0",)
# Per stage: expansion, kernel, stride, channels in and out, blocks (Table 1 of the paper).
STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


@dataclass(frozen=True)
class Recipe:
    """An EfficientNet-B0.

    Attributes:
        width: factor on all channels, rounded to multiples of 8, at least 8.
    """

    width: Positive = 1.0


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """An EfficientNet-B0.

    Below 128 px, as in UFC: stem of stride 1; no 1x1 head, so that the classifier reads 320
    features; dropout 0.2; drop-connect 0, which UFC's 0.2 amounts to, since its block counter never
    advances. From 128 px on: torchvision's own network.
    Deviation: without the expansion convolution and batch norm (1,088 parameters) of UFC's first
    block, which never run there.

    Args:
        name: has one value.
        recipe: the width.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.
    """
    stages = [MBConvConfig(*stage, width_mult=recipe.width) for stage in STAGES]
    if size >= LARGE:
        net = EfficientNet(stages, dropout=0.2, num_classes=classes)
        restem(net, in_channels=channels)
        return net
    net = EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.0, num_classes=classes)
    restem(net, in_channels=channels, stride=1)
    net.features[-1] = nn.Identity()
    net.classifier[1] = nn.Linear(stages[-1].out_channels, classes)
    default_init(net)
    return net
