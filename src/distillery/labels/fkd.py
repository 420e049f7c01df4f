"""Stored dynamic labels: what the teachers say about every batch of the student's training.

They are kept on disk (FKD; SRe2L, G-VBSM). The student replays the random streams of the label
store, so that it sees the very images that were labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.components.fields import Count
from distillery.errors import ArtefactError
from distillery.store.atomic import copier, write_file
from distillery.store.checkpoint import Checkpoint, same_form
from distillery.teacher.ensemble import mean_logits
from distillery.training.batches import ROLES, Batches
from distillery.training.precision import autocast, set_memory_format
from distillery.training.recipe import Augmentations, BatchUpTo, Mix
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.sets.distilled import Instances
    from distillery.store.artefact import Artefact
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher
    from distillery.training.batches import Batch

NAMES = ("fkd",)
TRAITS = {
    "logits": True,
    "stored": True,
    "counted_as": "dynamic",  # how the papers' compression ratio counts them
    "replays": ("epochs", "batch", "augment", "mix", "precision", "batch_up_to"),
}
SEEDS = "seeds.safetensors"
CHECKPOINT = "streams"


@dataclass(frozen=True)
class Recipe:
    """The labelling teachers, and the training whose batches they label.

    Attributes:
        teachers: network names, the labellers; all label every batch.
        epochs: of the student's training.
        batch: of the student's training.
        augment: of the student's training.
        mix: of the student's training.
        precision: of the student's training, in which the teachers compute, too: with "bf16" a
            label is what a bf16 forward pass says, as a dynamic one is.
        dtype: how the logits are stored; they reach the student as float32.
        rescale: "norm" brings the teachers' logits to one norm per batch first (G-VBSM on
            ImageNet).
        batch_up_to: of the student's training.
    """

    teachers: tuple[str, ...]
    epochs: Count
    batch: Count
    augment: Augmentations = ()
    mix: Mix = field(default_factory=Mix)
    precision: Literal["fp32", "bf16"] = "fp32"
    dtype: Literal["float16", "float32"] = "float16"
    rescale: Literal["norm"] | None = None
    batch_up_to: BatchUpTo | None = None


def make(
    recipe: Recipe,
    instances: Instances,
    teachers: list[Teacher],
    job: Job,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write the labels of all epochs, a file for each, and the seeds of the random streams.

    epoch-0000.safetensors and on: `logits` (N, classes) in recipe.dtype, the mean over all teachers
    for the augmented, mixed image that instance i leads in that epoch (its partner and lambda
    included), and `order` (N,) int32, the instances in the order of the batches.
    seeds.safetensors: `seeds` (3,) int64 of the streams `batches.ROLES`.

    Finished epochs wait in the job's scratch folder; a killed job goes on within the next.
    Deviation: the authors store crop boxes, flips, permutations, lambda and CutMix boxes; these
    follow from the seeds here. Theirs finds a batch by its first image, here a label is found by
    epoch and instance, and `order` is checked.

    Args:
        recipe: the batches, and the number format of the logits.
        instances: N images of the set.
        teachers: at least one, on the job's device.
        job: where the files go.
        mean: per channel, of pixels in [0, 1]; normalises the instances.
        std: as `mean`.
    """
    for teacher in teachers:
        set_memory_format(teacher.model, job.device, recipe.precision == "bf16")
    generators = {role: job.generator(role) for role in ROLES}
    seeds = torch.tensor([generators[role].initial_seed() for role in ROLES])
    batches = Batches(Samples.from_instances(instances, mean, std, job.device), recipe, generators)
    labelling = _Labelling(batches, teachers, recipe)
    checkpoint = Checkpoint(job, CHECKPOINT)
    labelling.resume(checkpoint, job.scratch)
    with job.progress(recipe.epochs * len(batches), "labels") as bar:
        bar.update(labelling.epoch * len(batches) + len(labelling.indices))
        while labelling.epoch < recipe.epochs:
            labels = labelling.finish_epoch(bar, checkpoint)
            write_file(job.scratch / _file(labelling.epoch), partial(save_file, labels))
            labelling.begin(labelling.epoch + 1)
            checkpoint.offer(labelling.state)
    for epoch in range(recipe.epochs):
        copier(job.scratch / _file(epoch))(job.out / _file(epoch))
    save_file({"seeds": seeds}, job.out / SEEDS)


def labeller(
    recipe: Recipe,
    *,
    stored: Artefact | None,
    teachers: list[Teacher],
    device: torch.device,
    set_labels: Tensor | None = None,
) -> Callable[[Batch], Tensor | None]:
    """The stored labels of a batch, read epoch by epoch; its images are mixed already.

    Returns:
        From a batch to logits (B, classes) float32. It raises ArtefactError when the batches of an
        epoch are not those that were labelled.

    Raises:
        ArtefactError: there are no stored labels.
    """
    if stored is None:
        raise ArtefactError("labels 'fkd': an artefact of the label stage is missing")
    artefact = stored

    @lru_cache(1)
    def labels_of(epoch: int) -> Mapping[str, Tensor]:
        return load_file(artefact.file(_file(epoch)), device=str(device))

    def label(batch: Batch) -> Tensor:
        labels = labels_of(batch.epoch)
        first = labels["order"][: len(batch)]
        # The streams are the same from the first batch on, so the others of the epoch follow.
        if batch.position == 0 and not torch.equal(first, batch.indices.int()):
            raise ArtefactError(
                f"{artefact.path / _file(batch.epoch)}: labels other batches than this "
                "training's; label again"
            )
        return labels["logits"][batch.indices].float()

    return label


def seeds(stored: Artefact) -> dict[str, int]:
    """The seeds of the random streams that a student of these labels replays, by role."""
    return dict(zip(ROLES, load_file(stored.file(SEEDS))["seeds"].tolist(), strict=True))


@dataclass
class _Labelling:
    """The labels of the epoch that is under way, and what the next batches follow from."""

    batches: Batches
    teachers: list[Teacher]
    recipe: Recipe

    def __post_init__(self) -> None:
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Go to the start of an epoch, where the streams stand."""
        self.epoch = epoch
        self.indices: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.permutation = self.batches.generators["batches"].get_state()

    def finish_epoch(self, bar: tqdm, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Label the batches of the epoch that are left; what its file holds."""
        bf16, norm = self.recipe.precision == "bf16", self.recipe.rescale is not None
        for batch in self.batches.epoch(self.epoch, len(self.indices)):
            with autocast(self.batches.samples.device, bf16):
                mean = mean_logits(self.teachers, batch.images, norm)
            self.indices.append(batch.indices.cpu())
            self.logits.append(mean.to(getattr(torch, self.recipe.dtype)).cpu())
            bar.update()
            checkpoint.offer(self.state)
        order = torch.cat(self.indices)
        return {"logits": torch.cat(self.logits)[order.argsort()], "order": order.int()}

    def state(self) -> dict[str, Any]:
        """What the next labels follow from; `batches` stands before the epoch's permutation."""
        return {
            "epoch": self.epoch,
            "streams": self._streams() | {"batches": self.permutation},
            "indices": self.indices,
            "logits": self.logits,
        }

    def _streams(self) -> dict[str, Tensor]:
        return {role: stream.get_state() for role, stream in self.batches.generators.items()}

    def resume(self, checkpoint: Checkpoint, scratch: Path) -> None:
        """Go on where an earlier run stopped, whose finished epochs are in `scratch`.

        When a file is missing, torn or another one: start from nothing.
        """
        state = checkpoint.load()
        if state is None or not self._is_of_these(state):
            return
        if not all(_is_labels(scratch / _file(epoch)) for epoch in range(state["epoch"])):
            return
        for role, stream in self.batches.generators.items():
            stream.set_state(state["streams"][role])
        self.begin(state["epoch"])
        self.indices, self.logits = state["indices"], state["logits"]

    def _is_of_these(self, state: Mapping[str, Any]) -> bool:
        parts = state.get("indices"), state.get("logits")
        return (
            isinstance(state.get("epoch"), int)
            and 0 <= state["epoch"] <= self.recipe.epochs
            and same_form(state.get("streams"), self._streams())
            and all(isinstance(part, list) for part in parts)
            and len(state["indices"]) == len(state["logits"]) <= len(self.batches)
        )


def _is_labels(file: Path) -> bool:
    """Whether a file holds the labels of an epoch."""
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys()) == {"logits", "order"}
    except Exception:  # whatever is wrong with it, it is none
        return False


def _file(epoch: int) -> str:
    return f"epoch-{epoch:04d}.safetensors"
