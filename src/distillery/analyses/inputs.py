"""What an analysis looks at, what it returns, and the little that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from distillery.store.runtime import seed
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from torch import nn

    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.sets.whitening import Whitening
    from distillery.teacher.load import Teacher

BATCH = 256


@dataclass(frozen=True)
class AnalysisInputs:
    """Everything an analysis may look at; what its NEEDS does not name may be missing.

    train, test: the data set, decoded at the first look. stored: (N, classes) logits in the order of distilled.expand().
    student: a trained network on the job's device, in eval mode, frozen. mean, std: per channel, of pixels in [0, 1]; the
    normalisation of all networks here. whitening: of all images here, when the distilled set is whitened.
    distances: (n, n) float32 between the classes, 1 - cosine, on the CPU.
    """

    train: ImageSet
    test: ImageSet
    distilled: DistilledSet | None
    stored: Tensor | None
    teachers: list[Teacher]
    student: nn.Module | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: Whitening | None = None
    distances: Tensor | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""
        return self.train.classes

    def test_samples(self, device: torch.device) -> Samples:
        """The test images as every network here sees them."""
        return Samples.from_images(
            self.test, device, mean=self.mean, std=self.std, whitening=self.whitening
        )

    def instances(self, device: torch.device) -> Samples:
        """The instances of the distilled set, clean, in the order of expand()."""
        return Samples.from_instances(self.distilled.expand(device), self.mean, self.std, device)


@dataclass(frozen=True)
class Result:
    """value: the one number of a table. values: tidy rows, column -> list. arrays: what a figure needs besides. metadata: for
    meta.json, JSON values only."""

    value: float
    values: dict[str, list[Any]]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def outputs(
    function: Callable[[Tensor], Tensor], samples: Samples, indices: Tensor | None = None
) -> Tensor:
    """`function` of the clean, normalised images (B, C, H, W) at `indices` (None: all), batch by batch: (N, ...) on the CPU."""
    indices = torch.arange(len(samples)) if indices is None else indices
    parts = indices.to(samples.device).split(BATCH)
    return torch.cat([function(samples.normalise(samples.take(part))).cpu() for part in parts])


def fixed_generator(role: str) -> Generator:
    """A fresh CPU generator that depends on `role` alone: what all students of a figure must have in common."""
    return Generator().manual_seed(seed("analysis", role))


def fixed_choice(role: str, count: int, size: int) -> Tensor:
    """`count` of the indices 0 .. size - 1 (all when there are fewer) in random order, int64; `role` alone decides which."""
    return torch.randperm(size, generator=fixed_generator(role))[:count]
