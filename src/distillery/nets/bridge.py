"""Any classifier of timm or torchvision by its own name, randomly initialised.

Names are such as `timm:resnet26` and `torchvision:vgg11_bn`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distillery.errors import PlanError, nearest
from distillery.nets.stem import restem

NAMES = ("timm:*", "torchvision:*")
WITH_AUXILIARY = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Recipe:
    """No fields: the name says it all."""


def build(name: str, recipe: Recipe, *, channels: int, size: int, classes: int) -> nn.Module:
    """A network of a library, with the library's stem, which is made for large images.

    Args:
        name: "library:name".
        recipe: has no fields.
        channels: of the images (B, channels, size, size) float32, normalised.
        size: their height and width in pixels.
        classes: length of the logits (B, classes) float32.

    Raises:
        PlanError: the library has no such network, or it cannot take images of this shape, which is
            tried with one blank image.
    """
    library, _, model = name.partition(":")
    net = {"timm": _timm, "torchvision": _torchvision}[library](model, channels, classes)
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = f"{channels}x{size}x{size}"
        raise PlanError(
            f"network '{name}' does not take {shape} images ({error}); use another network"
        ) from None
    return net.train()


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
