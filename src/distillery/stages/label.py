"""The label stage: make the soft labels that are stored with a distilled set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors.torch import load_file
from torch import Tensor

from distillery.components import registry
from distillery.errors import PlanError
from distillery.sets.load import load_set
from distillery.sets.parts import Kind
from distillery.teacher.lineage import BEHIND, teachers_behind
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from distillery.components.contracts import StoredLabelModule
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Let the label kind write its safetensors files.

    A file with labels holds `logits` (N, classes), a row for each instance in the order of
    DistilledSet.expand(); a kind whose labels change from epoch to epoch writes a file per epoch.
    Other tensors of the files say where something stands: they are indices.

    Args:
        job: recipe: a label kind that stores labels. Inputs: distilled, teachers.

    Returns:
        The metadata: kind, instances, teachers, `bytes`, `numbers` and `kinds` by part over all
        files, the logits as `labels`; `agreement`, percent of the soft labels that put their
        instance's own class first.

    Raises:
        PlanError: the kind stores no labels.
        ClassOrderError: a teacher has other classes than the set.
        TeacherError: a teacher does not fit the set.
    """
    component, recipe = registry.build("label", job.recipe)
    if not registry.trait(component, "stored", False):
        raise PlanError(
            f"label '{job.recipe['name']}' stores nothing: there is no label artefact to make"
        )
    kind = cast("StoredLabelModule", component)
    distilled = load_set(job.input("distilled").path)
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
        BEHIND: teachers_behind(job),
        **_stored(job.out, instances.labels),
    }


def _stored(folder: Path, labels: Tensor) -> dict[str, Any]:
    bytes_by_part: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    agreeing, count = 0, 0
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            part = "labels" if name == "logits" else name
            bytes_by_part[part] += tensor.nbytes
            numbers[part] += tensor.numel()
            if part == "labels":
                agreeing += int((tensor.argmax(1) == labels).sum())
                count += len(labels)
    kinds = {part: Kind.SOFT_LABEL if part == "labels" else Kind.INDEX for part in numbers}
    return {
        "bytes": dict(sorted(bytes_by_part.items())),
        "numbers": dict(sorted(numbers.items())),
        "kinds": dict(sorted(kinds.items())),
        "agreement": 100 * agreeing / count,
    }
