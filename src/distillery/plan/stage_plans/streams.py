"""What the random streams of a job follow from: common random numbers for the rows of a table."""

from __future__ import annotations

from typing import Any

from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.stage_plans.data import plan_data


def streams_of(
    experiment: Experiment, context: Context, student: int | None = None
) -> dict[str, Any]:
    """Data set, images per class, number of the draw and, where given, of the student.

    The method and its recipe are left out: two rows that draw for the same purpose (natural
    images, initial pixels, batches, initial weights) draw the same, and differ in what they do
    with it alone.
    """
    numbers = {"ipc": experiment.ipc, "draw": experiment.draw}
    numbers |= {} if student is None else {"student": student}
    return {"data": plan_data(experiment.dataset, context).key, **numbers}
