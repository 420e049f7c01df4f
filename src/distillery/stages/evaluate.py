"""Train one student on a distilled set and test it on real data: one repeat of one cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillery.data.images import load_images
from distillery.nets.network import build_network, save_network
from distillery.sets.distilled import DistilledSet
from distillery.sets.whitening import fitting
from distillery.store.files import STUDENT_WEIGHTS
from distillery.training.loop import initialise, train
from distillery.training.protocol import protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Train the student of `job.recipe`, measure it on the test split and write student.safetensors.

    recipe: student, labels, loss, refine where the labels are refined (component references), training (a Training), repeat
    (enters the seeds). inputs: data, distilled, and label (stored labels) or teachers (dynamic labels); whitening where the
    instances are whitened, and the test images are too. Returns accuracies in percent: `last` epoch (the headline), `best`
    epoch on the test set (a diagnostic), the curve. Raises ClassOrderError when set, data and teachers disagree, ArtefactError
    when set and whitening do, PlanError, naming the field, when the stored labels are for batches of another training.
    """
    data, recipe = job.input("data"), job.recipe
    distilled = DistilledSet.load(job.input("distilled").path)
    distilled.check_classes(data.metadata["class_order"], f"data {data.id}")
    owner = f"distilled set {job.input('distilled').id}"
    whitening = fitting(job.find_input("whitening"), distilled.whitening, owner, job.device)
    constants, instances = (
        {"mean": distilled.mean, "std": distilled.std},
        distilled.expand(job.device),
    )
    samples = Samples.from_instances(instances, device=job.device, **constants)
    test = Samples.from_images(
        load_images(data, "test"), job.device, **constants, whitening=whitening
    )
    shape, classes = data.metadata["shape"], len(distilled.classes)
    student = initialise(
        lambda: build_network(recipe["student"], shape, classes), job.seed("init")
    ).to(job.device)
    how = protocol(distilled, job, instances.soft)
    history = train(
        student,
        samples,
        how.training,
        how.loss,
        job,
        test=test,
        labeller=how.labeller,
        seeds=how.seeds,
    )
    save_network(student, job.out / STUDENT_WEIGHTS)
    return {
        "student": recipe["student"],
        "repeat": recipe["repeat"],
        "instances": len(samples),
        **history.metadata(),
    }
