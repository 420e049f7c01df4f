"""Build a network from its reference in a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from distillery import components


def build_network(reference: Mapping[str, Any], shape: Sequence[int], classes: int) -> nn.Module:
    """The network of `reference` (name and recipe fields) for square images of `shape` (C, H, W); it gives logits (B, classes).

    Raises PlanError when the network does not exist or does not fit the images.
    """
    module, recipe = components.build("network", reference)
    channels, size, _ = shape
    return module.build(reference["name"], recipe, channels=channels, size=size, classes=classes)
