"""Train one student on a distilled set and test it on real data: one repeat of one cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from distillery import components
from distillery.data.images import load_images
from distillery.distilled import DistilledSet
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
    distilled, and label (stored labels) or teachers (dynamic labels). Returns accuracies in percent: `last` epoch (the headline),
    `best` epoch on the test set (a diagnostic), the curve. Raises ClassOrderError when set, data and teachers disagree.
    """
    data = job.inputs["data"]
    distilled = DistilledSet.load(job.inputs["distilled"].path)
    distilled.check_classes(data.facts["class_order"], f"data {data.id}")
    samples = Samples.from_instances(distilled.expand(job.device), distilled.mean, distilled.std, job.device)
    test = Samples.from_images(load_images(data, "test"), job.device, mean=distilled.mean, std=distilled.std)
    module, recipe = components.build("network", job.recipe["student"])
    channels, size, _ = data.facts["shape"]
    options = {"channels": channels, "size": size, "classes": len(distilled.classes)}
    student = initialise(lambda: module.build(job.recipe["student"]["name"], recipe, **options), job.seed("init")).to(
        job.device
    )
    loss, options = components.build("loss", job.recipe["loss"])
    training = read(Training, job.recipe["training"])
    history = train(
        student, samples, training, lambda z, t: loss.loss(z, t, options), job, test=test, labeller=_labeller(distilled, job)
    )
    return {"student": job.recipe["student"], "repeat": job.recipe["repeat"], "instances": len(samples), **history.facts()}


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
