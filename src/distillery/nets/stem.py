"""What variants of published networks for small images have in common.

These are another first layer, and torch's own initialisation.
"""

from __future__ import annotations

from typing import Any

from torch import nn

# Side in pixels from which a network keeps its published (ImageNet) stem; smaller images get one
# that does not shrink.
LARGE = 128

_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


def restem(net: nn.Module, **changes: Any) -> None:
    """Replace in place the first convolution of a network by one with other arguments.

    The new layer has torch's default initialisation, as in UFC, which swaps the stems of its
    students after construction; when nothing would change, the layer is left as it is.

    Args:
        net: a network; its first convolution in registration order counts.
        **changes: arguments of nn.Conv2d, such as in_channels or stride.
    """
    name, conv = next(
        (name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)
    )
    if any(getattr(conv, key) != value for key, value in changes.items()):
        same = {key: getattr(conv, key) for key in _ARGUMENTS} | {"bias": conv.bias is not None}
        net.set_submodule(name, nn.Conv2d(**(same | changes)))


def default_init(net: nn.Module) -> None:
    """Draw every layer of `net` anew, in place, from torch's default initialisation.

    It is that of the CIFAR model zoo.
    """
    for module in net.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
