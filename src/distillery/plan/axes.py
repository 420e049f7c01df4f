"""The axes of a table: the places that they span, and the paper's places that these stand for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillery.errors import PlanError, nearest
from distillery.plan.model_types import Axis
from distillery.plan.origins import Where, below

NAMED = ("dataset", "student")  # axes whose values are names
MOST_IPC = 10**7  # images per class: more can only be a mistake
GridPlace = dict[str, Any]  # axis -> value


def grid(axes: Mapping[str, Axis], order: Sequence[str], where: Where | str) -> list[GridPlace]:
    """All places of a table, panel by panel.

    Args:
        axes: by name the values, or the values for each value of the panel `order[0]`, whose own
            are a list.
        order: names of the axes; the last one varies fastest.
        where: file and key of the axes, for errors.

    Raises:
        PlanError: an axis has no values, a wrong one, or one twice, or the panel has no list.
    """
    return list(_places(axes, order, where))


def _places(
    axes: Mapping[str, Axis], order: Sequence[str], where: Where | str
) -> Iterator[GridPlace]:
    panels = axes[order[0]]
    if isinstance(panels, Mapping):
        raise PlanError(
            f"{below(where, order[0])}: is the panel of its table, whose values are one list; the "
            "other axes may have values for each of them"
        )
    check_axis(panels, order[0], where)
    for panel in panels:
        values = [[panel], *(on_panel(axes[axis], panel, below(where, axis)) for axis in order[1:])]
        for axis, found in zip(order, values, strict=True):
            check_axis(found, axis, where, panel if isinstance(axes[axis], Mapping) else None)
        for place in itertools.product(*values):
            yield dict(zip(order, place, strict=True))


def on_panel(axis: Axis, panel: Any, where: Where | str) -> list[Any]:
    """The values of an axis on a panel.

    Raises:
        PlanError: the axis has values of its own for each panel, and none for this one.
    """
    if not isinstance(axis, Mapping):
        return axis
    if panel not in axis:
        raise PlanError(f"{where}: has no values for '{panel}': {nearest(str(panel), axis)}")
    return axis[panel]


def counterpart(
    place: GridPlace,
    axes: Mapping[str, Axis],
    paper: Mapping[str, Axis],
    order: Sequence[str],
    where: str = "paper",
) -> GridPlace | None:
    """The paper's place that a place of a scale stands for.

    A value that the paper has too stands for itself. Another one stands for the paper's value with
    the same index on the axis.

    Args:
        place: of the scale.
        axes: of the scale.
        paper: axes of the paper.
        order: names of the axes, the panel first.
        where: file and key of the paper's axes, for errors.

    Returns:
        The paper's place; None where its axis is shorter, or the table has no axes of the paper.
    """
    found: GridPlace = {}
    for axis in order:
        if axis not in paper:
            return None
        ours = on_panel(axes[axis], place[order[0]], axis)
        theirs = on_panel(paper[axis], found.get(order[0]), below(where, axis))
        index = theirs.index(place[axis]) if place[axis] in theirs else ours.index(place[axis])
        if index >= len(theirs):
            return None
        found[axis] = theirs[index]
    return found


def check_axis(values: Sequence[Any], axis: str, where: Where | str, panel: Any = None) -> None:
    """Refuse an axis without values, with a value of a wrong type, or with one twice.

    Args:
        values: of the axis.
        axis: its name.
        where: file and key of the axes, for errors.
        panel: whose own values they are; None: everyone's.

    Raises:
        PlanError: it is so.
    """
    place = below(where, axis, *([] if panel is None else [panel]))
    for value in values:
        if axis in NAMED and not isinstance(value, str):
            raise PlanError(f"{place}: {value!r} is no name")
        if axis == "ipc" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PlanError(f"{place}: {value!r} is no number")
        if axis == "ipc" and not abs(value) < MOST_IPC:  # what is not above 0 is said with its row
            raise PlanError(f"{place}: {value!r} images per class: must be below {MOST_IPC}")
    if len(set(values)) < max(len(values), 1):
        raise PlanError(f"{place} = {values!r}: needs at least one value, and each only once")
