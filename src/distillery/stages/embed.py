"""The embed stage: the class-distance matrix of a data set, by which a poster is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from distillery.components import registry
from distillery.components.fields import read
from distillery.components.registry import Reference
from distillery.data.images import load_images
from distillery.embeddings.distances import EMBEDDINGS_FILE, check_file
from distillery.errors import DataError
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from pathlib import Path

    from distillery.components.contracts import EmbeddingModule
    from distillery.embeddings.distances import ClassDistances
    from distillery.store.job import Job


@dataclass(frozen=True)
class EmbedRecipe:
    """Where the class embeddings come from.

    Attributes:
        source: component reference of an embedding; its field `path`, if any, differs between
            machines.
        digest: SHA-256 (hex) of the file at that path, where there is one.
    """

    source: Reference
    digest: str | None = None


def make(job: Job) -> dict[str, Any]:
    """Write embeddings.safetensors.

    It holds `distances` (n, n) float32, 1 - cosine, and, where the classes share one space,
    `embeddings` (n, d) float32; classes in label order. Inputs: data, and the teachers that the
    source names.

    Returns:
        source; classes; class_order; provenance (of each class, in words); dimension (of the
        embeddings, or None).

    Raises:
        DataError: a file has changed, or a source has no embedding of a class, or one that is not
            finite.
        ClassOrderError: a teacher knows other classes than the data.
        TeacherError: a teacher does not fit the data.
        PlanError: the source needs a teacher and has none.
    """
    recipe, data = read(EmbedRecipe, job.recipe), job.input("data")
    if recipe.source.get("path"):
        check_file(recipe.source["path"], recipe.digest)
    train = load_images(data, "train")
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=train.class_order,
        mean=train.mean,
        std=train.std,
        owner=f"data {data.id}",
    )
    embedding: EmbeddingModule
    embedding, embedding_recipe = registry.build("embedding", recipe.source)
    classes = embedding.embed(
        train.classes, embedding_recipe, train=train, teachers=teachers, job=job
    )
    if not torch.isfinite(classes.distances).all():
        raise DataError(
            f"embeddings '{recipe.source['name']}' of data {data.id}: not all finite; "
            f"take another source"
        )
    _save(classes, job.out / EMBEDDINGS_FILE)
    vectors = classes.embeddings
    return {
        "source": recipe.source["name"],
        "classes": list(train.classes),
        "class_order": train.class_order,
        "provenance": classes.provenance,
        "dimension": None if vectors is None else vectors.shape[1],
    }


def _save(classes: ClassDistances, file: Path) -> None:
    tensors = {"distances": classes.distances}
    if classes.embeddings is not None:
        tensors["embeddings"] = classes.embeddings
    save_file({name: tensor.cpu().float().contiguous() for name, tensor in tensors.items()}, file)
