"""Static soft labels: one vector of logits per instance, stored with the set (INFER Eq. 5-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.errors import ArtefactError
from distillery.store.checkpoint import gathered
from distillery.store.files import STORED_LABELS
from distillery.teacher.ensemble import mean_logits
from distillery.training.normalise import normalise

if TYPE_CHECKING:
    from distillery.sets.distilled import Instances
    from distillery.store.artefact import Artefact
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher
    from distillery.training.batches import Batch

NAMES = ("static",)
TRAITS = {
    "logits": True,
    "stored": True,
}
BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """The labelling teachers.

    Attributes:
        teachers: network names, the labellers; all label every instance.
        dtype: how the logits are stored.
    """

    teachers: tuple[str, ...]
    dtype: Literal["float16", "float32"] = "float16"

    def stored_bytes(self, instances: float, classes: int) -> float:
        """Of all labels."""
        return instances * classes * (2 if self.dtype == "float16" else 4)


def make(
    recipe: Recipe,
    instances: Instances,
    teachers: list[Teacher],
    job: Job,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write labels.safetensors: `logits` (N, classes) in recipe.dtype.

    They are the mean over all teachers of the raw logits of each clean, normalised instance: no
    augmentation, no temperature; eval mode (Eq. 6).
    Deviation: the authors' code divides by 4 however many teachers there are.

    Args:
        recipe: the number format of the logits.
        instances: N images of the set.
        teachers: at least one, on the job's device.
        job: where the file goes.
        mean: per channel, of pixels in [0, 1]; normalises the instances.
        std: as `mean`.
    """
    parts = torch.arange(len(instances), device=instances.labels.device).split(BATCH)

    def label(indices: Tensor) -> Tensor:
        images = normalise(instances.take(indices).to(job.device), mean, std)
        return mean_logits(teachers, images).cpu()

    logits = gathered(job, "labels", parts, label, label="labels")
    save_file(
        {"logits": torch.cat(logits).to(getattr(torch, recipe.dtype))}, job.out / STORED_LABELS
    )


def labeller(
    recipe: Recipe,
    *,
    stored: Artefact | None,
    teachers: list[Teacher],
    device: torch.device,
    set_labels: Tensor | None = None,
) -> Callable[[Batch], Tensor | None]:
    """The stored labels of a batch, mixed as its images are: lambda z + (1 - lambda) z_pi.

    Crops and flips do not touch a label (authors' code).

    Returns:
        From a batch to logits (B, classes) float32.

    Raises:
        ArtefactError: there are no stored labels.
    """
    if stored is None:
        raise ArtefactError("labels 'static': an artefact of the label stage is missing")
    logits = load_file(stored.file(STORED_LABELS))["logits"].to(device)
    return lambda batch: batch.mixing.labels(logits[batch.indices].float())
