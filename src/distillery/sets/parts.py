"""What a distilled set stores: tensors, each with a kind that says what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from distillery.errors import SetError

if TYPE_CHECKING:
    from torch import Tensor


PARTS, SIDECAR = "distilled.safetensors", "distilled.json"  # the files of a set
SLACK = 1e-3  # of pixels around their range: a quarter of an 8-bit level


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


def check_lengths(tensors: Mapping[str, Tensor], *names: str) -> None:
    """Raise SetError unless those of the parts `names` that there are are equally long."""
    lengths = {name: len(tensors[name]) for name in names if name in tensors}
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"part '{name}' has {length}" for name, length in lengths.items())
        raise SetError(f"{stated}; store as many labels as images")
