"""What a distilled set stores: tensors, each with a kind that says what its numbers are."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


PARTS, SIDECAR = "distilled.safetensors", "distilled.json"  # the files of a set


class Kind(StrEnum):
    """What the numbers of a part are; table columns and budgets follow from it."""

    IMAGE = "image"  # pixels, what is added to pixels, or the bytes of image files
    SOFT_LABEL = "soft label"
    HARD_LABEL = "hard label"
    INDEX = "index"  # where something stands: an order, a position, a seed


@dataclass(frozen=True)
class Part:
    """One stored tensor.

    Attributes:
        tensor: of any shape and number format that safetensors knows.
        kind: what its numbers are.
        derived: whether it follows from the other parts, so that it costs nothing: hard labels in
            the order of the classes, the ends of JPEG files that are marked in the files.
    """

    tensor: Tensor = field(repr=False)
    kind: Kind
    derived: bool = False
