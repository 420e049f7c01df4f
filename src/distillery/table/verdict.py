"""The verdict on a measured cell: within, above or below the printed value, or why none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distillery.table.assemble import AssembledCell

SDS = 2.0  # standard deviations of the difference
LEAST = (
    0.5  # points: a recipe's unstated details and rounding, where deviations are tiny or unknown
)
OTHER = "not comparable"
WITHIN, ABOVE, BELOW = "within", "above", "below"

STATED = (
    f"Verdict: within, if measured and printed differ by at most {SDS:g} × √(s² + p²) or "
    f"{LEAST:g} points, whichever is more (s: our standard deviation, p: the printed one; one "
    "that is missing counts as 0); else above or below. Where the setting is not the printed "
    "one there is no difference, and the verdict says why."
)


def tolerance(ours: float | None, printed: float | None) -> float:
    """How far a measured mean may lie from the printed one, in points.

    Args:
        ours: standard deviation over draws or students, percent; None: unknown.
        printed: the printed one, percent; None: none is printed.
    """
    return max(LEAST, SDS * math.hypot(ours or 0.0, printed or 0.0))


def verdict(cell: AssembledCell) -> str | None:
    """The verdict; None where nothing was measured or nothing is printed."""
    published, measured = cell.planned.published, cell.measured
    if published is None or measured is None:
        return None
    if cell.difference is None:
        unnamed = "another setting" if published.network_stated else "the paper names no network"
        return f"{OTHER}: {cell.planned.reason or unnamed}"
    allowed = tolerance(measured.std, published.std)
    if abs(cell.difference) <= allowed + 1e-9:  # both are decimal fractions
        return WITHIN
    return ABOVE if cell.difference > 0 else BELOW


def reasons(cells: Sequence[AssembledCell]) -> dict[str, str]:
    """The verdicts that are reasons, each once, with the number that stands for it in a grid."""
    found = [text for text in map(verdict, cells) if text and text.startswith(OTHER)]
    return {text: str(number) for number, text in enumerate(dict.fromkeys(found), 1)}
