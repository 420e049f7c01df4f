"""Data densification: keep the images of a class from being copies of each other (G-VBSM, CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.training.resample import separable

SIDE = 32


def densification(images: Tensor, counts: Sequence[int], tau: float = 4.0) -> Tensor:
    """Sum over classes of KL(softmax(e / tau) || softmax(e)), e the eigenvalues of the Gram matrix of the class's images.

    images: (B, C, H, W), class by class, counts[i] of class i; brought to 32 x 32 by adaptive average pooling and flattened,
    not centred. The first distribution is the target and passes no gradient, so that the eigenvalues are drawn together. Zero
    for classes of one image. Returns a scalar. Raises torch.linalg.LinAlgError when an image is not finite.
    """
    parts = (
        separable(images, partial(F.adaptive_avg_pool1d, output_size=SIDE))
        .flatten(1)
        .split(list(counts))
    )
    total = images.new_zeros(())
    for count in sorted(set(counts) - {1}):  # classes of the same size side by side
        rows = torch.stack([part for part in parts if len(part) == count])
        values = torch.linalg.eigvalsh(rows @ rows.mT)
        total = total + F.kl_div(
            values.log_softmax(1), (values.detach() / tau).softmax(1), reduction="sum"
        )
    return total
