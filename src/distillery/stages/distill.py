"""The distill stage: make a distilled set with the method that the recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillery.components import registry
from distillery.data.images import ImageSet, load_images
from distillery.sets.contract import check_made
from distillery.teacher.lineage import BEHIND, teachers_behind
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from distillery.components.contracts import MethodModule
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Write the distilled set.

    Args:
        job: recipe: method (name and fields), ipc. Inputs: data; teachers, whitening and embeddings
            where the method needs them.

    Returns:
        The metadata: what was made of how many instances, `bytes`, `numbers` and `kinds` by part,
        what students need to know of the data, and the accuracies of the teachers behind it.

    Raises:
        ClassOrderError: a teacher has other classes than the data.
        TeacherError: a teacher does not know the data.
        BudgetError: the method cannot work with the budget.
        SetError: the set is not what recipe, budget and data promise (`sets.contract`).
    """
    method: MethodModule
    method, recipe = registry.build("method", job.recipe["method"])
    data = job.input("data")
    train = load_images(data, "train")
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=train.class_order,
        mean=train.mean,
        std=train.std,
        owner=f"data {data.id}",
    )
    name, ipc = job.recipe["method"]["name"], job.recipe["ipc"]
    distilled = method.distill(train, recipe, ipc=ipc, teachers=teachers, job=job)
    instances = check_made(distilled, method=name, recipe=recipe, ipc=ipc, train=train)
    distilled.save(job.out)
    return _metadata(distilled, len(instances), train) | {BEHIND: teachers_behind(job)}


def _metadata(distilled: DistilledSet, instances: int, train: ImageSet) -> dict[str, Any]:
    return {
        "method": distilled.method,
        "ipc": distilled.ipc,
        "instances": instances,
        "images_per_class": instances / len(distilled.classes),
        "bytes": distilled.bytes,
        "numbers": distilled.numbers,
        "kinds": distilled.kinds,
        "classes": list(distilled.classes),
        "class_order": distilled.class_order,
        "shape": list(train.shape),
        "mean": list(distilled.mean),
        "std": list(distilled.std),
    }
