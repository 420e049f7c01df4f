"""Data densification: keep the images of a class from being copies (G-VBSM, CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.training.resample import separable

SIDE = 32


def densification(images: Tensor, counts: Sequence[int], tau: float = 4.0) -> Tensor:
    """Sum over classes of KL(softmax(e / tau) || softmax(e)).

    e are the eigenvalues of the Gram matrix of the images of a class. The first distribution is the
    target and passes no gradient, so that the eigenvalues are drawn together. A class of one image
    adds nothing.

    Args:
        images: (B, C, H, W), class by class; brought to 32 x 32 by adaptive average pooling and
            flattened, not centred.
        counts: how many of them each class has, in order.
        tau: temperature of the target.

    Returns:
        A scalar.

    Raises:
        torch.linalg.LinAlgError: an image is not finite.
    """
    pooled = separable(images, partial(F.adaptive_avg_pool1d, output_size=SIDE))
    by_class = pooled.flatten(1).split(list(counts))
    total = images.new_zeros(())
    for count in sorted(set(counts) - {1}):
        # Classes of one size are one batch of matrices.
        rows = torch.stack([members for members in by_class if len(members) == count])
        eigenvalues = torch.linalg.eigvalsh(rows @ rows.mT)
        target = (eigenvalues.detach() / tau).softmax(1)
        total = total + F.kl_div(eigenvalues.log_softmax(1), target, reduction="sum")
    return total
