"""The label stage: make the soft labels that are stored with a distilled set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor

from distillery.components import registry
from distillery.errors import PlanError
from distillery.sets.distilled import DistilledSet
from distillery.sets.parts import Kind
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Let the label kind write its safetensors files, and return the metadata.

    A file with labels holds `logits` (N, classes), a row for each instance in the order of DistilledSet.expand(); a kind whose
    labels change from epoch to epoch writes a file per epoch. Inputs: distilled, teachers. Recipe: a label kind that stores
    labels. Raises PlanError for one that does not, ClassOrderError and TeacherError when a teacher does not fit the set.
    """
    kind, recipe = registry.build("label", job.recipe)
    if not registry.trait(kind, "stored", False):
        raise PlanError(
            f"label '{job.recipe['name']}' stores nothing: there is no label artefact to make"
        )
    distilled = DistilledSet.load(job.input("distilled").path)
    owner = f"distilled set {job.input('distilled').id}"
    constants = {"mean": distilled.mean, "std": distilled.std}
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=distilled.class_order,
        owner=owner,
        **constants,
    )
    instances = distilled.expand()
    kind.make(recipe, instances, teachers, job, **constants)
    return {
        "kind": job.recipe["name"],
        "instances": len(instances),
        "class_order": distilled.class_order,
        "teachers": [{"name": teacher.name, "accuracy": teacher.accuracy} for teacher in teachers],
        **_stored(job.out, instances.labels),
    }


def _stored(folder: Path, labels: Tensor) -> dict[str, Any]:
    """bytes, numbers: of each part over all files, the logits as `labels`. agreement: percent of the soft labels that put
    their instance's own class first."""
    parts, numbers, agreeing, count = Counter(), Counter(), 0, 0
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        named = {"labels" if name == "logits" else name: tensor for name, tensor in tensors.items()}
        parts.update({name: tensor.nbytes for name, tensor in named.items()})
        numbers.update({name: tensor.numel() for name, tensor in named.items()})
        if "logits" in tensors:
            agreeing += int((tensors["logits"].argmax(1) == labels).sum())
            count += len(labels)
    kinds = {name: Kind.SOFT_LABEL if name == "labels" else Kind.INDEX for name in parts}
    sizes = {
        "bytes": dict(sorted(parts.items())),
        "numbers": dict(sorted(numbers.items())),
        "kinds": kinds,
    }
    return {**sizes, "agreement": 100 * agreeing / count}
