"""How a student of a distilled set is trained: what a recipe's labels, loss, refinement and training say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillery.components import registry
from distillery.components.fields import read
from distillery.errors import PlanError
from distillery.sets.distilled import DistilledSet
from distillery.teacher.load import load_teachers
from distillery.training.loop import Labeller, Loss
from distillery.training.precision import lay_out
from distillery.training.recipe import Training

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.store.artefact import Artefact
    from distillery.store.job import Job


@dataclass(frozen=True)
class Protocol:
    """How a student is trained: the settings, what it minimises, and where the logits of a batch come from.

    seeds: of the random streams, where the labels were made for batches that the student must see again.
    """

    training: Training
    loss: Loss
    labeller: Labeller
    seeds: Mapping[str, int] | None


def protocol(distilled: DistilledSet, job: Job, own: Tensor | None) -> Protocol:
    """What `job.recipe` (labels, loss, refine, training) and `job.inputs` (distilled, and label or teachers) say about a
    student of `distilled`, whose instances have the soft labels `own`. The labeller gives the logits of all classes. Raises as
    `make` does."""
    training = read(Training, job.recipe["training"])
    return Protocol(training, _loss(job.recipe), **_labels(distilled, training, job, own))


def _loss(recipe: Mapping[str, Any]) -> Loss:
    """The loss of a recipe, of the refined target where the recipe refines."""
    loss, options = registry.build("loss", recipe["loss"])
    if "refine" not in recipe:
        return lambda logits, target: loss.loss(logits, target, options)
    kind, how = registry.build("refinement", recipe["refine"])
    return lambda logits, target: loss.loss(logits, kind.refine(target, how), options)


def _labels(
    distilled: DistilledSet, training: Training, job: Job, own: Tensor | None
) -> dict[str, Any]:
    """`labeller`, and `seeds` where the labels were made for batches that the student must see again."""
    kind, recipe = registry.build("label", job.recipe["labels"])
    stored, replays = job.find_input("label"), registry.trait(kind, "replays", ())
    if stored:
        distilled.check_classes(stored.metadata["class_order"], f"labels {stored.id}")
        _check_settings(stored, training, replays)
    constants = {"class_order": distilled.class_order, "mean": distilled.mean, "std": distilled.std}
    owner = f"distilled set {job.input('distilled').id}"
    teachers = load_teachers(job.inputs_of("teachers"), job.device, owner=owner, **constants)
    for teacher in teachers:
        lay_out(teacher.model, job.device, training.precision == "bf16")
    labeller = kind.labeller(recipe, stored=stored, teachers=teachers, device=job.device, own=own)
    return {"labeller": labeller, "seeds": kind.seeds(stored) if replays else None}


def _check_settings(stored: Artefact, training: Training, replays: Sequence[str]) -> None:
    _, made = registry.build("label", stored.recipe)
    for field in replays:
        ours, theirs = getattr(training, field), getattr(made, field)
        if ours != theirs:
            raise PlanError(
                f"training.{field} is {ours}, the labels {stored.id} were made for {theirs}: "
                f"give the label recipe the {field} of the training and plan again"
            )
