"""Accuracy beside the score of the class order: whether the order matters (PoDD, section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillery.analyses.inputs import Result, needed
from distillery.errors import PlanError
from distillery.poster.order import score

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("order-accuracy",)
TRAITS = {"needs": ("distilled", "embeddings", "student"), "of": "poster"}


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """The accuracy of a student beside the score of the class order.

    Returns:
        value: the student's test accuracy, percent, last epoch.
        values, one row: score (`poster.order.score`), accuracy.

    Raises:
        PlanError: the set has no one order of all classes.
    """
    distilled = needed(inputs.distilled, "distilled")
    if "order" not in distilled or len(distilled["order"]) > 1:
        raise PlanError(
            f"analysis 'order-accuracy': method '{distilled.method}' has no one order; name a row "
            "of PoDD"
        )
    accuracy = job.input("student").metadata["accuracy"]["last"]
    distances = needed(inputs.distances, "embeddings").double()
    order_score = score(distilled["order"][0].long().cpu(), distances)
    return Result(accuracy, {"score": [order_score], "accuracy": [accuracy]})
