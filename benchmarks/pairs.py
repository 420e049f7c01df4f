"""Compare ways of doing the same work in one process, in turns.

Other jobs may share the machine: their load falls on all sides of a round alike, so that the median
over rounds of the ratios within a round hardly depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def in_turns(
    sides: Mapping[str, tuple[Callable[[], object], float]], rounds: int
) -> list[dict[str, float | str]]:
    """Time each side once a round, after one call of each that does not count.

    Args:
        sides: by name a function and the units of work that a call of it does; ratios are to the
            first side.
        rounds: how many; each begins with another side.

    Returns:
        For each side its name, and over the rounds the medians per unit of its CPU seconds (`cpu`),
        wall seconds (`wall`) and of the ratio of its CPU seconds to the first side's (`ratio`),
        with the least and the largest of these ratios (`lowest`, `highest`).
    """
    names = list(sides)
    for run, _ in sides.values():
        run()
    found: list[dict[str, tuple[float, float]]] = []
    for first in range(rounds):
        turn = names[first % len(names) :] + names[: first % len(names)]
        found.append({name: _timed(*sides[name]) for name in turn})
    rows: list[dict[str, float | str]] = []
    for name in names:
        ratios = [times[name][0] / times[names[0]][0] for times in found]
        cpu, wall = (median(times[name][clock] for times in found) for clock in (0, 1))
        rows.append(
            {"side": name, "cpu": cpu, "wall": wall, "ratio": median(ratios)}
            | {"lowest": min(ratios), "highest": max(ratios)}
        )
    return rows


def _timed(run: Callable[[], object], units: float) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return (time.process_time() - cpu) / units, (time.perf_counter() - wall) / units
