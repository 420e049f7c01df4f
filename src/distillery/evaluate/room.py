"""Train one student on a distilled set and test it on real data: one repeat of one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillery import components
from distillery.data.images import load_images
from distillery.distilled import DistilledSet
from distillery.errors import PlanError
from distillery.network import build_network, save_network
from distillery.recipe import read
from distillery.teacher.load import load_teachers
from distillery.training.loop import Labeller, Loss, initialise, train
from distillery.training.precision import lay_out
from distillery.training.recipe import Training
from distillery.training.samples import Samples
from distillery.whitening import fitting

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.artefact import Artefact
    from distillery.job import Job

WEIGHTS = "student.safetensors"


@dataclass(frozen=True)
class Protocol:
    """How a student is trained: the settings, what it minimises, and where the logits of a batch come from.

    seeds: of the random streams, where the labels were made for batches that the student must see again.
    """

    training: Training
    loss: Loss
    labeller: Labeller
    seeds: Mapping[str, int] | None


def make(job: Job) -> dict[str, Any]:
    """Train the student of `job.recipe`, measure it on the test split and write student.safetensors.

    recipe: student, labels, loss, refine where the labels are refined (component references), training (a Training), repeat
    (enters the seeds). inputs: data, distilled, and label (stored labels) or teachers (dynamic labels); whitening where the
    instances are whitened, and the test images are too. Returns accuracies in percent: `last` epoch (the headline), `best`
    epoch on the test set (a diagnostic), the curve. Raises ClassOrderError when set, data and teachers disagree, ArtefactError
    when set and whitening do, PlanError, naming the field, when the stored labels are for batches of another training.
    """
    data, recipe = job.inputs["data"], job.recipe
    distilled = DistilledSet.load(job.inputs["distilled"].path)
    distilled.check_classes(data.facts["class_order"], f"data {data.id}")
    owner = f"distilled set {job.inputs['distilled'].id}"
    whitening = fitting(job.inputs.get("whitening"), distilled.whitening, owner, job.device)
    constants, instances = {"mean": distilled.mean, "std": distilled.std}, distilled.expand(job.device)
    samples = Samples.from_instances(instances, device=job.device, **constants)
    test = Samples.from_images(load_images(data, "test"), job.device, **constants, whitening=whitening)
    shape, classes = data.facts["shape"], len(distilled.classes)
    student = initialise(lambda: build_network(recipe["student"], shape, classes), job.seed("init")).to(job.device)
    how = protocol(distilled, job, instances.soft)
    history = train(student, samples, how.training, how.loss, job, test=test, labeller=how.labeller, seeds=how.seeds)
    save_network(student, job.out / WEIGHTS)
    return {"student": recipe["student"], "repeat": recipe["repeat"], "instances": len(samples), **history.facts()}


def protocol(distilled: DistilledSet, job: Job, own: Tensor | None) -> Protocol:
    """What `job.recipe` (labels, loss, refine, training) and `job.inputs` (distilled, and label or teachers) say about a
    student of `distilled`, whose instances have the soft labels `own`. The labeller gives the logits of all classes. Raises as
    `make` does."""
    training = read(Training, job.recipe["training"])
    return Protocol(training, _loss(job.recipe), **_labels(distilled, training, job, own))


def _loss(recipe: Mapping[str, Any]) -> Loss:
    """The loss of a recipe, of the refined target where the recipe refines."""
    loss, options = components.build("loss", recipe["loss"])
    if "refine" not in recipe:
        return lambda logits, target: loss.loss(logits, target, options)
    kind, how = components.build("refinement", recipe["refine"])
    return lambda logits, target: loss.loss(logits, kind.refine(target, how), options)


def _labels(distilled: DistilledSet, training: Training, job: Job, own: Tensor | None) -> dict[str, Any]:
    """`labeller`, and `seeds` where the labels were made for batches that the student must see again."""
    kind, recipe = components.build("label", job.recipe["labels"])
    stored, replays = job.inputs.get("label"), getattr(kind, "REPLAYS", ())
    if stored:
        distilled.check_classes(stored.facts["class_order"], f"labels {stored.id}")
        _check_settings(stored, training, replays)
    constants = {"class_order": distilled.class_order, "mean": distilled.mean, "std": distilled.std}
    owner = f"distilled set {job.inputs['distilled'].id}"
    teachers = load_teachers(job.inputs.get("teachers", []), job.device, owner=owner, **constants)
    for teacher in teachers:
        lay_out(teacher.model, job.device, training.precision == "bf16")
    labeller = kind.labeller(recipe, stored=stored, teachers=teachers, device=job.device, own=own)
    return {"labeller": labeller, "seeds": kind.seeds(stored) if replays else None}


def _check_settings(stored: Artefact, training: Training, replays: Sequence[str]) -> None:
    _, made = components.build("label", stored.recipe)
    for field in replays:
        ours, theirs = getattr(training, field), getattr(made, field)
        if ours != theirs:
            raise PlanError(
                f"training.{field} is {ours}, the labels {stored.id} were made for {theirs}: "
                f"give the label recipe the {field} of the training and plan again"
            )
