"""Static soft labels: one vector of logits per instance, stored with the set (INFER Eq. 5-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distillery.normalise import normalise

if TYPE_CHECKING:
    from distillery.distilled import Instances
    from distillery.job import Job
    from distillery.teacher.load import Teacher
    from distillery.training.mix import Mixing

NAMES = ("static",)
LOGITS = True
STORED = True
BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """teachers: network names, the labellers; all label every instance. dtype: how the logits are stored."""

    teachers: tuple[str, ...]
    dtype: Literal["float16", "float32"] = "float16"


@torch.no_grad()
def make(
    recipe: Recipe, instances: Instances, teachers: list[Teacher], job: Job, *, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """The arithmetic mean over all teachers of the raw logits of each clean, normalised instance: (N, classes) in recipe.dtype.

    No augmentation, no temperature; eval mode (Eq. 6).
    Deviation: the authors' code divides by 4 however many teachers there are.
    """
    found = []
    for indices in job.progress(torch.arange(len(instances), device=instances.labels.device).split(BATCH), "labels"):
        seen = normalise(instances.take(indices).to(job.device), mean, std)
        found.append(torch.stack([teacher.model(seen) for teacher in teachers]).mean(0).cpu())
    return torch.cat(found).to(getattr(torch, recipe.dtype))


def labeller(
    recipe: Recipe, *, stored: Tensor | None, teachers: list[Teacher]
) -> Callable[[Tensor, Tensor, Mixing], Tensor | None]:
    """The stored labels of a batch, mixed as its images are: lambda z + (1 - lambda) z_pi, float32 logits (B, classes).

    stored: (N, classes), on the device of the training. The labeller takes indices (B,) int64, the batch's images and its
    mixing; crops and flips do not touch a label (authors' code).
    """

    def label(indices: Tensor, images: Tensor, mixing: Mixing) -> Tensor:
        return mixing.labels(stored[indices].float())

    return label
