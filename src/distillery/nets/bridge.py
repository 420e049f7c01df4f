"""Any classifier of timm or torchvision by its own name, randomly initialised.

Names are such as `timm:resnet26` and `torchvision:vgg11_bn`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distillery.components.fields import Count
from distillery.errors import PlanError, nearest
from distillery.nets.stem import restem

NAMES = ("timm:*", "torchvision:*")
WITH_AUXILIARY = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Recipe:
    """A network of a library.

    Attributes:
        head: outputs that it is built with, of which the first are kept; None: as many as there are
            classes. It matters where the initial weights depend on their number: torchvision's
            EfficientNet draws them from +-1 / sqrt(outputs). GIFT's code builds 1000.
    """

    head: Count | None = None


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A network of a library, with the library's stem, which is made for large images.

    Args:
        name: "library:name".
        recipe: the head.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.

    Raises:
        PlanError: the library has no such network, it cannot take images of this shape, which is
            tried with one blank image, or its head cannot be cut down to the classes.
    """
    library, _, model = name.partition(":")
    outputs = recipe.head or classes
    net = {"timm": _timm, "torchvision": _torchvision}[library](model, channels, outputs)
    if outputs != classes:
        _keep_outputs(net, name, classes)
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = f"{channels}x{size}x{size}"
        raise PlanError(
            f"network '{name}' does not take {shape} images ({error}); use another network"
        ) from None
    return net.train()


def _keep_outputs(net: nn.Module, name: str, classes: int) -> None:
    """Keep the first `classes` outputs of the last linear layer."""
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features < classes:
        raise PlanError(f"network '{name}': head: keeps no {classes} outputs; leave it out")
    head = linear[-1]
    head.weight = nn.Parameter(head.weight.detach()[:classes].clone())
    head.bias = None if head.bias is None else nn.Parameter(head.bias.detach()[:classes].clone())
    head.out_features = classes


def _timm(model: str, channels: int, classes: int) -> nn.Module:
    try:
        import timm  # optional, and seconds to import: only where asked for
    except ImportError:
        raise PlanError(f"network 'timm:{model}' needs timm: pip install timm") from None
    if not timm.is_model(model):
        raise PlanError(f"timm has no network '{model}': {nearest(model, timm.list_models())}")
    return timm.create_model(model, pretrained=False, num_classes=classes, in_chans=channels)


def _torchvision(model: str, channels: int, classes: int) -> nn.Module:
    from torchvision import models

    # Of the module itself: classifiers, not those of models.detection and its like.
    names = models.list_models(module=models)
    if model not in names:
        raise PlanError(f"torchvision has no classifier '{model}': {nearest(model, names)}")
    options = {"aux_logits": False, "init_weights": True} if model in WITH_AUXILIARY else {}
    net = models.get_model(model, weights=None, num_classes=classes, **options)
    restem(net, in_channels=channels)
    return net
