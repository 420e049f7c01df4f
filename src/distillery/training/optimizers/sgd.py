"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import torch

from distillery.training.recipe import Optimizer

NAMES = ("sgd",)


def build(name: str, groups: list[dict[str, Any]], recipe: Optimizer) -> torch.optim.Optimizer:
    """PyTorch's SGD; reads lr, momentum and nesterov. Its weight decay is L2."""
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
    )
