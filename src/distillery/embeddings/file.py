"""Class embeddings that someone has computed: a parquet file, which may lack classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distillery.embeddings.distances import ClassDistances, cosine_distances
from distillery.embeddings.features import class_means
from distillery.errors import DataError

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("file",)
# Classes. With two there is one distance, and no standard deviation to agree with.
KNOWN_NEEDED = 3


@dataclass(frozen=True)
class Recipe:
    """Embeddings from a file.

    Attributes:
        path: a parquet file with the columns `class` (names) or `label` (from 0), and `embedding`
            (lists of numbers); the columns `match` and `prompt` are repeated in the metadata.
        missing: classes absent from the file are an error, or take their distances from class-mean
            features of the first teacher.
        teachers: network names.
    """

    path: str
    missing: Literal["error", "features"] = "error"
    teachers: tuple[str, ...] = ()


def embed(
    classes: Sequence[str], recipe: Recipe, *, train: ImageSet, teachers: list[Teacher], job: Job
) -> ClassDistances:
    """The file's embeddings, or, where it lacks classes, distances of two kinds (see `completed`).

    Deviation: the paper embeds all names with one model; distances from features stand in where a
    name has none.

    Args:
        classes: names in label order.
        recipe: which file.
        train: training images, for features.
        teachers: the first one gives the features.
        job: its device computes them.

    Raises:
        DataError: the file is no such table, names a class twice, has a label that is none of the
            classes, or an embedding that is not finite or all 0; or it lacks classes and may not,
            or has fewer than three.
        PlanError: features are needed and there is no teacher.
    """
    rows = _rows(Path(recipe.path), classes)
    absent = [name for name in classes if name not in rows]
    _check(recipe, absent, len(classes))
    present = torch.tensor([i for i, name in enumerate(classes) if name in rows])
    vectors = torch.from_numpy(np.stack([rows[classes[i]][0] for i in present.tolist()]))
    stated = cosine_distances(vectors)
    if not absent:
        return ClassDistances(stated, [rows[name][1] for name in classes], vectors)
    features = cosine_distances(class_means(train, teachers, job))
    stand_in = f"not in the file: features of {teachers[0].name}"
    provenance = [rows[name][1] if name in rows else stand_in for name in classes]
    return ClassDistances(completed(stated, present, features), provenance)


def completed(stated: Tensor, present: Tensor, others: Tensor) -> Tensor:
    """Distances between all classes, from those stated between some, and others between all.

    The others are shifted and scaled so that over the pairs of present classes their mean and
    standard deviation are those of `stated`.

    Args:
        stated: (k, k) distances between the present classes.
        present: (k,) their labels.
        others: (n, n) distances of another kind, between all classes.

    Returns:
        (n, n), `stated` between the present classes, elsewhere the adjusted others; at least 0.
    """
    pairs = torch.triu_indices(len(present), len(present), 1).unbind()
    goal, given = stated[pairs], others[present][:, present][pairs]
    scale = goal.std() / given.std().clamp_min(1e-12)
    distances = (goal.mean() + scale * (others - given.mean())).clamp_min(0).fill_diagonal_(0)
    distances[present[:, None], present] = stated
    return distances


def _rows(file: Path, classes: Sequence[str]) -> dict[str, tuple[np.ndarray, str]]:
    """Embedding (d,) float32 and provenance, by class name."""
    try:
        if not file.is_file():  # a named pipe would be waited for
            raise ValueError("no file")
        rows = pq.read_table(file).to_pylist()
        names = [_name(row, classes, f"{file} row {i}") for i, row in enumerate(rows)]
        vectors = np.stack([np.asarray(row["embedding"], np.float32) for row in rows])
    except (OSError, pa.ArrowException, KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(
            f"{file}: no table of class (or label) and embedding ({type(error).__name__}: {error})"
        ) from None
    for i, vector in enumerate(vectors):
        if not np.isfinite(vector).all() or not vector.any():
            raise DataError(
                f"{file} row {i}: the embedding of class '{names[i]}' is not all finite, or all 0; "
                f"compute it again"
            )
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise DataError(f"{file}: names class '{twice}' twice; keep one row of each class")
    return {
        name: (vector, _provenance(row))
        for name, vector, row in zip(names, vectors, rows, strict=True)
    }


def _name(row: Mapping[str, Any], classes: Sequence[str], where: str) -> str:
    """Class name of a row, as it says itself or by its label."""
    if "class" in row:
        if not isinstance(row["class"], str):
            raise DataError(f"{where}: class = {row['class']!r}: is no name; write a class name")
        return row["class"]
    label = row["label"]
    if type(label) is not int or not 0 <= label < len(classes):
        raise DataError(
            f"{where}: label = {label!r}: expected a whole number from 0 to {len(classes) - 1}"
        )
    return classes[label]


def _provenance(row: dict[str, object]) -> str:
    values = {column: row.get(column) for column in ("match", "prompt")}
    stated = [f"{column} {value!r}" for column, value in values.items() if value is not None]
    return ", ".join(["file", *stated])


def _check(recipe: Recipe, absent: list[str], classes: int) -> None:
    listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
    if absent and recipe.missing == "error":
        raise DataError(
            f"{recipe.path}: lacks {len(absent)} of {classes} classes ({listed}); "
            f"add them, or set missing: features"
        )
    present = classes - len(absent)
    if absent and present < KNOWN_NEEDED:
        raise DataError(
            f"{recipe.path}: has {present} of {classes} classes, {KNOWN_NEEDED} needed; "
            f"use features"
        )
