"""Stage `distill`: the distilled set of an experiment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distillery.plan.cell import Experiment
from distillery.plan.checks import (
    check_budget,
    check_method,
    check_norms,
    check_size,
    check_teachers,
)
from distillery.plan.context import Context
from distillery.plan.nodes import Node, NodeInputs
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.stage_plans.embed import plan_embeddings
from distillery.plan.stage_plans.streams import streams_of
from distillery.plan.stage_plans.teacher import plan_teachers
from distillery.plan.stage_plans.whiten import plan_whitening
from distillery.plan.types import Component, component

NOTHING = "none"  # of a whitening or an embedding: None would stand for the default
_STAGES = ("whiten", "embed", "distill")  # whose overrides change the set


def plan_distilled(experiment: Experiment, context: Context) -> Node:
    """The distilled set of an experiment.

    Raises:
        PlanError: the method or its recipe is wrong, it needs teachers and names none, or ipc does
            not fit the data set or the method.
    """
    row = experiment.row
    overrides = repr([row.override.get(stage) for stage in _STAGES])
    place = (experiment.dataset, experiment.ipc, experiment.student, experiment.draw)
    key = ("distill", *place, row.method, row.distill, overrides)
    return context.remember(key, lambda: _distilled(experiment, context))


def _distilled(experiment: Experiment, context: Context) -> Node:
    name, method = experiment.dataset, experiment.row.method
    recipe, network = resolve_method(experiment, context)
    expected = context.dataset(experiment).expected
    check_budget(experiment, recipe.reference, expected)
    check_method(recipe, experiment.ipc, expected)
    teachers = plan_teachers(recipe, name, context)
    check_norms(recipe, network, _networks(recipe, teachers))
    inputs = {
        "data": plan_data(name, context),
        **teachers,
        **_prepared(recipe, experiment, context),
    }
    return context.node(
        "distill",
        f"{name}-{method}-ipc{experiment.ipc:g}-d{experiment.draw}",
        {"method": recipe.reference, "ipc": experiment.ipc},
        inputs=inputs,
        code=[*recipe.modules, *([network.module] if network else [])],
        dataset=name,
        streams=streams_of(experiment, context),
    )


def _networks(method: Component, teachers: NodeInputs) -> dict[str, dict[str, Any]]:
    """The resolved network of each teacher, by the name that the method's recipe has for it."""
    nodes = teachers.get("teachers", [])
    found = nodes if isinstance(nodes, list) else [nodes]
    names = method.get("teachers") or ()
    return {name: node.spec.recipe["network"] for name, node in zip(names, found, strict=True)}


def resolve_method(experiment: Experiment, context: Context) -> tuple[Component, Component | None]:
    """The method of an experiment by its recipe, and its own network, if it has one.

    The network is an entry of `networks`, a component, or "student".

    Raises:
        PlanError: the method or its recipe is wrong, or it needs teachers and names none.
    """
    name = experiment.row.method
    values = context.recipe("distill", experiment.row.distill or name, experiment)
    settings, where = context.settings, values.where / "network"
    if isinstance(values.get("network"), str):
        alias = settings.alias(values["network"], experiment)
        values["network"] = reference = settings.network(alias, experiment.dataset, where)
        where = reference.where
    method = component("method", values | {"name": name}, values.where)
    check_teachers(method, values.where, name)
    if "network" not in method.reference:
        return method, None
    network = component("network", method.get("network"), where)
    check_size(network, context.dataset(experiment).expected)
    resolved = replace(method, reference=method.reference | {"network": network.reference})
    return resolved, network


def _prepared(method: Component, experiment: Experiment, context: Context) -> NodeInputs:
    """What a method asks for by its fields `whitening` and `embedding`, as input roles."""
    inputs: NodeInputs = {}
    if (whitening := method.get("whitening") or NOTHING) != NOTHING:
        inputs["whitening"] = plan_whitening(whitening, experiment, context)
    if (embedding := method.get("embedding") or NOTHING) != NOTHING:
        inputs["embeddings"] = plan_embeddings(embedding, experiment, context)
    return inputs


def plan_viewed_set(experiment: Experiment, context: Context) -> NodeInputs:
    """What it takes to look at the images of a set, as input roles: set, data and whitening.

    Raises:
        PlanError: the set cannot be planned.
    """
    distilled = plan_distilled(experiment, context)
    inputs: NodeInputs = {
        "data": plan_data(experiment.dataset, context),
        "distilled": distilled,
    }
    whitening = distilled.find_input("whitening")
    return inputs | ({"whitening": whitening} if whitening else {})
