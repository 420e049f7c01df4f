"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

import torch

from distillery.training.recipe import Optimizer

NAMES = ("adamw",)


def build(name: str, groups: list[dict[str, Any]], recipe: Optimizer) -> torch.optim.Optimizer:
    """PyTorch's AdamW; reads lr and betas. Its weight decay is decoupled from the gradient."""
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
