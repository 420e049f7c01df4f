"""The embed stage: how far the classes of a data set are from each other, for orders that put like beside like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from distillery.components import registry
from distillery.data.images import load_images
from distillery.embeddings.distances import EMBEDDINGS, check_file
from distillery.errors import DataError
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Write embeddings.safetensors: `distances` (n, n) float32, 1 - cosine, and, where the classes share one space,
    `embeddings` (n, d) float32; classes in label order.

    recipe: source (component reference of an embedding) and, where the source reads a file (field `path`, machine-local),
    digest, the file's SHA-256. inputs: data, and the teachers that the source names. Metadata: source, classes, class_order,
    found (per class, how), dimension (of the embeddings, or None).
    Raises DataError when a file has changed, or a source has no embedding of a class or one that is not finite; ClassOrderError
    and TeacherError when a teacher does not fit the data; PlanError when the source needs a teacher and has none.
    """
    reference, data = job.recipe["source"], job.input("data")
    if reference.get("path"):
        check_file(reference["path"], job.recipe["digest"])
    train = load_images(data, "train")
    owner, fits = (
        f"data {data.id}",
        {"class_order": train.class_order, "mean": train.mean, "std": train.std},
    )
    teachers = load_teachers(job.inputs_of("teachers"), job.device, owner=owner, **fits)
    source, recipe = registry.build("embedding", reference)
    found = source.embed(train.classes, recipe, train=train, teachers=teachers, job=job)
    if not torch.isfinite(found.distances).all():
        raise DataError(
            f"embeddings '{reference['name']}' of {owner}: not all finite; take another source"
        )
    tensors = {"distances": found.distances}
    if found.embeddings is not None:
        tensors["embeddings"] = found.embeddings
    save_file(
        {name: tensor.cpu().float().contiguous() for name, tensor in tensors.items()},
        job.out / EMBEDDINGS,
    )
    return {
        "source": reference["name"],
        "classes": list(train.classes),
        "class_order": train.class_order,
        "found": found.how,
        "dimension": None if found.embeddings is None else found.embeddings.shape[1],
    }
