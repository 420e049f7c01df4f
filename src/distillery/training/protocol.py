"""How a student of a distilled set is trained: labels, loss, refinement and training together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from distillery.components import registry
from distillery.components.fields import read
from distillery.components.registry import Reference
from distillery.errors import PlanError
from distillery.sets.distilled import DistilledSet
from distillery.teacher.load import load_teachers
from distillery.training.loop import Labeller, Loss
from distillery.training.precision import set_memory_format
from distillery.training.recipe import Training

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.components.contracts import (
        LabelModule,
        LossModule,
        RefinementModule,
        ReplayedLabelModule,
    )
    from distillery.store.artefact import Artefact
    from distillery.store.job import Job


@dataclass(frozen=True)
class StudentRecipe:
    """The recipe of students of a distilled set, those of an evaluation and of some analyses.

    Attributes:
        student: the network.
        labels: the kind of labels.
        loss: what is minimised.
        training: batches, optimiser, schedule, precision.
        refine: a refinement of the labels, or None.
    """

    student: Reference
    labels: Reference
    loss: Reference
    training: Training
    refine: Reference | None = None

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> StudentRecipe:
        """Read from the recipe of a job, whose other fields are passed over."""
        fields = {field.name for field in dataclasses.fields(cls)}
        return read(cls, {key: value for key, value in recipe.items() if key in fields})


@dataclass(frozen=True)
class EvaluationProtocol:
    """How a student is trained.

    Attributes:
        training: batches, optimiser, schedule, precision.
        loss: what the student minimises, of the refined target where the recipe refines.
        labeller: from a batch to the logits of all classes, or None.
        seeds: of the random streams, by role, where the labels were made for batches that the
            student must see again; None elsewhere.
    """

    training: Training
    loss: Loss
    labeller: Labeller
    seeds: Mapping[str, int] | None


def evaluation_protocol(
    distilled: DistilledSet, job: Job, set_labels: Tensor | None
) -> EvaluationProtocol:
    """What the recipe and the inputs of a job say about students of a distilled set.

    Args:
        distilled: the set.
        job: its recipe is a `StudentRecipe` and more; its inputs are distilled, and label (stored
            labels) or teachers (dynamic labels).
        set_labels: soft labels (N, classes) that the set itself stores with its instances, or None.

    Raises:
        ClassOrderError: set and teachers or labels disagree.
        PlanError: the stored labels are for batches of another training; names the field.
    """
    recipe = StudentRecipe.of(job.recipe)
    kind: LabelModule
    kind, label_recipe = registry.build("label", recipe.labels)
    stored, replays = job.find_input("label"), registry.trait(kind, "replays", ())
    if stored:
        distilled.check_classes(stored.metadata["class_order"], f"labels {stored.id}")
        _check_settings(stored, recipe.training, replays)
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=distilled.class_order,
        mean=distilled.mean,
        std=distilled.std,
        owner=f"distilled set {job.input('distilled').id}",
    )
    for teacher in teachers:
        set_memory_format(teacher.model, job.device, recipe.training.precision == "bf16")
    labeller = kind.labeller(
        label_recipe, stored=stored, teachers=teachers, device=job.device, set_labels=set_labels
    )
    seeds = cast("ReplayedLabelModule", kind).seeds(stored) if stored and replays else None
    return EvaluationProtocol(recipe.training, _loss(recipe), labeller, seeds)


def _loss(recipe: StudentRecipe) -> Loss:
    loss: LossModule
    loss, options = registry.build("loss", recipe.loss)
    if recipe.refine is None:
        return lambda logits, target: loss.loss(logits, target, options)
    refinement: RefinementModule
    refinement, refinement_recipe = registry.build("refinement", recipe.refine)
    return lambda logits, target: loss.loss(
        logits, refinement.refine(target, refinement_recipe), options
    )


def _check_settings(stored: Artefact, training: Training, replays: Sequence[str]) -> None:
    _, made = registry.build("label", stored.recipe)
    for field in replays:
        ours, theirs = getattr(training, field), getattr(made, field)
        if ours != theirs:
            raise PlanError(
                f"training.{field} is {ours}, the labels {stored.id} were made for {theirs}: "
                f"give the label recipe the {field} of the training and plan again"
            )
