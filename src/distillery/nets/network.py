"""Networks: build one from its reference in a recipe, write its weights, read it back frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import nn

from distillery.components import registry
from distillery.components.registry import Reference
from distillery.errors import ArtefactError


def build_network(reference: Reference, shape: Sequence[int], classes: int) -> nn.Module:
    """A network, randomly initialised.

    Args:
        reference: name and recipe fields.
        shape: (C, H, W) of the images, which are square.
        classes: length of the logits.

    Returns:
        From (B, C, H, W) float32, normalised, to logits (B, classes) float32.

    Raises:
        PlanError: the network does not exist, or does not fit the images.
    """
    module, recipe = registry.build("network", reference)
    channels, size, _ = shape
    return module.build(reference["name"], recipe, channels=channels, size=size, classes=classes)


def save_network(model: nn.Module, file: Path) -> None:
    """Write the state of `model` to a safetensors file, as `load_network` reads it."""
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, file
    )


def load_network(
    reference: Reference,
    shape: Sequence[int],
    classes: int,
    file: Path,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network with stored weights: in eval mode, no parameter requires a gradient.

    Args:
        reference: name and recipe fields.
        shape: (C, H, W) of the images, which are square.
        classes: length of the logits.
        file: weights, as `save_network` writes them.
        device: where the network is put.

    Raises:
        ArtefactError: the file is unreadable or not that network's, or holds a number that is not
            finite.
        PlanError: as `build_network`.
    """
    model = build_network(reference, shape, classes)
    try:
        load_model(model, file)
    except (RuntimeError, SafetensorError) as error:
        raise ArtefactError(
            f"{file}: not the weights of '{reference['name']}' ({error}); train it again"
        ) from None
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise ArtefactError(
            f"{file}: holds weights that are not finite; train it again with a lower lr"
        )
    return model.requires_grad_(False).eval().to(device)
