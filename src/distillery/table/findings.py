"""What a reader of a table should know before believing it, in sentences for its foot.

Rows that are compared after different numbers of steps, trainings that were cut short, accuracy
that falls where it should rise, and methods that real images beat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from distillery.table.assemble import STILL_RISING, AssembledCell
from distillery.table.document import AxisValue, TableDocument
from distillery.table.stats import Summary

RISING = "†"
TEACHER_TOLERANCE = 2.0  # points below the printed accuracy that a teacher may have
RANDOM = "random"  # the method of real images that nobody chose

Place = tuple[AxisValue, ...]


def findings(document: TableDocument, cells: Sequence[AssembledCell]) -> list[str]:
    """The sentences that apply to the cells of a table."""
    return [
        *_steps(document, cells),
        *_rising(cells),
        *_falling(document, cells),
        *_below_random(document, cells),
        *_weak_teachers(cells),
    ]


def _steps(document: TableDocument, cells: Sequence[AssembledCell]) -> Iterator[str]:
    """Rows whose students took other numbers of steps than others at the same place."""
    at: dict[Place, set[int]] = {}
    rows: dict[str, set[int]] = {}
    for cell in cells:
        steps = {effort.steps for effort in cell.efforts}
        at.setdefault(_place(document, cell), set()).update(steps)
        rows.setdefault(cell.planned.row, set()).update(steps)
    if any(len(steps) > 1 for steps in at.values()):
        taken = "; ".join(f"{row} {_span(steps)}" for row, steps in rows.items() if steps)
        yield (
            "Rows at one place were trained for different numbers of steps, which a difference "
            f"between them may come from. Steps of the optimiser: {taken}."
        )


def _rising(cells: Sequence[AssembledCell]) -> Iterator[str]:
    trained = [cell for cell in cells if cell.efforts]
    rising = [cell for cell in trained if cell.levelled_off is False]
    unknown = sum(cell.levelled_off is None for cell in trained)
    if rising:
        rows = ", ".join(dict.fromkeys(cell.planned.row for cell in rising))
        yield (
            f"{RISING}: the training had not levelled off ({len(rising)} of {len(trained)} cells: "
            f"{rows}): over its last quarter the test accuracy still rose by more "
            f"than {STILL_RISING:g} point (column rise; a learning rate that falls within it adds "
            "to that), so longer training may change the number."
        )
    if unknown:
        yield (
            f"Whether training had levelled off is not known of {unknown} of {len(trained)} cells: "
            "no epoch of the second or third quarter was tested (test_every)."
        )


def _falling(document: TableDocument, cells: Sequence[AssembledCell]) -> Iterator[str]:
    """Rows whose accuracy falls with more images per class, beyond the spread of both."""
    if document.analysis:
        return
    curves: dict[Place, list[tuple[float, Summary]]] = {}
    for cell in cells:
        if cell.measured:
            key = (cell.planned.row, *_place(document, cell, without="ipc"))
            curves.setdefault(key, []).append((cell.planned.place.ipc, cell.measured))
    for (row, *place), curve in curves.items():
        curve.sort(key=lambda point: point[0])
        for (fewer, a), (more, b) in pairwise(curve):
            if fewer < more and a.mean - b.mean > _spread(a) + _spread(b):
                where = ", ".join(str(value) for value in place)
                yield (
                    f"{row} ({where}): accuracy falls from {a.mean:.{document.digits}f} at ipc "
                    f"{fewer:g} to {b.mean:.{document.digits}f} at ipc {more:g}, beyond the spread."
                )


def _below_random(document: TableDocument, cells: Sequence[AssembledCell]) -> Iterator[str]:
    """Methods that as many random real images with the same labels and protocol beat."""
    if document.analysis:
        return

    def key(cell: AssembledCell) -> Place:
        planned = cell.planned
        return (planned.labels, planned.protocol, *_place(document, cell))

    random = {
        key(cell): cell.measured
        for cell in cells
        if cell.measured and cell.planned.method == RANDOM and not cell.planned.variant
    }
    below: dict[str, list[str]] = {}
    for cell in cells:
        other = random.get(key(cell))
        if cell.measured is None or other is None or cell.planned.method == RANDOM:
            continue
        if other.mean - cell.measured.mean > _spread(other) + _spread(cell.measured):
            place = ", ".join(str(value) for value in _place(document, cell))
            below.setdefault(cell.planned.row, []).append(place)
    for row, places in below.items():
        yield (
            f"{row} is below random real images with the same labels and protocol, beyond the "
            f"spread, at: {'; '.join(places)}."
        )


def _weak_teachers(cells: Sequence[AssembledCell]) -> Iterator[str]:
    """Teachers further below their printed accuracy than is tolerated."""
    for teacher, accuracy in dict.fromkeys(one for cell in cells for one in cell.teachers):
        if teacher.accuracy - accuracy > TEACHER_TOLERANCE:
            yield (
                f"The teacher {teacher.name} has {accuracy:.1f} %, more than "
                f"{TEACHER_TOLERANCE:g} points below the printed {teacher.accuracy!r} %: what it "
                "labels or makes may be worse than the paper's."
            )


def _place(document: TableDocument, cell: AssembledCell, without: str = "") -> Place:
    axes = [document.shape.panel, *document.shape.columns]
    return tuple(cell.planned.place.at(axis) for axis in axes if axis != without)


def _spread(measured: Summary) -> float:
    return measured.std or 0.0


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
