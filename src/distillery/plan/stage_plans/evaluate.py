"""Stage `evaluate`: the students that are trained on a distilled set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distillery.components.registry import module_name
from distillery.plan.cell import Experiment
from distillery.plan.checks import check_soft
from distillery.plan.context import Context
from distillery.plan.nodes import Node, NodeInputs
from distillery.plan.stage_plans.distill import plan_viewed_set
from distillery.plan.stage_plans.label import plan_labels, resolve_labels
from distillery.plan.stage_plans.protocol import Protocol, resolve_protocol
from distillery.plan.stage_plans.streams import streams_of
from distillery.plan.stage_plans.teacher import plan_teachers, resolve_network
from distillery.plan.types import Component


@dataclass(frozen=True)
class Students:
    """How the students of an experiment are trained.

    Attributes:
        network: of the students.
        labels: of the set's images.
        protocol: loss, refinement and training.
        inputs: what a job that trains one reads.
        method: of the set, whose module gives the images.
    """

    network: Component
    labels: Component
    protocol: Protocol
    inputs: NodeInputs
    method: str

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of an evaluation."""
        parts = {"student": self.network.reference, "labels": self.labels.reference}
        return parts | self.protocol.recipe

    @property
    def modules(self) -> list[str]:
        """The modules of the components."""
        method = module_name("method", self.method)
        return [*self.network.modules, *self.labels.modules, *self.protocol.modules, method]


def resolve_students(experiment: Experiment, context: Context) -> Students:
    """How the students of an experiment are trained.

    Raises:
        PlanError: a part of it is wrong, or needs soft labels and there are none.
    """
    stored, labels = plan_labels(experiment, context), resolve_labels(experiment, context)
    student, where = experiment.student_network, experiment.places.get("student")
    network = resolve_network(student, experiment.dataset, context, where)
    protocol = resolve_protocol(experiment, context)
    check_soft(labels, protocol.loss, protocol.refinement, experiment.row.row, protocol.where)
    inputs = plan_viewed_set(experiment, context)
    if stored:
        inputs["label"] = stored
    else:
        inputs |= plan_teachers(labels, experiment.dataset, context)
    return Students(network, labels, protocol, inputs, experiment.row.method)


def plan_evaluations(experiment: Experiment, count: int, context: Context) -> tuple[Node, ...]:
    """The students of one draw of an experiment's set, `count` artefacts.

    Raises:
        PlanError: as `resolve_students` does.
    """
    students, row = resolve_students(experiment, context), experiment.row
    stem = f"{experiment.dataset}-{row.method}-ipc{experiment.ipc:g}"
    stem += f"-{students.labels.name}-{experiment.student}-d{experiment.draw}"
    return tuple(
        context.node(
            "evaluate",
            f"{stem}-s{student}",
            students.recipe,
            inputs=students.inputs,
            code=students.modules,
            dataset=experiment.dataset,
            streams=streams_of(experiment, context, student),
        )
        for student in range(count)
    )
