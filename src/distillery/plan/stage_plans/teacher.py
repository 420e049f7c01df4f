"""Stage `teacher`: a network trained on the data set, or loaded."""

from __future__ import annotations

from typing import Any

from distillery.errors import PlanError, shown
from distillery.plan.checks import check_keys, check_sides, check_size
from distillery.plan.context import Context
from distillery.plan.library_names import check_weights
from distillery.plan.models import Dataset
from distillery.plan.nodes import Node, NodeInputs
from distillery.plan.origins import Where, below
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.types import Component, component, named_modules, validated
from distillery.training.recipe import Training


def resolve_network(
    name: str, dataset: str, context: Context, where: Where | str | None = None
) -> Component:
    """The network `name` (an entry of `networks`, or a component) on a data set.

    Args:
        name: of the network.
        dataset: a name of the scale.
        context: of the plan.
        where: the place that names it, for errors.

    Raises:
        PlanError: there is no such network, a field is wrong, or it does not fit the images.
    """
    reference = context.settings.network(name, dataset, where)
    network = component("network", reference, reference.where)
    check_size(network, context.settings.dataset(dataset).expected)
    return network


def plan_teacher(
    name: str, dataset: str, context: Context, where: Where | str | None = None
) -> Node:
    """The teacher with the network `name` (an entry of `networks`, or a component) on a data set.

    Args:
        name: of the network.
        dataset: a name of the scale.
        context: of the plan.
        where: the place that names it, for errors.

    Raises:
        PlanError: there is no such network, the scale has no teacher recipe for it, or a field is
            wrong.
    """
    key = ("teacher", name, dataset)
    return context.remember(key, lambda: _teacher(name, dataset, context, where))


def _teacher(name: str, dataset: str, context: Context, named: Where | str | None) -> Node:
    network = resolve_network(name, dataset, context, named)
    values = context.settings.recipe("teacher", name, dataset, {}, asked_by=str(named or ""))
    where = values.where
    check_keys(values, ("loss", "training", "weights"), where)
    recipe, code = {"network": network.reference, "training": None, "loss": None}, [network.module]
    recipe["weights"] = weights = values.get("weights")
    if weights:
        _check_weights(weights, network.name, context.settings.dataset(dataset), where / "weights")
    else:
        training = validated(Training, values.get("training", {}), where / "training")
        check_sides(training, context.settings.dataset(dataset).expected, where / "training")
        loss = component("loss", values.get("loss", "ce"), where / "loss")
        recipe |= {"training": training, "loss": loss.reference}
        code += [loss.module, *named_modules(Training, training)]
    data = plan_data(dataset, context)
    return context.node(
        "teacher",
        f"{dataset}-{name}",
        recipe,
        inputs={"data": data},
        code=code,
        dataset=dataset,
        # Networks of an ensemble start apart; another recipe of the same network starts alike.
        streams={"data": data.key, "network": network.reference},
    )


def _check_weights(weights: Any, network: str, dataset: Dataset, where: Where) -> None:
    if not isinstance(weights, str):
        raise PlanError(f"{where} = {weights!r}: expected the name of torchvision's weights")
    try:
        check_weights(weights, network, dataset.expected.classes if dataset.expected else None)
    except PlanError as error:
        raise PlanError(f"{where} = '{weights}': {error}") from None


def plan_teachers(asking: Component, dataset: str, context: Context) -> NodeInputs:
    """The teachers that a recipe names in its field `teachers`, as an input role.

    Args:
        asking: a method, a kind of labels, embeddings or an analysis.
        dataset: the data set that they are trained on.
        context: of the plan.

    Returns:
        The list of nodes below "teachers"; empty where the recipe names none.

    Raises:
        PlanError: one of them cannot be planned.
    """
    names = asking.get("teachers") or []
    if not names:
        return {}
    where = None if isinstance(asking.where, str) else asking.where / "teachers"
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise PlanError(
            f"{below(asking.where, 'teachers')} = {shown(names)}: has '{twice}' twice, which would "
            "count double; keep one of them"
        )
    return {"teachers": [plan_teacher(name, dataset, context, where) for name in names]}
