"""ResNets (He et al. 2016) of torchvision, with the stem for small images of UFC and SRe2L."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from distillery.components.fields import Positive
from distillery.nets.stem import LARGE, restem

NAMES = ("resnet10", "resnet18", "resnet50", "resnet101")
BLOCKS = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BOTTLENECK = ("resnet50", "resnet101")


@dataclass(frozen=True)
class Recipe:
    """A ResNet.

    Attributes:
        width: factor on the channels of the stem and of every stage (64, 64, 128, 256, 512),
            rounded, at least 1 channel.
    """

    width: Positive = 1.0

    @property
    def batch_norm(self) -> bool:
        """Whether it has batch normalisation, whose statistics some methods match."""
        return True


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A ResNet.

    Below 128 px the stem is a 3x3 convolution of stride 1 and there is no max-pool; from 128 px on
    the stem is torchvision's own. resnet10 (one basic block per stage) is for small scales; no
    paper of ours uses it.

    Args:
        name: which ResNet.
        recipe: the width.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.
    """
    block = Bottleneck if name in BOTTLENECK else BasicBlock
    net = _ResNet(block, BLOCKS[name], recipe.width, classes)
    small = {"kernel_size": 3, "stride": 1, "padding": 1} if size < LARGE else {}
    restem(net, in_channels=channels, out_channels=_scaled(64, recipe.width), **small)
    if small:
        net.maxpool = nn.Identity()
    return net


def _scaled(planes: int, width: float) -> int:
    return max(1, round(planes * width))


class _ResNet(ResNet):
    """The ResNet of torchvision with all widths scaled but the stem's, which `build` replaces."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, ...],
        width: float,
        classes: int,
    ):
        self.width = width  # before the base class, whose constructor calls _make_layer
        super().__init__(block, list(blocks), num_classes=classes)
        self.bn1 = nn.BatchNorm2d(_scaled(64, width))
        self.fc = nn.Linear(_scaled(512, width) * block.expansion, classes)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, *args: int, **kwargs: int
    ) -> nn.Sequential:
        if planes == 64:  # the first stage, which reads the stem
            self.inplanes = _scaled(64, self.width)
        return super()._make_layer(block, _scaled(planes, self.width), *args, **kwargs)
