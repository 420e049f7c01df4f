"""Budgets that are not those of a row's place and protocol: all images, equal bytes or steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.checks import instances
from distillery.plan.context import Context
from distillery.plan.models import Expected
from distillery.plan.stage_plans.distill import resolve_method
from distillery.plan.stage_plans.label import resolve_labels
from distillery.plan.stage_plans.protocol import resolve_protocol
from distillery.plan.types import recipe_object, traits
from distillery.training.recipe import batch_size


def budgeted(experiment: Experiment, context: Context) -> Experiment:
    """The experiment with the ipc that its row takes at this place.

    Raises:
        PlanError: the row counts bytes, and what it stores is not known or does not fit.
    """
    expected = context.dataset(experiment).expected
    if expected and traits("method", experiment.row.method).whole_data:
        return _with_ipc(experiment, expected.train, expected.classes)
    if experiment.row.budget == "bytes":
        return _within_bytes(experiment, context, expected)
    return experiment


def with_steps_of(other: Experiment, experiment: Experiment, context: Context) -> Experiment:
    """The experiment with the epochs that come nearest to the steps of another one's students.

    Raises:
        PlanError: the data set's classes are not known, on which the numbers of images depend.
    """
    steps, _ = _steps(other, context)
    _, each = _steps(experiment, context)
    return replace(experiment, epochs=max(1, round(steps / each)))


def _steps(experiment: Experiment, context: Context) -> tuple[int, int]:
    """Steps of the optimiser of a student, in all and per epoch."""
    expected = context.dataset(experiment).expected
    if expected is None:
        start = f"{experiment.row_place} on '{experiment.dataset}': steps_as"
        raise PlanError(f"{start}: the data set needs `expected`, which says how many classes")
    method, _ = resolve_method(experiment, context)
    training = resolve_protocol(experiment, context).training
    count = round(instances(method.reference, experiment.ipc, expected.classes))
    batch = batch_size(count, training["batch"], training.get("batch_up_to"))
    each = count // batch + (count % batch > (1 if count > batch else 0))
    return each * training["epochs"], each


def _within_bytes(
    experiment: Experiment, context: Context, expected: Expected | None
) -> Experiment:
    """The largest set whose images and labels take no more bytes than ipc images per class."""
    start = f"{experiment.row_place} on '{experiment.dataset}': budget: bytes"
    if expected is None:
        raise PlanError(f"{start}: the data set needs `expected`, which says how large images are")
    budget = experiment.ipc * expected.classes * prod(expected.shape)
    fractions = traits("method", experiment.row.method).fractional_ipc
    steps = expected.classes if fractions else 1

    def stored(count: int) -> float:
        return _stored(_with_ipc(experiment, count, steps), context, expected)

    most = bisect_right(range(1, int(experiment.ipc * steps) + 1), budget, key=stored)
    if most == 0:
        raise PlanError(
            f"{start}: takes {stored(1):.0f} bytes at ipc {1 / steps:g}, more than the "
            f"{budget:.0f} of ipc {experiment.ipc:g}; leave that ipc out"
        )
    return _with_ipc(experiment, most, steps)


def _stored(experiment: Experiment, context: Context, expected: Expected) -> float:
    """Bytes of the set and of its stored labels."""
    method, _ = resolve_method(experiment, context)
    labels = resolve_labels(experiment, context).reference
    ipc, classes = experiment.ipc, expected.classes
    held = recipe_object("method", method.reference)
    images = (
        held.stored_bytes(ipc, classes, prod(expected.shape))
        if hasattr(held, "stored_bytes")
        else ipc * classes * prod(expected.shape)
    )
    count = instances(method.reference, ipc, classes)
    return float(images) + _label_bytes(labels, count, classes, experiment)


def _label_bytes(
    labels: Mapping[str, Any], count: float, classes: int, experiment: Experiment
) -> float:
    if not traits("label", labels["name"]).stored:
        return 0.0
    recipe = recipe_object("label", labels)
    if not hasattr(recipe, "stored_bytes"):
        raise PlanError(
            f"{experiment.row_place}: labels '{labels['name']}' do not say how many bytes they "
            "take (Recipe.stored_bytes); use hard, static, or labels of the set"
        )
    return float(recipe.stored_bytes(count, classes))


def _with_ipc(experiment: Experiment, count: int, steps: int) -> Experiment:
    """Of count / steps images per class, as a whole number where it is one."""
    whole = count % steps == 0
    return replace(experiment, ipc=count // steps if whole else count / steps)
