"""The label room: give every instance of a distilled set the soft label that is stored with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from distillery import components
from distillery.distilled import DistilledSet
from distillery.errors import PlanError
from distillery.teacher.load import Teacher, load_teachers

if TYPE_CHECKING:
    from distillery.job import Job

LABELS = "labels.safetensors"


def make(job: Job) -> dict[str, Any]:
    """Write labels.safetensors, `logits` (N, classes) in the order of DistilledSet.expand(), and return the facts.

    Inputs: distilled, teachers. Recipe: a label kind that stores labels. Raises PlanError for one that does not,
    ClassOrderError and TeacherError when a teacher does not fit the set.
    """
    kind, recipe = components.build("label", job.recipe)
    if not kind.STORED:
        raise PlanError(f"label '{job.recipe['name']}' stores nothing: there is no label artefact to make")
    distilled = DistilledSet.load(job.inputs["distilled"].path)
    owner = f"distilled set {job.inputs['distilled'].id}"
    constants = {"mean": distilled.mean, "std": distilled.std}
    teachers = load_teachers(job.inputs["teachers"], job.device, class_order=distilled.class_order, owner=owner, **constants)
    instances = distilled.expand()
    logits = kind.make(recipe, instances, teachers, job, **constants)
    save_file({"logits": logits.contiguous()}, job.out / LABELS)
    return _facts(job.recipe["name"], distilled, teachers, logits, instances.labels)


def _facts(kind: str, distilled: DistilledSet, teachers: list[Teacher], logits: Tensor, labels: Tensor) -> dict[str, Any]:
    return {
        "kind": kind,
        "instances": len(logits),
        "bytes": {"labels": logits.numel() * logits.element_size()},
        "class_order": distilled.class_order,
        "teachers": [{"name": teacher.name, "accuracy": teacher.accuracy} for teacher in teachers],
        # percent of the instances whose soft label puts their own class first
        "agreement": 100 * (logits.argmax(1) == labels).double().mean().item(),
    }
