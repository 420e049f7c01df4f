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

PART = 4096  # images that are whitened at a time
RESIDENT = 4 * 1024**3  # bytes; a set up to this size lives on the device as a whole


@dataclass(frozen=True)
class Samples:
    """Labelled images on a device, all of them or read when they are asked for.

    Attributes:
        labels: (N,) int64 on the device.
        read: from indices (B,) int64 on the device to images there, uint8, or float in [0, 1] or
            whitened.
        mean: (C, 1, 1) float32 on the device; per channel, of pixels in [0, 1].
        std: as `mean`.
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
        """Images (B, C, H, W) float32 in [0, 1], or whitened, for indices (B,) on the device."""
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
        """Real images, kept as uint8, or float32 where they are whitened.

        Args:
            images: the images and their labels.
            device: where they shall be.
            mean: per channel, of pixels in [0, 1]; None: their own.
            std: as `mean`.
            whitening: whitens them when they are read; `mean` and `std` are then 0 and 1, whatever
                is given.
            resident: bytes; a larger set is read batch by batch.
        """
        labels, device = torch.as_tensor(images.labels), torch.device(device)

        def fetch(indices: Tensor) -> Tensor:
            pixels = torch.as_tensor(images.pixels(indices.cpu())).to(device)
            if whitening is None:
                return pixels
            return torch.cat([whitening.apply(part.float() / 255) for part in pixels.split(PART)])

        item_size = 4 if whitening else 1
        fits = len(labels) * math.prod(images.shape) * item_size <= resident
        if whitening:
            mean, std = [0.0] * images.shape[0], [1.0] * images.shape[0]
        return cls(
            labels.to(device),
            _reader(fetch, len(labels), fits),
            _per_channel(mean or images.mean, device),
            _per_channel(std or images.std, device),
        )

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
        """The instances of a distilled set, float32 in [0, 1].

        Args:
            instances: of the set.
            mean: per channel, of pixels in [0, 1].
            std: as `mean`.
            device: where the images shall be.
            resident: bytes; a larger set is built batch by batch.
        """
        home = instances.labels.device

        def fetch(indices: Tensor) -> Tensor:
            return instances.take(indices.to(home)).to(device)

        fits = len(instances) * fetch(torch.zeros(1, dtype=torch.int64)).nbytes <= resident
        return cls(
            instances.labels.to(device),
            _reader(fetch, len(instances), fits),
            _per_channel(mean, device),
            _per_channel(std, device),
        )


def _reader(
    fetch: Callable[[Tensor], Tensor], count: int, whole: bool
) -> Callable[[Tensor], Tensor]:
    """`fetch`, or, where the `whole` set fits, a look into what it gives for all `count` images."""
    if not whole:
        return fetch
    images = fetch(torch.arange(count))
    return lambda indices: images.index_select(0, indices)


def _per_channel(values: Sequence[float], device: torch.device | str) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32, device=device).view(-1, 1, 1)
