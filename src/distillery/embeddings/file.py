"""Class embeddings that someone has computed: a parquet file, which may lack classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distillery.embeddings.distances import Found, cosine_distances
from distillery.embeddings.features import class_means
from distillery.errors import DataError

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("file",)
KNOWN_NEEDED = 3  # classes: with two there is one distance, and no spread to agree with


@dataclass(frozen=True)
class Recipe:
    """path: a parquet file with the columns `class` (names) or `label` (from 0), and `embedding` (lists of numbers); `match`
    and `prompt` are repeated in the metadata. missing: classes absent from the file are an error, or take their
    distances from class-mean features of the first of `teachers`.
    """

    path: str
    missing: Literal["error", "features"] = "error"
    teachers: tuple[str, ...] = ()


def embed(
    classes: Sequence[str], recipe: Recipe, *, train: ImageSet, teachers: list[Teacher], job: Job
) -> Found:
    """The file's embeddings, or, where it lacks classes, distances of two kinds, made alike in `completed`.

    Raises DataError when the file is no such table or names a class twice; when it lacks classes and may not, or has fewer
    than three; PlanError when features are needed and there is no teacher.
    Deviation: the paper embeds all names with one model; distances from features stand in where a name has none.
    """
    rows = _rows(Path(recipe.path), classes)
    absent = [name for name in classes if name not in rows]
    _check(recipe, absent, len(classes))
    known = torch.tensor([i for i, name in enumerate(classes) if name in rows])
    vectors = torch.from_numpy(np.stack([rows[classes[i]][0] for i in known.tolist()]))
    if not absent:
        return Found(cosine_distances(vectors), [rows[name][1] for name in classes], vectors)
    distances = completed(
        cosine_distances(vectors), known, cosine_distances(class_means(train, teachers, job))
    )
    stand_in = f"not in the file: features of {teachers[0].name}"
    return Found(distances, [rows[name][1] if name in rows else stand_in for name in classes])


def completed(stated: Tensor, known: Tensor, others: Tensor) -> Tensor:
    """Distances (n, n) that are `stated` (k, k) between the classes `known` (k,), and elsewhere those of `others` (n, n),
    shifted and scaled so that over the pairs of known classes their mean and standard deviation are those of `stated`;
    at least 0."""
    pairs = torch.triu_indices(len(known), len(known), 1).unbind()
    goal, given = stated[pairs], others[known][:, known][pairs]
    scale = goal.std() / given.std().clamp_min(1e-12)
    found = (goal.mean() + scale * (others - given.mean())).clamp_min(0).fill_diagonal_(0)
    found[known[:, None], known] = stated
    return found


def _rows(file: Path, classes: Sequence[str]) -> dict[str, tuple[np.ndarray, str]]:
    """Embedding (d,) float32, and how it was found, by class name."""
    try:
        rows = pq.read_table(file).to_pylist()
        names = [row["class"] if "class" in row else classes[row["label"]] for row in rows]
        vectors = np.stack([np.asarray(row["embedding"], np.float32) for row in rows])
    except (OSError, pa.ArrowException, KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(
            f"{file}: no table of class (or label) and embedding ({type(error).__name__}: {error})"
        ) from None
    if len(set(names)) < len(names):
        raise DataError(
            f"{file}: names class '{max(names, key=names.count)}' twice; keep one row of each class"
        )
    return {
        name: (vector, _how(row)) for name, vector, row in zip(names, vectors, rows, strict=True)
    }


def _how(row: dict[str, object]) -> str:
    said = [
        f"{column} {row[column]!r}" for column in ("match", "prompt") if row.get(column) is not None
    ]
    return ", ".join(["file", *said])


def _check(recipe: Recipe, absent: list[str], classes: int) -> None:
    listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
    if absent and recipe.missing == "error":
        raise DataError(
            f"{recipe.path}: lacks {len(absent)} of {classes} classes ({listed}); add them, or set missing: features"
        )
    if absent and classes - len(absent) < KNOWN_NEEDED:
        raise DataError(
            f"{recipe.path}: has {classes - len(absent)} of {classes} classes, {KNOWN_NEEDED} needed; use features"
        )
