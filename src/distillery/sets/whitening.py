"""ZCA whitening of normalised images, as PoDD, RaT-BPTT, FRePo and KIP use it.

Every image has mean 0 and length 1 before it is whitened. This is not Kornia's ZCA of the MTT
family, which removes the mean of each feature and adds an absolute ridge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distillery.errors import ArtefactError

if TYPE_CHECKING:
    from distillery.store.artefact import Artefact
    from distillery.store.checkpoint import Fold

FILE = "whitening.safetensors"
BATCH = 4096
SHORTEST = 1e-4  # least length of an image; one where a single value is off by 1/255 has 4e-3


@dataclass(frozen=True)
class Whitening:
    """A linear map of images.

    Attributes:
        matrix: (D, D) float32, symmetric, D = C * H * W.
        digest: SHA-256 of the matrix's bytes, hex; what a whitened set names.
    """

    matrix: Tensor = field(repr=False)
    digest: str

    @classmethod
    def of(cls, matrix: Tensor) -> Whitening:
        """The whitening by `matrix` (D, D) float32."""
        return cls(matrix, hashlib.sha256(matrix.cpu().contiguous().numpy().tobytes()).hexdigest())

    @classmethod
    def load(cls, artefact: Artefact, device: torch.device | str = "cpu") -> Whitening:
        """That of an artefact of the whiten stage, its matrix on `device`.

        Raises:
            ArtefactError: the file is unreadable.
        """
        try:
            whitening = cls.of(load_file(artefact.file(FILE))["matrix"])
        except (KeyError, SafetensorError) as error:
            raise ArtefactError(
                f"{artefact.path / FILE}: holds no whitening ({error}); "
                f"delete the folder, run again"
            ) from None
        return cls(whitening.matrix.to(device), whitening.digest)

    def apply(self, images: Tensor) -> Tensor:
        """Whitened images (B, C, H, W) float32.

        Args:
            images: (B, C, H, W) float in [0, 1]; their scale does not matter.
        """
        parts = [normalise_l2(part) @ self.matrix.to(part) for part in images.split(BATCH)]
        return torch.cat(parts).view(images.shape)

    def restore(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of mean 0 and length 1 from whitened ones.

        For pictures: the mean and the length that they had are lost.
        """
        return (images.flatten(1) @ self._inverse.to(images)).view(images.shape)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.matrix.double()).float()


def normalise_l2(images: Tensor) -> Tensor:
    """Images as vectors of mean 0 and length 1.

    From each the scalar mean over all of its values is subtracted. An image of one colour becomes
    0.

    Deviation: the authors guard the length by 1e-8, which in float32 turns the rounding of an image
    of one colour into a vector of length 1.

    Args:
        images: (B, C, H, W) in [0, 1].

    Returns:
        (B, D), D = C * H * W.
    """
    vectors = images.flatten(1)
    vectors = vectors - vectors.mean(1, keepdim=True)
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(SHORTEST)


def covariance(
    batches: Iterable[Tensor],
    read: Callable[[Tensor], Tensor] = lambda images: images,
    fold: Fold = reduce,
) -> Tensor:
    """Sigma = X^T X / N of the `normalise_l2` vectors X of all images, not centred.

    Args:
        batches: at least one.
        read: from a batch to its images (B, C, H, W).
        fold: goes through the batches.

    Returns:
        (D, D) float64.
    """

    def add(sums: tuple[Tensor, int], batch: Tensor) -> tuple[Tensor, int]:
        vectors = normalise_l2(read(batch).double())
        product = vectors.T @ vectors
        return sums[0].to(product.device) + product, sums[1] + len(vectors)

    total, count = fold(add, batches, (torch.zeros((), dtype=torch.float64), 0))
    return total / count


def zca(sigma: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """W = V (L + ridge mean(L))^(-1/2) V^T of Sigma = V L V^T.

    Deviation: the authors' solver is a general one, slow and sometimes complex; a symmetric one
    gives the same W.

    Args:
        sigma: (D, D) float64.
        ridge: in units of the mean eigenvalue.

    Returns:
        W (D, D) float64, and L (D,), ascending.
    """
    values, vectors = torch.linalg.eigh(sigma)
    values = values.clamp_min(0)
    matrix = (vectors * (values + ridge * values.mean()).rsqrt()) @ vectors.T
    return (matrix + matrix.T) / 2, values  # symmetric to the bit


def matching_whitening(
    artefact: Artefact | None, digest: str | None, owner: str, device: torch.device | str = "cpu"
) -> Whitening | None:
    """The whitening that a set was made with.

    Args:
        artefact: the whitening of this job, if it has one.
        digest: in the set's sidecar; None for a set that is not whitened.
        owner: names the set in an error.
        device: where the matrix goes.

    Returns:
        The whitening, or None for a set that is not whitened.

    Raises:
        ArtefactError: the artefact is another one, or is missing where there is a digest, or the
            reverse.
    """
    whitening = Whitening.load(artefact, device) if artefact else None
    given = whitening.digest if whitening else None
    if given != digest:
        raise ArtefactError(
            f"{owner} was made with whitening {_short(digest)}, this job has {_short(given)}: "
            f"distil the set again with the whitening of this plan"
        )
    return whitening


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
