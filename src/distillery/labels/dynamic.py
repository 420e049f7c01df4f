"""Dynamic soft labels: the teachers see each training batch as the student does (INFER + Dyn).

Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distillery.teacher.ensemble import mean_logits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distillery.store.artefact import Artefact
    from distillery.teacher.load import Teacher
    from distillery.training.batches import Batch

NAMES = ("dynamic",)
TRAITS = {"logits": True}


@dataclass(frozen=True)
class Recipe:
    """The labelling teachers.

    Attributes:
        teachers: network names, the labellers; all label every batch.
        rescale: "norm" brings their logits to one norm per batch first (G-VBSM on ImageNet).
    """

    teachers: tuple[str, ...]
    rescale: Literal["norm"] | None = None


def labeller(
    recipe: Recipe,
    *,
    stored: Artefact | None,
    teachers: list[Teacher],
    device: torch.device,
    set_labels: Tensor | None = None,
) -> Callable[[Batch], Tensor | None]:
    """The mean over all teachers of the logits of the augmented, mixed, normalised images.

    Returns:
        From a batch to (B, classes) float32.
    """
    return lambda batch: mean_logits(teachers, batch.images, recipe.rescale is not None)
