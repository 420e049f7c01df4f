"""Stage `analyse`: what an analysis finds in a distilled set or in its students."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.checks import check_analysed, check_pixels, check_teachers, instances
from distillery.plan.context import Context
from distillery.plan.nodes import Node, NodeInputs
from distillery.plan.stage_plans.distill import plan_distilled, plan_viewed_set
from distillery.plan.stage_plans.evaluate import plan_evaluations, resolve_students
from distillery.plan.stage_plans.label import plan_labels, resolve_labels
from distillery.plan.stage_plans.streams import streams_of
from distillery.plan.stage_plans.teacher import plan_teachers, resolve_network
from distillery.plan.types import Component, component, traits


@dataclass(frozen=True)
class Analysed:
    """What an analysis looks at.

    Attributes:
        recipe: of its artefact, without the analysis.
        inputs: of its job, without a student.
        modules: of the components, without those of the analysis.
    """

    recipe: dict[str, Any]
    inputs: NodeInputs
    modules: list[str]


def plan_analyses(
    name: str, experiment: Experiment, count: int, context: Context
) -> tuple[Node, ...]:
    """What the analysis `name` finds in one draw of an experiment's set.

    Returns:
        - one artefact for an analysis of the distilled set;
        - `count` where it looks at each student of the experiment;
        - `count` where it trains students itself, as the protocol says.

    Raises:
        PlanError: the analysis or a part of the experiment is wrong, or they do not fit each other.
    """
    needs, analysis = traits("analysis", name).needs, _resolve_analysis(name, experiment, context)
    if "protocol" in needs:
        analysed = _training_protocol(name, experiment, context)
    else:
        analysed = _looked_at(analysis, needs, experiment, context)
    recipe = {"analysis": analysis.reference} | analysed.recipe
    code = [*analysed.modules, *analysis.modules]
    method, dataset = experiment.row.method, experiment.dataset
    stem, draw = f"{dataset}-{name}-{method}-ipc{experiment.ipc:g}", f"-d{experiment.draw}"
    if not {"student", "protocol"} & set(needs):
        node = context.node(
            "analyse",
            stem + draw,
            recipe,
            inputs=analysed.inputs,
            code=code,
            dataset=dataset,
            streams=streams_of(experiment, context),
        )
        return (node,)
    stem += f"-{experiment.row.labels.kind}-{experiment.student}{draw}"
    own: list[NodeInputs] = [{} for _ in range(count)]
    if "student" in needs:
        own = [{"student": node} for node in plan_evaluations(experiment, count, context)]
    return tuple(
        context.node(
            "analyse",
            f"{stem}-s{student}",
            recipe,
            inputs=analysed.inputs | inputs,
            code=code,
            dataset=dataset,
            streams=streams_of(experiment, context, student),
        )
        for student, inputs in enumerate(own)
    )


def _resolve_analysis(name: str, experiment: Experiment, context: Context) -> Component:
    values = context.recipe("analyse", name, experiment)
    analysis = component("analysis", {"name": name} | values, values.where)
    check_teachers(analysis, values.where, name)
    _check_set(analysis, experiment, context)
    return analysis


def _check_set(analysis: Component, experiment: Experiment, context: Context) -> None:
    method = plan_distilled(experiment, context).spec.recipe["method"]
    expected = context.dataset(experiment).expected
    classes = expected.classes if expected else None
    count = instances(method, experiment.ipc, classes) / classes if classes else math.inf
    check_analysed(analysis, method, count, classes, experiment.row_place)


def _training_protocol(name: str, experiment: Experiment, context: Context) -> Analysed:
    """Of an analysis that trains students itself."""
    students = resolve_students(experiment, context)
    if traits("label", students.labels.name).replays:
        kind = students.labels.name
        raise PlanError(
            f"{experiment.row_place}: labels '{kind}' fit the batches of one training; "
            f"for {name} use static or dynamic"
        )
    return Analysed(students.recipe, students.inputs, students.modules)


def _looked_at(
    analysis: Component, needs: tuple[str, ...], experiment: Experiment, context: Context
) -> Analysed:
    """Of an analysis that trains nothing."""
    row, dataset = experiment.row, experiment.dataset
    with_labels, with_student = "label" in needs, "student" in needs
    labels = resolve_labels(experiment, context) if with_labels else None
    stored = plan_labels(experiment, context) if with_labels else None
    inputs = plan_viewed_set(experiment, context)
    inputs |= {"label": stored} if stored else {}
    inputs |= plan_teachers(analysis, dataset, context)
    check_pixels(
        analysis.reference, inputs, f"{experiment.row_place}: analysis '{analysis.name}' looks with"
    )
    if "embeddings" in needs:
        inputs["embeddings"] = _embeddings_of_set(analysis, experiment, context)
    recipe: dict[str, Any] = {"labels": labels.reference if labels else None}
    modules = [module_name("method", row.method), *([labels.module] if labels else [])]
    if with_student:
        where = experiment.places.get("student")
        student = resolve_network(experiment.student_network, dataset, context, where)
        recipe["student"] = student.reference
        modules.append(student.module)
    return Analysed(recipe, inputs, modules)


def _embeddings_of_set(analysis: Component, experiment: Experiment, context: Context) -> Node:
    found = plan_distilled(experiment, context).find_input("embeddings")
    if found is None:
        method = experiment.row.method
        raise PlanError(
            f"{experiment.row_place}: analysis '{analysis.name}' needs embeddings; "
            f"name some in distill.{method}.embedding"
        )
    return found
