"""What a source of class embeddings returns, the distances between classes that follow, and how they are read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from distillery.errors import ClassOrderError, DataError
from distillery.store.artefact import Artefact
from distillery.store.canonical import file_sha256

EMBEDDINGS = "embeddings.safetensors"


@dataclass(frozen=True)
class Found:
    """distances: (n, n), 1 - cosine, in [0, 2], symmetric, zero diagonal, classes in label order. how: per class, in words.
    embeddings: (n, d), or None where the classes do not share one space."""

    distances: Tensor
    how: list[str]
    embeddings: Tensor | None = None


def cosine_distances(vectors: Tensor) -> Tensor:
    """1 - cosine of all pairs of the rows of `vectors` (n, d): (n, n) float64, exactly symmetric, zero diagonal, at least 0."""
    unit = normalize(vectors.double())
    distances = 1 - unit @ unit.T
    return ((distances + distances.T) / 2).clamp_min(0).fill_diagonal_(0)


def check_file(path: str, planned: str) -> None:
    """Raise DataError when there is no file at `path`, or when its SHA-256 (hex) is not `planned`."""
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; put it there, or change the path of the embeddings")
    present = file_sha256(Path(path))
    if present != planned:
        raise DataError(
            f"{path}: changed since planning (SHA-256 was {planned}, is {present}); run the same command again"
        )


def read_distances(artefact: Artefact, class_order: str) -> Tensor:
    """`distances` (n, n) float32 of an artefact of the embed stage. Raises ClassOrderError unless its classes have this order,
    and ArtefactError when it has no such file."""
    if artefact.metadata["class_order"] != class_order:
        raise ClassOrderError(
            f"embeddings {artefact.id} have class order {artefact.metadata['class_order']}, the data has {class_order}: "
            f"make them from the same data source"
        )
    return load_file(artefact.file(EMBEDDINGS))["distances"]
