"""A step down at each milestone."""

from __future__ import annotations

import math

from distillery.training.recipe import Schedule

NAMES = ("multistep",)


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """Times `gamma` from epoch floor(m epochs) on, for each m of `milestones`.

    A thousandth of an epoch of slack: 0.83333 in a recipe means 5/6.
    """
    passed = sum(epoch >= math.floor(m * epochs + 1e-3) for m in schedule.milestones)
    return schedule.gamma**passed
