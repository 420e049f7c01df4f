"""What an analysis looks at, what it returns, and the little that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Generator, Tensor

from distillery.errors import PlanError
from distillery.store.checkpoint import gathered
from distillery.store.runtime import seed
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from torch import nn

    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.sets.whitening import Whitening
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

T = TypeVar("T")

BATCH = 256


@dataclass(frozen=True)
class AnalysisInputs:
    """Everything an analysis may look at; what its TRAITS do not name under `needs` may be None.

    Attributes:
        train: the training images, decoded at the first look.
        test: the test images, likewise.
        distilled: the distilled set.
        stored: (N, classes) stored logits in the order of `distilled.expand()`.
        teachers: those that the recipe names, in its order.
        student: a trained network on the job's device, in eval mode, frozen.
        mean: per channel, of pixels in [0, 1]; with `std` the normalisation of all networks here.
        std: per channel.
        whitening: of all images here, where the distilled set is whitened.
        distances: (classes, classes) float32, 1 - cosine, on the CPU.
        distilled_with: the networks that the distilled set was made with, as its recipe names them,
            in its order.
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
    distilled_with: tuple[str, ...] = ()

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
        """The instances of the distilled set, not augmented, in the order of `expand()`."""
        expanded = needed(self.distilled, "distilled").expand(device)
        return Samples.from_instances(expanded, self.mean, self.std, device)


@dataclass(frozen=True)
class Result:
    """What an analysis found.

    Attributes:
        value: the one number of a table's cell.
        values: tidy rows, column -> one entry a row.
        arrays: what a figure needs besides.
        metadata: for meta.json, JSON values only.
    """

    value: float
    values: Mapping[str, Sequence[Any]]
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def needed(part: T | None, role: str) -> T:
    """`part` of the inputs, which the analysis cannot do without.

    Raises:
        PlanError: it is None: the analysis does not name `role` in its TRAITS.
    """
    if part is None:
        raise PlanError(f"the analysis has no '{role}'; name it in TRAITS['needs'] of its file")
    return part


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Rows with one entry for each of `names`, at least one, as the columns of a `Result`."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


@torch.no_grad()
def outputs(
    job: Job,
    name: str,
    function: Callable[[Tensor], Tensor],
    samples: Samples,
    indices: Tensor | None = None,
) -> Tensor:
    """A function of images, batch by batch; a killed job goes on after the last batch it saved.

    Args:
        job: keeps what it gives.
        name: of the files that do.
        function: of images (B, C, H, W), normalised and not augmented.
        samples: the images.
        indices: (N,) int64, which of them; None: all.

    Returns:
        (N, ...) on the CPU.
    """
    indices = torch.arange(len(samples)) if indices is None else indices
    parts = indices.to(samples.device).split(BATCH)
    return torch.cat(
        gathered(
            job, name, parts, lambda part: function(samples.normalise(samples.take(part))).cpu()
        )
    )


def fixed_generator(role: str) -> Generator:
    """A fresh CPU generator that depends on `role` alone, so that all rows of a figure share it."""
    return Generator().manual_seed(seed("analysis", role))


def fixed_choice(role: str, count: int, size: int) -> Tensor:
    """A random choice of indices that depends on `role` alone.

    Args:
        role: of the random numbers.
        count: how many indices; all where there are fewer.
        size: the indices are 0 .. size - 1.

    Returns:
        (count,) int64, in random order.
    """
    return torch.randperm(size, generator=fixed_generator(role))[:count]
