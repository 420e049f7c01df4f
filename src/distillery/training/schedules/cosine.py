"""Half a cosine, from 1 down to 0."""

from __future__ import annotations

import math

from distillery.training.recipe import Schedule

NAMES = ("cosine",)


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """(1 + cos(pi epoch / (stretch epochs))) / 2; `stretch` 2 ends at one half (RDED)."""
    return 0.5 * (1 + math.cos(math.pi * epoch / (schedule.stretch * epochs)))
