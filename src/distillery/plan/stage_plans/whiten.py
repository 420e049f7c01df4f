"""Stage `whiten`: the whitening of a data set."""

from __future__ import annotations

from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.nodes import Node
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.types import torch_free_part, validated


def plan_whitening(name: str, experiment: Experiment, context: Context) -> Node:
    """The whitening of an experiment's data set by the block `whiten.<name>`.

    Raises:
        PlanError: there is no such block, or a field is wrong.
    """
    values = context.recipe("whiten", name, experiment)
    recipe_type = torch_free_part("distillery.stages.whiten").WhitenRecipe
    return context.node(
        "whiten",
        f"{experiment.dataset}-{name}",
        validated(recipe_type, values, values.where),
        inputs={"data": plan_data(experiment.dataset, context)},
        dataset=experiment.dataset,
    )
