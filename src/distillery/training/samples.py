"""Labelled images as the training loop reads them: real ones and distilled ones alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import Instances
    from distillery.sets.whitening import Whitening

PART = 4096  # images
RESIDENT = 4 * 1024**3  # bytes; a set up to this size lives on the device as a whole


@dataclass(frozen=True)
class Samples:
    """labels: (N,) int64 on the device. read: indices (B,) int64 on the device -> images there, uint8, or float in [0, 1] or
    whitened.
    mean, std: (C, 1, 1) float32 on the device, per channel, of pixels in [0, 1].
    """

    labels: Tensor
    read: Callable[[Tensor], Tensor]
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the labels, the constants and every batch live."""
        return self.labels.device

    def take(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W) float32 in [0, 1], or whitened, on the device, for indices (B,) int64 on the device."""
        images = self.read(indices)
        return images.float() if images.is_floating_point() else images.float().div_(255)

    def normalise(self, images: Tensor) -> Tensor:
        """(images - mean) / std per channel; images: (B, C, H, W) in [0, 1]."""
        return images.sub(self.mean).div_(self.std)

    @classmethod
    def from_images(
        cls,
        images: ImageSet,
        device: torch.device | str,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        whitening: Whitening | None = None,
        resident: int = RESIDENT,
    ) -> Samples:
        """Real images, kept as uint8; a set of over `resident` bytes is read batch by batch. mean, std: None means its own.
        whitening: whitens them when they are read, to float32, which the constants leave alone: 0 and 1, whatever is given."""
        labels, device = torch.as_tensor(images.labels), torch.device(device)

        def fetch(indices: Tensor) -> Tensor:
            pixels = torch.as_tensor(images.pixels(indices.cpu())).to(device)
            return (
                torch.cat([whitening.apply(part.float() / 255) for part in pixels.split(PART)])
                if whitening
                else pixels
            )

        fits = len(labels) * math.prod(images.shape) * (4 if whitening else 1) <= resident
        plain = ([0.0] * images.shape[0], [1.0] * images.shape[0])
        constants = _constants(
            *(plain if whitening else (mean or images.mean, std or images.std)), device
        )
        return cls(labels.to(device), _reader(fetch, len(labels), fits), *constants)

    @classmethod
    def from_instances(
        cls,
        instances: Instances,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        *,
        resident: int = RESIDENT,
    ) -> Samples:
        """The instances of a distilled set, float32 in [0, 1]; a set of over `resident` bytes is built batch by batch."""
        home = instances.labels.device

        def fetch(indices: Tensor) -> Tensor:
            return instances.take(indices.to(home)).to(device)

        fits = len(instances) * fetch(torch.zeros(1, dtype=torch.int64)).nbytes <= resident
        return cls(
            instances.labels.to(device),
            _reader(fetch, len(instances), fits),
            *_constants(mean, std, device),
        )


def _reader(
    fetch: Callable[[Tensor], Tensor], count: int, whole: bool
) -> Callable[[Tensor], Tensor]:
    if not whole:
        return fetch
    images = fetch(torch.arange(count))
    return lambda indices: images.index_select(0, indices)


def _constants(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(tuple(v), dtype=torch.float32, device=device).view(-1, 1, 1)
        for v in (mean, std)
    )
    return mean, std
