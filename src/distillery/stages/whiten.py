"""The whiten stage: the matrix that whitens a data set's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from distillery.components.fields import NonNegative, read
from distillery.data.images import load_images
from distillery.errors import DataError
from distillery.sets.whitening import FILE, Whitening, covariance, zca
from distillery.store.checkpoint import folding

if TYPE_CHECKING:
    from distillery.store.job import Job

BATCH = 2048


@dataclass(frozen=True)
class WhitenRecipe:
    """How a data set is whitened.

    Attributes:
        ridge: added to every eigenvalue, in units of their mean; 0.1 in the code of PoDD and
            RaT-BPTT.
    """

    ridge: NonNegative = 0.1


def make(job: Job) -> dict[str, Any]:
    """Write whitening.safetensors: `matrix` (D, D) float32, the ZCA of the training images.

    Everything is computed in float64 on the job's device, the covariance batch by batch.

    Returns:
        The digest of the matrix; the least, the largest and the sum of the eigenvalues of the
        covariance; class order and shape of the data.

    Raises:
        DataError: the images give no finite matrix: all of one colour, or fewer than dimensions
            without a ridge.
    """
    train = load_images(job.input("data"), "train")
    sigma = covariance(
        torch.arange(len(train)).split(BATCH),
        lambda part: train.pixels(part).to(job.device),
        folding(job, "covariance", label="whiten"),
    )
    matrix, values = zca(sigma, read(WhitenRecipe, job.recipe).ridge)
    whitening = Whitening.of(matrix.float().cpu())
    if not torch.isfinite(whitening.matrix).all():
        raise DataError(
            f"data {job.input('data').id}: its images give no finite whitening; "
            f"raise the ridge of `whiten`"
        )
    save_file({"matrix": whitening.matrix.contiguous()}, job.out / FILE)
    return {
        "digest": whitening.digest,
        "eigenvalues": {
            "least": values[0].item(),
            "largest": values[-1].item(),
            "sum": values.sum().item(),
        },
        "class_order": train.class_order,
        "shape": list(train.shape),
    }
