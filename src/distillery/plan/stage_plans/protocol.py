"""How the students of an experiment are trained: the block of `evaluate` that its row names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distillery.plan.cell import Experiment
from distillery.plan.checks import check_keys, check_mix, check_sides
from distillery.plan.context import Context
from distillery.plan.origins import Where
from distillery.plan.types import Component, component, named_modules, validated
from distillery.training.recipe import Training


@dataclass(frozen=True)
class Protocol:
    """A resolved evaluation protocol.

    Attributes:
        where: the place of its block, for errors.
        loss: of the students.
        refinement: of the labels, where its block has one.
        training: the fields of `Training` as JSON.
    """

    where: Where
    loss: Component
    refinement: Component | None
    training: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        """Its part of the recipe of an evaluation."""
        refine = {"refine": self.refinement.reference} if self.refinement else {}
        return {"loss": self.loss.reference, **refine, "training": self.training}

    @property
    def modules(self) -> list[str]:
        """The modules of its components."""
        refinement = self.refinement.modules if self.refinement else []
        return [*self.loss.modules, *refinement, *named_modules(Training, self.training)]


def resolve_protocol(experiment: Experiment, context: Context) -> Protocol:
    """The protocol of an experiment.

    Raises:
        PlanError: there is no such block, it has an unknown key, a field is wrong, or it mixes
            images and its loss is not defined for them, or crops more than they are large.
    """
    block = experiment.row.evaluation
    values = context.recipe("evaluate", block, experiment)
    where = values.where
    check_keys(values, ("loss", "refine", "training"), where)
    training = validated(Training, values.get("training", {}), where / "training")
    expected = context.settings.dataset(experiment.dataset).expected
    check_sides(training, expected, where / "training")
    if not experiment.augmented:
        training["augment"] = []
    if experiment.epochs:
        _set_epochs(training, experiment.epochs)
    loss = component("loss", values.get("loss"), where / "loss")
    check_mix(loss, training, where)
    refine = values.get("refine")
    refinement = None if refine is None else component("refinement", refine, where / "refine")
    return Protocol(where, loss, refinement, training)


def _set_epochs(training: dict[str, Any], epochs: int) -> None:
    """Train for so many epochs, and test as often in all as before."""
    tests = max(1, training["epochs"] // training["test_every"])
    training |= {"epochs": epochs, "test_every": max(1, epochs // tests)}
