"""ZCA whitening of normalised images, as PoDD, RaT-BPTT, FRePo and KIP use it: every image has length 1 before it is whitened.

Not Kornia's ZCA of the MTT family, which removes the mean of each feature and adds an absolute ridge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distillery.errors import ArtefactError

if TYPE_CHECKING:
    from distillery.store.artefact import Artefact

FILE = "whitening.safetensors"
BATCH = 4096
SHORTEST = 1e-4  # the length of an image that is all but plain: one value off by 1/255 has 4e-3


@dataclass(frozen=True)
class Whitening:
    """matrix: (D, D) float32, symmetric, D = C * H * W. digest: SHA-256 of its bytes, hex; what a whitened set names."""

    matrix: Tensor = field(repr=False)
    digest: str

    @classmethod
    def of(cls, matrix: Tensor) -> Whitening:
        """The whitening by `matrix` (D, D) float32."""
        return cls(matrix, hashlib.sha256(matrix.cpu().contiguous().numpy().tobytes()).hexdigest())

    @classmethod
    def load(cls, artefact: Artefact, device: torch.device | str = "cpu") -> Whitening:
        """That of a whitening artefact, its matrix on `device`. Raises ArtefactError when the file is unreadable."""
        try:
            whitening = cls.of(load_file(artefact.file(FILE))["matrix"])
        except (KeyError, SafetensorError) as error:
            raise ArtefactError(
                f"{artefact.path / FILE}: holds no whitening ({error}); delete the folder, run again"
            ) from None
        return cls(whitening.matrix.to(device), whitening.digest)

    def apply(self, images: Tensor) -> Tensor:
        """Whitened images (B, C, H, W) float32 of images of that shape, float, in [0, 1]; their scale does not matter."""
        parts = [unit(part) @ self.matrix.to(part) for part in images.split(BATCH)]
        return torch.cat(parts).view(images.shape)

    def restore(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of mean 0 and length 1 of whitened ones: for pictures, since mean and length are lost."""
        return (images.flatten(1) @ self._inverse.to(images)).view(images.shape)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.matrix.double()).float()


def unit(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] as vectors (B, D) of mean 0 and length 1, the scalar mean over all D values of each taken
    off; of an image of one colour 0.

    Deviation: the authors guard the length by 1e-8, which in float32 turns the rounding of a plain image into one of length 1.
    """
    vectors = images.flatten(1)
    vectors = vectors - vectors.mean(1, keepdim=True)
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(SHORTEST)


def covariance(batches: Iterable[Tensor]) -> Tensor:
    """Sigma = X^T X / N (D, D) float64 of the `unit` vectors X of all images, `batches` of (B, C, H, W): no centring."""
    total, count = 0.0, 0
    for images in batches:
        vectors = unit(images.double())
        total, count = total + vectors.T @ vectors, count + len(images)
    return total / count


def zca(sigma: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """W = V (L + ridge mean(L))^(-1/2) V^T of Sigma = V L V^T, both (D, D) float64, and L (D,), ascending.

    Deviation: the authors' solver is a general one, slow and sometimes complex; a symmetric one gives the same W.
    """
    values, vectors = torch.linalg.eigh(sigma)
    values = values.clamp_min(0)
    matrix = (vectors * (values + ridge * values.mean()).rsqrt()) @ vectors.T
    return (matrix + matrix.T) / 2, values


def fitting(
    artefact: Artefact | None, digest: str | None, owner: str, device: torch.device | str = "cpu"
) -> Whitening | None:
    """The whitening that a set named `owner` was made with, by the `digest` in its sidecar; None for a set that has none.

    Raises ArtefactError when the artefact is another one, or is missing where there is a digest, or the reverse.
    """
    whitening = Whitening.load(artefact, device) if artefact else None
    found = whitening and whitening.digest
    if found != digest:
        raise ArtefactError(
            f"{owner} was made with whitening {_short(digest)}, this job has {_short(found)}: "
            f"distil the set again with the whitening of this plan"
        )
    return whitening


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
