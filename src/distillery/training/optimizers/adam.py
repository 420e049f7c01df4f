"""Adam."""

from __future__ import annotations

from typing import Any

import torch

from distillery.training.recipe import Optimizer

NAMES = ("adam",)


def build(name: str, groups: list[dict[str, Any]], recipe: Optimizer) -> torch.optim.Optimizer:
    """PyTorch's Adam; reads lr and betas. Its weight decay is L2: it is added to the gradient."""
    return torch.optim.Adam(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
