"""Train one student on a distilled set and test it on real data: one repeat of one cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from distillery import components
from distillery.data.images import load_images
from distillery.distilled import DistilledSet
from distillery.network import build_network
from distillery.recipe import read
from distillery.teacher.load import load_teachers
from distillery.training.loop import initialise, train
from distillery.training.recipe import Training
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.job import Job


def make(job: Job) -> dict[str, Any]:
    """Train the student of `job.recipe` and measure it on the test split.

    recipe: student, labels and loss (component references), training (a Training), repeat (enters the seeds). inputs: data,
    distilled, and label (stored labels) or teachers (dynamic labels). Returns accuracies in percent: `last` epoch (the
    headline), `best` epoch on the test set (a diagnostic), the curve. Raises ClassOrderError when set, data and teachers
    disagree.
    """
    data, recipe = job.inputs["data"], job.recipe
    distilled = DistilledSet.load(job.inputs["distilled"].path)
    distilled.check_classes(data.facts["class_order"], f"data {data.id}")
    constants = {"mean": distilled.mean, "std": distilled.std}
    samples = Samples.from_instances(distilled.expand(job.device), device=job.device, **constants)
    test = Samples.from_images(load_images(data, "test"), job.device, **constants)
    shape, classes = data.facts["shape"], len(distilled.classes)
    student = initialise(lambda: build_network(recipe["student"], shape, classes), job.seed("init")).to(job.device)
    loss, options = components.build("loss", recipe["loss"])
    history = train(
        student,
        samples,
        read(Training, recipe["training"]),
        lambda logits, target: loss.loss(logits, target, options),
        job,
        test=test,
        labeller=_labeller(distilled, job),
    )
    return {"student": recipe["student"], "repeat": recipe["repeat"], "instances": len(samples), **history.facts()}


def _labeller(distilled: DistilledSet, job: Job) -> Callable:
    stored = None
    if "label" in job.inputs:
        label = job.inputs["label"]
        distilled.check_classes(label.facts["class_order"], f"labels {label.id}")
        stored = load_file(label.file("labels.safetensors"))["logits"].to(job.device)
    constants = {"class_order": distilled.class_order, "mean": distilled.mean, "std": distilled.std}
    teachers = load_teachers(
        job.inputs.get("teachers", []), job.device, owner=f"distilled set {job.inputs['distilled'].id}", **constants
    )
    kind, recipe = components.build("label", job.recipe["labels"])
    return kind.labeller(recipe, stored=stored, teachers=teachers)
