"""What DD-Ranking's scores of an experiment compare its accuracy with."""

from __future__ import annotations

from dataclasses import replace

from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.nodes import Node
from distillery.plan.origins import Override
from distillery.plan.stage_plans.evaluate import plan_evaluations
from distillery.plan.stage_plans.teacher import plan_teacher
from distillery.plan.table_models import Row, RowLabels

HARD_LABELS = RowLabels(kind="hard", recipe="hard")


def plan_scores(
    experiment: Experiment, count: int, context: Context
) -> dict[str, tuple[Node, ...]]:
    """The artefacts that the scores need beside the evaluations of one draw (`table.scores`).

    Random images are a draw of the same number and ipc, under the same labels and protocol.

    Returns:
        By the name of the accuracy: "real_hard" the teacher of the student's network, "syn_hard"
        the set with hard labels, "rdm_any" random images, "syn_noaug" and "rdm_noaug" set and
        random images without augmentation.

    Raises:
        PlanError: a part cannot be planned, or the student's network has no teacher recipe: its
            accuracy on the real data is that teacher's.
    """
    random = replace(experiment, row=_with_random_images(experiment.row))
    compared = {
        "syn_hard": replace(experiment, row=_with_hard_labels(experiment.row)),
        "rdm_any": random,
        "syn_noaug": replace(experiment, augmented=False),
        "rdm_noaug": replace(random, augmented=False),
    }
    return {"real_hard": (_on_real_data(experiment, context),)} | {
        name: plan_evaluations(other, count, context) for name, other in compared.items()
    }


def _with_hard_labels(row: Row) -> Row:
    """The same set under hard labels and their protocol."""
    override = Override.of(row.override).restricted(["distill"])
    return row.model_copy(update={"labels": HARD_LABELS, "protocol": "hard", "override": override})


def _with_random_images(row: Row) -> Row:
    """Random images under the same labels and protocol."""
    override = Override.of(row.override).restricted(set(row.override) - {"distill"})
    return row.model_copy(update={"method": "random", "override": override})


def _on_real_data(experiment: Experiment, context: Context) -> Node:
    try:
        student, where = experiment.student_network, experiment.places.get("student")
        return plan_teacher(student, experiment.dataset, context, where)
    except PlanError as error:
        raise PlanError(
            f"scores need the accuracy of student '{experiment.student}' on the real data: {error}"
        ) from None
