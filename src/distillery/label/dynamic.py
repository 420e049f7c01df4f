"""Dynamic soft labels: the teachers see each training batch as the student does; nothing is stored (INFER + Dyn)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from distillery.teacher.load import Teacher
    from distillery.training.mix import Mixing

NAMES = ("dynamic",)
LOGITS = True
STORED = False


@dataclass(frozen=True)
class Recipe:
    """teachers: network names, the labellers; all label every batch."""

    teachers: tuple[str, ...]


def labeller(
    recipe: Recipe, *, stored: Tensor | None, teachers: list[Teacher]
) -> Callable[[Tensor, Tensor, Mixing], Tensor | None]:
    """The mean over all teachers of the logits of the augmented, mixed, normalised images: (B, classes) float32."""

    @torch.no_grad()
    def label(indices: Tensor, images: Tensor, mixing: Mixing) -> Tensor:
        return torch.stack([teacher.model(images).float() for teacher in teachers]).mean(0)

    return label
