"""Optimisers and learning-rate schedules of a recipe."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from distillery.components import registry
from distillery.training.recipe import Optimizer, Schedule


def build_optimizer(model: nn.Module, recipe: Optimizer) -> TorchOptimizer:
    """The optimiser over the parameters of `model` that require a gradient.

    They are in two groups: decayed by `weight_decay`, and not decayed.
    """
    trained = [p for p in model.parameters() if p.requires_grad]

    def decays(parameter: Tensor) -> bool:
        return recipe.decay == "all" or parameter.ndim >= 2

    groups = [
        {"params": [p for p in trained if decays(p)], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if not decays(p)], "weight_decay": 0.0},
    ]
    return registry.load("optimizer", recipe.name).build(recipe.name, groups, recipe)


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """The factor on the learning rate during `epoch` (0 .. epochs - 1), warm-up included."""
    warmup = schedule.warmup
    if epoch < warmup:
        return schedule.warmup_start + (1 - schedule.warmup_start) * epoch / warmup
    module = registry.load("schedule", schedule.name)
    return module.factor(schedule, epoch - warmup, epochs - warmup)


def set_rate(optimizer: TorchOptimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
