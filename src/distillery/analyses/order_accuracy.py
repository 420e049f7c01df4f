"""Does the order of the classes on a poster matter: accuracy beside the order's score (PoDD, section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillery.analyses.inputs import Result
from distillery.errors import PlanError
from distillery.poster.order import score

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("order-accuracy",)
TRAITS = {"needs": ("distilled", "embeddings", "student")}


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """value: the student's test accuracy, percent, last epoch. values, one row: score (`poster.order.score`), accuracy. Raises
    PlanError for a set without one order of all classes."""
    distilled = inputs.distilled
    if "order" not in distilled or len(distilled["order"]) > 1:
        raise PlanError(
            f"analysis 'order-accuracy': method '{distilled.method}' has no one order; name a row of PoDD"
        )
    accuracy = job.input("student").metadata["accuracy"]["last"]
    return Result(
        accuracy,
        {
            "score": [score(distilled["order"][0].long().cpu(), inputs.distances.double())],
            "accuracy": [accuracy],
        },
    )
