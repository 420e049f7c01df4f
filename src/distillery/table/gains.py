"""The gain of a row over another one of its table, place by place: is it more than chance?

A gain is tested over draws of the set. With one draw there is no test: the spread over students of
one set says nothing of another set, whatever the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distillery.table.document import DocumentCell, TableDocument
from distillery.table.stats import corrected, draw_means, paired, summarize, welch

PAIRED, WELCH = "paired t", "Welch"
LEVEL = 0.05  # of the corrected p, below which a gain has a star

Draws = Sequence[Sequence[float]]  # for each draw of the set the values of its students


@dataclass(frozen=True)
class Gain:
    """A difference of means at one place.

    Attributes:
        against: the row that is compared with.
        difference: mean of the row - mean of the other one.
        test: "paired t" over draws, which both sides share; "Welch" where their numbers differ;
            None: there was nothing to test.
        p: two-sided; None without a test.
        q: p corrected for the number of tests of the table.
    """

    against: str
    difference: float
    test: str | None = None
    p: float | None = None
    q: float | None = None

    @property
    def starred(self) -> bool:
        """Whether it is taken for more than chance."""
        return self.q is not None and self.q < LEVEL


def gains(document: TableDocument, values: Callable[[DocumentCell], Draws]) -> list[Gain | None]:
    """The gain of each cell, in the order of the document.

    Args:
        document: the plan of a table.
        values: of a cell, by draw; none where nothing was measured.

    Returns:
        None for a cell without `against`, and where either side was not measured. The other row
        is looked up at `against_at`.

    Raises:
        PlanError: a cell lacks an axis of the table.
    """
    axes = [document.shape.panel, *document.shape.columns]
    keyed = [(tuple(cell.place.at(axis) for axis in axes), cell) for cell in document.cells]
    measured = {(cell.row, *place): values(cell) for place, cell in keyed}

    def other(cell: DocumentCell) -> Draws:
        place = (cell.against_at.get(axis, cell.place.at(axis)) for axis in axes)
        return measured.get((cell.against or "", *place), ())

    found = [
        _gain(cell.against, measured[cell.row, *place], other(cell)) if cell.against else None
        for place, cell in keyed
    ]
    p_values = [gain.p for gain in found if gain and gain.p is not None]
    q_values = iter(corrected(p_values))
    return [
        replace(gain, q=next(q_values)) if gain and gain.p is not None else gain for gain in found
    ]


def _gain(against: str, ours: Draws, theirs: Draws) -> Gain | None:
    if not ours or not theirs:
        return None
    gain = Gain(against, summarize(ours).mean - summarize(theirs).mean)
    if min(len(ours), len(theirs)) < 2:
        return gain
    a, b = draw_means(ours), draw_means(theirs)
    if len(a) == len(b):
        p = paired(a, b)
        return gain if p is None else replace(gain, test=PAIRED, p=p)
    if len(set(a)) == len(set(b)) == 1:
        return gain
    return replace(gain, test=WELCH, p=welch(a, b).p)
