"""The batches of a training run, drawn from three random streams.

The same streams give the same batches again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Generator, Tensor

from distillery.components import registry
from distillery.training.augment import Pipeline, normalising_pipeline
from distillery.training.recipe import batch_size

if TYPE_CHECKING:
    from distillery.training.recipe import BatchUpTo, Mix
    from distillery.training.samples import Samples

ROLES = ("batches", "augment", "mix")


class BatchRecipe(Protocol):
    """The recipe fields that decide what the batches are; `recipe.Training` explains them."""

    @property
    def batch(self) -> int:
        """Samples per step."""
        ...

    @property
    def augment(self) -> tuple[str, ...]:
        """Names of augmentations."""
        ...

    @property
    def mix(self) -> Mix:
        """Mixing of the batches."""
        ...

    @property
    def batch_up_to(self) -> BatchUpTo | None:
        """Samples per step of small training sets."""
        ...


@dataclass(frozen=True)
class Mixing:
    """How one batch was mixed; enough to mix its labels, or to mix the same batch again.

    Attributes:
        lam: share of an image's own label, in [0, 1]; with a box exactly the share of the pixels
            outside it.
        permutation: (B,) int64; the partner of each image.
        box: None (MixUp), or (top, bottom, left, right) in pixels, what comes from the partner.
    """

    lam: float
    permutation: Tensor
    box: tuple[int, int, int, int] | None = None

    def images(self, x: Tensor) -> Tensor:
        """Mix images (B, C, H, W) float: lam x + (1 - lam) x_pi, or x with the box of x_pi."""
        if self.box is None:
            return self.labels(x)
        top, bottom, left, right = self.box
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[self.permutation, :, top:bottom, left:right]
        return mixed

    def labels(self, y: Tensor) -> Tensor:
        """Mix labels (B, classes) float, probabilities or logits alike: lam y + (1 - lam) y_pi."""
        return y if self.lam == 1 else torch.lerp(y[self.permutation], y, self.lam)


@dataclass(frozen=True)
class Batch:
    """One batch as the network sees it; tensors are on the device of the samples.

    Attributes:
        epoch: from 0.
        position: samples of the epoch before this batch.
        indices: (B,) int64; its samples.
        images: (B, C, H, W) float32, augmented, normalised, mixed.
        mixing: how they were mixed.
    """

    epoch: int
    position: int
    indices: Tensor
    images: Tensor
    mixing: Mixing

    def __len__(self) -> int:
        return len(self.indices)


def steps_per_epoch(samples: int, recipe: BatchRecipe) -> int:
    """Batches, and so steps of the optimiser, of an epoch over so many samples."""
    return len(_sizes(samples, recipe))


def _sizes(samples: int, recipe: BatchRecipe) -> list[int]:
    return sizes(samples, batch_size(samples, recipe.batch, recipe.batch_up_to))


@dataclass(frozen=True)
class Batches:
    """The batches of a training set.

    Attributes:
        samples: the training set.
        recipe: how it is cut, augmented and mixed.
        generators: a CPU generator for each of `ROLES`.
    """

    samples: Samples
    recipe: BatchRecipe
    generators: Mapping[str, Generator]

    def __len__(self) -> int:
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        return _sizes(len(self.samples), self.recipe)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """A fresh permutation of all samples, batch by batch, the last, smaller one too.

        Each batch is augmented in pixel space, normalised, augmented as normalised images, then
        mixed. Epochs follow one another in the streams, so ask for them in order, each to its end.

        Args:
            epoch: its number, from 0.
            first: batches that are left out, as an earlier run has had them; the stream `batches`
                then stands where it stood before the epoch, the others after those batches.
        """
        permutation = torch.randperm(len(self.samples), generator=self.generators["batches"])
        augment = normalising_pipeline(self.samples.normalise, self.recipe.augment)
        parts = permutation.to(self.samples.device).split(self._sizes())
        position, take = sum(map(len, parts[:first])), self.samples.taking(parts)
        for number, indices in enumerate(parts[first:], first):
            yield Batch(epoch, position, indices, *self._seen(take(number), augment))
            position += len(indices)

    def _seen(self, images: Tensor, augment: Pipeline) -> tuple[Tensor, Mixing]:
        images = augment(images, self.generators["augment"])
        mixing = draw_mixing(self.recipe.mix, images, self.generators["mix"])
        return mixing.images(images), mixing


def sizes(count: int, size: int) -> list[int]:
    """How `count` samples split into parts of `size`, the last one smaller.

    A single sample left over joins the part before it: alone it has no batch statistics.
    """
    parts = [size] * (count // size) + [count % size] * (count % size > 0)
    return [*parts[:-2], parts[-2] + 1] if len(parts) > 1 and parts[-1] == 1 else parts


def draw_mixing(mix: Mix, images: Tensor, generator: Generator) -> Mixing:
    """Draw how one batch is mixed, as the file of `mixings/` that `mix` names does.

    Deviation: INFER's Alg. 2 takes max(lambda, 1 - lambda); its code does not, and with a uniform
    permutation both give the same distribution of mixed batches.

    Args:
        mix: name and alpha.
        images: (B, C, H, W) float; the batch, which is left alone.
        generator: a CPU generator.

    Returns:
        The mixing, its permutation on the device of `images`.
    """
    return registry.load("mixing", mix.name).draw(mix.alpha, images, generator)
