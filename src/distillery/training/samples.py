"""Labelled images as the training loop reads them: real ones and distilled ones alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.store.memory import fits
from distillery.training.read_ahead import ReadAhead

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import Instances
    from distillery.sets.whitening import Whitening

PART = 4096  # images that are whitened at a time
COPIED = 1 << 28  # bytes, about, of what is copied to where it is kept at a time


@dataclass(frozen=True)
class Samples:
    """Labelled images on a device, all of them or read when they are asked for.

    Attributes:
        labels: (N,) int64 on the device.
        read: from indices (B,) int64 on the device to images there, uint8, or float in [0, 1] or
            whitened.
        mean: (C, 1, 1) float32 on the device; per channel, of pixels in [0, 1].
        std: as `mean`.
        slow: whether reading takes long, so that it pays to do it ahead: images that are not kept
            on the device are decoded, built or brought there.
    """

    labels: Tensor
    read: Callable[[Tensor], Tensor]
    mean: Tensor
    std: Tensor
    slow: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the labels, the constants and every batch live."""
        return self.labels.device

    def take(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W) float32 in [0, 1], or whitened, for indices (B,) on the device."""
        return _as_floats(self.read(indices))

    def taking(self, parts: Sequence[Tensor]) -> Callable[[int], Tensor]:
        """`take(parts[i])` by i, which grows by one; where reading is slow, it is done ahead.

        Args:
            parts: indices (B,) int64 on the device each.
        """
        # A thread beside the one of a CPU that computes would take that one's time.
        if not self.slow or (self.device.type == "cpu" and torch.get_num_threads() == 1):
            return lambda number: self.take(parts[number])
        ahead = ReadAhead(self.read, parts)
        return lambda number: _as_floats(ahead(number))

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
        resident: int | None = None,
    ) -> Samples:
        """Real images, kept as uint8, or float32 where they are whitened.

        On a CPU those that `images` keeps are not kept again.

        Args:
            images: the images and their labels.
            device: where they shall be.
            mean: per channel, of pixels in [0, 1]; None: their own.
            std: as `mean`.
            whitening: whitens them when they are read; `mean` and `std` are then 0 and 1, whatever
                is given.
            resident: bytes; a larger set is read batch by batch. None: what fits there
                (`store.memory`).
        """
        labels, device = torch.as_tensor(images.labels), torch.device(device)

        def fetch(indices: Tensor) -> Tensor:
            pixels = torch.as_tensor(images.pixels(indices.cpu())).to(device)
            if whitening is None:
                return pixels
            return torch.cat([whitening.apply(part.float() / 255) for part in pixels.split(PART)])

        if whitening:
            mean, std = [0.0] * images.shape[0], [1.0] * images.shape[0]
        constants = (
            _per_channel(mean or images.mean, device),
            _per_channel(std or images.std, device),
        )
        if whitening is None and device.type == "cpu" and images.resident:
            return cls(labels, fetch, *constants)
        one = math.prod(images.shape) * (4 if whitening else 1)
        read, slow = _reader(fetch, len(labels), one, device, resident)
        return cls(labels.to(device), read, *constants, slow)

    @classmethod
    def from_instances(
        cls,
        instances: Instances,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        *,
        resident: int | None = None,
    ) -> Samples:
        """The instances of a distilled set: float32 in [0, 1], kept as uint8 where they are levels.

        Args:
            instances: of the set, on any device.
            mean: per channel, of pixels in [0, 1].
            std: as `mean`.
            device: where the images shall be.
            resident: bytes; a larger set is built batch by batch. None: what fits there
                (`store.memory`).
        """
        home, device = instances.labels.device, torch.device(device)
        build = instances.levels or instances.take

        def fetch(indices: Tensor) -> Tensor:
            return build(indices.to(home)).to(device)

        one = fetch(torch.zeros(1, dtype=torch.int64)).nbytes
        read, slow = _reader(fetch, len(instances), one, device, resident)
        labels = instances.labels.to(device)
        return cls(labels, read, _per_channel(mean, device), _per_channel(std, device), slow)


def _as_floats(images: Tensor) -> Tensor:
    return images.float() if images.is_floating_point() else images.float().div_(255)


def _reader(
    fetch: Callable[[Tensor], Tensor],
    count: int,
    one: int,
    device: torch.device,
    resident: int | None,
) -> tuple[Callable[[Tensor], Tensor], bool]:
    """`fetch`, or a look into what it gives for all images, where that fits; whether it is slow.

    Args:
        fetch: from indices to images on the device.
        count: of all images.
        one: bytes of one.
        device: where they are.
        resident: bytes up to which they fit; None: as `store.memory` says.
    """
    fitting = fits(count * one, device) if resident is None else count * one <= resident
    if not fitting:
        return fetch, True
    images = _whole(fetch, count, one)
    return lambda indices: images.index_select(0, indices), False


def _whole(fetch: Callable[[Tensor], Tensor], count: int, one: int) -> Tensor:
    """All images, part by part: nothing is there twice."""
    parts = torch.arange(count).split(max(1, min(PART, COPIED // one)))
    first = fetch(parts[0])
    if len(parts) == 1:
        return first
    images = first.new_empty(count, *first.shape[1:])
    for part in parts:
        images[part[0] : part[-1] + 1] = first if part is parts[0] else fetch(part)
    return images


def _per_channel(values: Sequence[float], device: torch.device | str) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32, device=device).view(-1, 1, 1)
