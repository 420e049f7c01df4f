"""Stored dynamic labels: what the teachers say about every batch of the student's training.

They are kept on disk (FKD; SRe2L, G-VBSM). The student replays the random streams of the label
store, so that it sees the very images that were labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from distillery.components.fields import Count
from distillery.errors import ArtefactError
from distillery.store.atomic import copier, write_file
from distillery.store.checkpoint import same_form
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
# In the scratch folder: the states of the random streams after the last finished epoch.
STREAMS = "streams.safetensors"


@dataclass(frozen=True)
class Recipe:
    """The labelling teachers, and the training whose batches they label.

    Attributes:
        teachers: network names, the labellers; all label every batch.
        epochs: of the student's training.
        batch: of the student's training.
        augment: of the student's training.
        mix: of the student's training.
        precision: of the student's training.
        dtype: how the logits are stored.
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

    Finished epochs wait in the job's scratch folder; a killed job goes on after the last of them.
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
    epochs = range(recipe.epochs)
    with job.progress(len(epochs) * len(batches), "labels") as bar:
        done = _resume(job.scratch, generators, recipe.epochs)
        bar.update(done * len(batches))
        for epoch in epochs[done:]:
            _write(_labels(batches, epoch, teachers, recipe, bar), job.scratch / _file(epoch))
            states = {role: generator.get_state() for role, generator in generators.items()}
            _write(states | {"epochs": torch.tensor(epoch + 1)}, job.scratch / STREAMS)
    for epoch in epochs:
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


def _labels(
    batches: Batches, epoch: int, teachers: list[Teacher], recipe: Recipe, bar: tqdm
) -> dict[str, Tensor]:
    indices, logits = [], []
    for batch in batches.epoch(epoch):
        with autocast(batches.samples.device, recipe.precision == "bf16"):
            mean = mean_logits(teachers, batch.images, recipe.rescale is not None)
        indices.append(batch.indices.cpu())
        logits.append(mean.to(getattr(torch, recipe.dtype)).cpu())
        bar.update()
    order = torch.cat(indices)
    return {"logits": torch.cat(logits)[order.argsort()], "order": order.int()}


def _file(epoch: int) -> str:
    return f"epoch-{epoch:04d}.safetensors"


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    write_file(file, lambda aside: save_file(tensors, aside))


def _resume(scratch: Path, generators: Mapping[str, Generator], epochs: int) -> int:
    """Put the streams where an earlier run stopped, and count the epochs that it left in `scratch`.

    Args:
        scratch: folder of the job.
        generators: the streams.
        epochs: of the training.

    Returns:
        The number of finished epochs; 0 when a file is missing, torn or another one.
    """
    try:
        states = load_file(scratch / STREAMS)
        done = int(states.pop("epochs"))
        for epoch in range(done):
            with safe_open(scratch / _file(epoch), "pt") as file:
                if set(file.keys()) != {"logits", "order"}:
                    return 0
    except Exception:  # whatever is wrong with them, they are no checkpoint
        return 0
    expected = {role: generator.get_state() for role, generator in generators.items()}
    if not 0 <= done <= epochs or not same_form(states, expected):
        return 0
    for role, generator in generators.items():
        generator.set_state(states[role])
    return done
