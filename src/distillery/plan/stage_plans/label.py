"""Stage `label`: the stored labels of a distilled set."""

from __future__ import annotations

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.checks import check_labels, check_pixels
from distillery.plan.context import Context
from distillery.plan.nodes import Node
from distillery.plan.stage_plans.distill import plan_distilled
from distillery.plan.stage_plans.protocol import resolve_protocol
from distillery.plan.stage_plans.streams import streams_of
from distillery.plan.stage_plans.teacher import plan_teachers
from distillery.plan.types import Component, component, traits

HARD = "hard"  # labels that need no block of their own


def resolve_labels(experiment: Experiment, context: Context) -> Component:
    """The labels of an experiment: a component named like their kind.

    Raises:
        PlanError: there is no such block, a field is wrong, its list of teachers is empty, or the
            distilled set cannot have such labels.
    """
    labels, block = experiment.row.labels, experiment.row.labels.recipe
    if block == HARD and block not in context.settings.scale.label:
        return component("label", HARD, "label.hard")
    values = context.recipe("label", block, experiment)
    replayed = traits("label", labels.kind).replays
    training = resolve_protocol(experiment, context).training if replayed else {}
    fields = {"name": labels.kind} | values | {key: training.get(key) for key in replayed}
    found = component("label", fields, values.where)
    if found.get("teachers") in ([], ()):
        where = values.where / "teachers"
        raise PlanError(f"{where}: is empty, '{block}' needs at least one teacher")
    _check_against_set(found, experiment, context)
    return found


def _check_against_set(labels: Component, experiment: Experiment, context: Context) -> None:
    distilled, row = plan_distilled(experiment, context), experiment.row_place
    block = experiment.row.distill or experiment.row.method
    recipe = context.recipe("distill", block, experiment).where
    check_labels(labels.name, distilled.spec.recipe["method"], row, recipe)
    what = f"{row}: labels '{labels.name}' are made by"
    check_pixels(labels.reference, distilled.inputs, what)


def plan_labels(experiment: Experiment, context: Context) -> Node | None:
    """The stored labels of an experiment, or None when their kind stores nothing (hard, dynamic).

    Raises:
        PlanError: as `resolve_labels` does.
    """
    labels = resolve_labels(experiment, context)
    if not traits("label", labels.name).stored:
        return None
    dataset, method = experiment.dataset, experiment.row.method
    return context.node(
        "label",
        f"{dataset}-{method}-ipc{experiment.ipc:g}-{labels.name}-d{experiment.draw}",
        labels.reference,
        inputs={
            "distilled": plan_distilled(experiment, context),
            **plan_teachers(labels, dataset, context),
        },
        code=[*labels.modules, module_name("method", method)],
        dataset=dataset,
        streams=streams_of(experiment, context),
    )
