"""The batches of a training run, drawn from three random streams: the same streams give the same batches again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Generator, Tensor

from distillery.training.augment import Pipeline, around
from distillery.training.mix import Mixing, draw
from distillery.training.recipe import batch_size

if TYPE_CHECKING:
    from distillery.training.recipe import BatchUpTo, Mix
    from distillery.training.samples import Samples

ROLES = ("batches", "augment", "mix")


class Settings(Protocol):
    """The recipe fields that decide what the batches are; `training.recipe.Training` explains them."""

    batch: int
    augment: tuple[str, ...]
    mix: Mix
    batch_up_to: BatchUpTo | None


@dataclass(frozen=True)
class Batch:
    """One batch as the network sees it.

    epoch: from 0. position: samples of the epoch before this batch. indices: (B,) int64, its samples. images: (B, C, H, W)
    float32, augmented, normalised, mixed. mixing: how they were mixed. Tensors are on the device of the samples.
    """

    epoch: int
    position: int
    indices: Tensor
    images: Tensor
    mixing: Mixing

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Batches:
    """The batches of `samples`, as `recipe` cuts, augments and mixes them. generators: a CPU generator for each of `ROLES`."""

    samples: Samples
    recipe: Settings
    generators: Mapping[str, Generator]

    def __len__(self) -> int:
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        count = len(self.samples)
        return sizes(count, batch_size(count, self.recipe.batch, self.recipe.batch_up_to))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """A fresh permutation of all samples, batch by batch, the last, smaller one too.

        Each batch is augmented in pixel space, normalised, augmented as normalised images, then mixed. Epochs follow one
        another in the streams, so ask for them in order, each to its end.
        """
        order = torch.randperm(len(self.samples), generator=self.generators["batches"]).to(
            self.samples.device
        )
        augment, position = around(self.samples.normalise, self.recipe.augment), 0
        for indices in order.split(self._sizes()):
            yield Batch(epoch, position, indices, *self._seen(indices, augment))
            position += len(indices)

    def _seen(self, indices: Tensor, augment: Pipeline) -> tuple[Tensor, Mixing]:
        images = augment(self.samples.take(indices), self.generators["augment"])
        mixing = draw(self.recipe.mix, images, self.generators["mix"])
        return mixing.images(images), mixing


def sizes(count: int, size: int) -> list[int]:
    """How `count` samples split into parts of `size`, the last one smaller. A single sample left over joins the part before it:
    alone it has no batch statistics."""
    parts = [size] * (count // size) + [count % size] * (count % size > 0)
    return [*parts[:-2], parts[-2] + 1] if len(parts) > 1 and parts[-1] == 1 else parts
