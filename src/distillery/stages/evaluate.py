"""Train one student on a distilled set and test it on real data: one of one setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distillery.components.registry import Reference
from distillery.data.images import load_images
from distillery.nets.network import build_network, save_network
from distillery.sets.load import load_set
from distillery.sets.sizes import sizes_of
from distillery.sets.whitening import matching_whitening
from distillery.store.files import STUDENT_WEIGHTS
from distillery.teacher.lineage import teachers_behind
from distillery.training.batches import steps_per_epoch
from distillery.training.loop import Accuracies, initialise, train
from distillery.training.protocol import StudentRecipe, evaluation_protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.store.job import Job


@dataclass(frozen=True)
class Evaluated:
    """What meta.json says about a student.

    Attributes:
        student: the network.
        instances: images that it was trained on.
        epochs: passes over them.
        steps: of the optimiser.
        accuracy: on the test split.
        loss: of the training, per epoch.
        sizes: of the data, the set and the stored labels (`sets.sizes`).
        teachers_behind: accuracies of the teachers that the number rests on (`teacher.lineage`).
    """

    student: Reference
    instances: int
    epochs: int
    steps: int
    accuracy: Accuracies
    loss: list[float]
    sizes: dict[str, Any]
    teachers_behind: dict[str, float]


def make(job: Job) -> dict[str, Any]:
    """Train a student, measure it on the test split and write student.safetensors.

    The test images are whitened where the instances are.

    Args:
        job: its recipe is a `StudentRecipe`. inputs: data, distilled, and label (stored labels) or
            teachers (dynamic labels); whitening where the instances are whitened.

    Returns:
        The fields of `Evaluated`.

    Raises:
        ClassOrderError: set, data and teachers disagree.
        ArtefactError: set and whitening disagree.
        PlanError: the stored labels are for batches of another training; names the field.
    """
    data, recipe = job.input("data"), StudentRecipe.of(job.recipe)
    distilled = load_set(job.input("distilled").path, data)
    distilled.check_classes(data.metadata["class_order"], f"data {data.id}")
    owner = f"distilled set {job.input('distilled').id}"
    whitening = matching_whitening(
        job.find_input("whitening"), distilled.whitening, owner, job.device
    )
    mean, std, instances = distilled.mean, distilled.std, distilled.expand(job.device)
    samples = Samples.from_instances(instances, mean, std, job.device)
    test = Samples.from_images(
        load_images(data, "test"), job.device, mean=mean, std=std, whitening=whitening
    )
    shape, classes = data.metadata["shape"], len(distilled.classes)
    student = initialise(
        lambda: build_network(recipe.student, shape, classes), job.seed("init")
    ).to(job.device)
    protocol = evaluation_protocol(distilled, job, instances.soft)
    history = train(
        student,
        samples,
        protocol.training,
        protocol.loss,
        job,
        test=test,
        labeller=protocol.labeller,
        seeds=protocol.seeds,
    )
    save_network(student, job.out / STUDENT_WEIGHTS)
    epochs = protocol.training.epochs
    return asdict(
        Evaluated(
            recipe.student,
            len(samples),
            epochs,
            epochs * steps_per_epoch(len(samples), protocol.training),
            history.accuracies,
            history.loss,
            sizes_of(job),
            teachers_behind(job),
        )
    )
