"""Optimisers and learning-rate schedules of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from distillery.training.recipe import Optimizer, Schedule

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, ("momentum", "nesterov")),
    "adam": (torch.optim.Adam, ("betas",)),
    "adamw": (torch.optim.AdamW, ("betas",)),
}
DECAYED = {"all": lambda parameter: True, "matrices": lambda parameter: parameter.ndim >= 2}


def build_optimizer(model: nn.Module, recipe: Optimizer) -> torch.optim.Optimizer:
    """The optimiser over the parameters of `model`, in two groups: decayed by `weight_decay`, and not decayed.

    Adam's decay is L2 (added to the gradient), AdamW's is decoupled.
    """
    kind, fields = OPTIMIZERS[recipe.name]
    decays, trained = DECAYED[recipe.decay], [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if decays(p)], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if not decays(p)], "weight_decay": 0.0},
    ]
    return kind(
        groups, lr=recipe.lr, fused=True, **{name: getattr(recipe, name) for name in fields}
    )


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """The factor on the learning rate during `epoch` (0 .. epochs - 1), as `Schedule` defines it."""
    warmup = schedule.warmup
    if epoch < warmup:
        return schedule.warmup_start + (1 - schedule.warmup_start) * epoch / warmup
    return SCHEDULES[schedule.name](schedule, epoch - warmup, epochs - warmup)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _cosine(schedule: Schedule, epoch: int, epochs: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * epoch / (schedule.stretch * epochs)))


def _multistep(schedule: Schedule, epoch: int, epochs: int) -> float:
    # A thousandth of an epoch of slack: 0.83333 in a recipe means 5/6.
    return schedule.gamma ** sum(
        epoch >= math.floor(m * epochs + 1e-3) for m in schedule.milestones
    )


SCHEDULES = {
    "cosine": _cosine,
    "multistep": _multistep,
    "constant": lambda schedule, epoch, epochs: 1.0,
}
