"""Look inside a network while it runs: penultimate features, and the layers that take part."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from distillery.errors import PlanError

M = TypeVar("M", bound=nn.Module)


def penultimate(model: nn.Module, images: Tensor) -> Tensor:
    """Features before the classifier: the input of the last nn.Linear that runs.

    Args:
        model: a classifier, in the mode that the caller wants.
        images: (B, C, H, W) float32, normalised as `model` expects.

    Returns:
        (B, F) float32, with gradient unless the caller turns gradients off.

    Raises:
        PlanError: the network has no linear layer.
    """
    inputs: list[Tensor] = []
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [
        module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for module in linears
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not inputs:
        raise PlanError(
            f"network {type(model).__name__}: no nn.Linear runs, so no penultimate features; "
            f"use another network"
        )
    return inputs[-1]


def fired_layers(
    model: nn.Module, example: Tensor, kinds: type[M] | tuple[type[M], ...]
) -> list[M]:
    """The layers of some kinds that take part in a forward pass, in order of registration.

    The pass is in eval mode and without gradient, so that neither weights nor running statistics
    change; the mode of every module is restored.

    Args:
        model: any network.
        example: (B, C, H, W) float32, any B >= 1.
        kinds: classes of layers.
    """
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    modes = [(module, module.training) for module in model.modules()]
    fired: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: fired.add(module)) for module in layers
    ]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return [module for module in layers if module in fired]


def fired_batch_norms(model: nn.Module, example: Tensor) -> list[nn.BatchNorm2d]:
    """The BatchNorm2d layers that take part in a forward pass: INFER matches their statistics.

    Args:
        model: any network.
        example: (B, C, H, W) float32, any B >= 1, as for `fired_layers`.
    """
    return fired_layers(model, example, nn.BatchNorm2d)
