"""Distances between classes: what a source of class embeddings returns, and how it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from distillery.errors import ClassOrderError, DataError
from distillery.store.artefact import Artefact
from distillery.store.canonical import file_sha256

EMBEDDINGS_FILE = "embeddings.safetensors"


@dataclass(frozen=True)
class ClassDistances:
    """What a source of class embeddings says of n classes, in label order.

    Attributes:
        distances: (n, n), 1 - cosine, in [0, 2], symmetric, with zero diagonal.
        provenance: of each class, in words: what its distances were made from.
        embeddings: (n, d), or None where the classes do not share one space.
    """

    distances: Tensor
    provenance: list[str]
    embeddings: Tensor | None = None


def cosine_distances(vectors: Tensor) -> Tensor:
    """1 - cosine of all pairs of rows.

    Args:
        vectors: (n, d).

    Returns:
        (n, n) float64, exactly symmetric, with zero diagonal, at least 0.
    """
    unit = normalize(vectors.double())
    distances = 1 - unit @ unit.T
    # Rounding may leave the two halves unequal in the last bit, and pairs of equals below 0.
    return ((distances + distances.T) / 2).clamp_min(0).fill_diagonal_(0)


def check_file(path: str, planned: str | None) -> None:
    """Check that the file at `path` is the planned one.

    Args:
        path: where the file should lie.
        planned: its SHA-256 (hex).

    Raises:
        DataError: there is no file, or its content has another SHA-256.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; put it there, or change the path of the embeddings")
    present = file_sha256(Path(path))
    if present != planned:
        raise DataError(
            f"{path}: changed since planning (SHA-256 was {planned}, is {present}); "
            f"run the same command again"
        )


def read_distances(artefact: Artefact, class_order: str) -> Tensor:
    """The distances between classes of an artefact of the embed stage.

    Args:
        artefact: of the embed stage.
        class_order: hash of the classes that the reader knows.

    Returns:
        (n, n) float32.

    Raises:
        ClassOrderError: the artefact's classes have another order.
        ArtefactError: it has no such file.
    """
    present = artefact.metadata["class_order"]
    if present != class_order:
        raise ClassOrderError(
            f"embeddings {artefact.id} have class order {present}, the data has {class_order}: "
            f"make them from the same data source"
        )
    return load_file(artefact.file(EMBEDDINGS_FILE))["distances"]
