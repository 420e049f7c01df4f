"""The learning rate of the recipe throughout."""

from __future__ import annotations

from distillery.training.recipe import Schedule

NAMES = ("constant",)


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """1."""
    return 1.0
