"""The space in which images are learned: whitened, or normalised per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.sets.whitening import Whitening
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job


@dataclass(frozen=True)
class ImageSpace:
    """The space that images are learned in.

    Attributes:
        real: the training images there.
        mean: per channel, with `std` what a pixel in [0, 1] is normalised by; 0 where the images
            are whitened.
        std: per channel; 1 where the images are whitened.
        whitening: the digest of the whitening, or None.
    """

    real: Samples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: str | None

    @classmethod
    def of(cls, train: ImageSet, job: Job) -> ImageSpace:
        """Whitened where the job has a whitening, otherwise normalised as the data is."""
        artefact = job.find_input("whitening")
        if artefact is None:
            real = Samples.from_images(train, job.device)
            return cls(real, tuple(train.mean), tuple(train.std), None)
        whitening, channels = Whitening.load(artefact, job.device), train.shape[0]
        real = Samples.from_images(train, job.device, whitening=whitening)
        return cls(real, (0.0,) * channels, (1.0,) * channels, whitening.digest)

    def stored(self, images: Tensor) -> Tensor:
        """Learned images (..., C, H, W) as a set stores them.

        They become pixels, which a student normalises again to what was learned, and may lie
        outside [0, 1]. Whitened ones stay as they are.
        """
        mean, std = (
            torch.tensor(values, device=images.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return images * std + mean
