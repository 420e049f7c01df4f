"""What a loss compares the student with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.errors import DistilleryError


@dataclass(frozen=True)
class Target:
    """The labels of one batch.

    Attributes:
        hard: (B,) int64; the classes of the images before mixing.
        mixed: (B, classes) float32 probabilities; the one-hot labels mixed as the images are,
            one-hot where nothing is mixed.
        logits: (B, classes) float32; a teacher's raw logits, already those of the mixed images;
            None with hard labels.
        epoch: of the training, from 0.
        lam: share of an image's own label in `mixed`; 1 where nothing is mixed.
    """

    hard: Tensor
    mixed: Tensor
    logits: Tensor | None = None
    epoch: int = 0
    lam: float = 1.0

    def soft(self, name: str) -> Tensor:
        """`logits`, without gradient.

        Args:
            name: of the loss or refinement that asks, for the message.

        Raises:
            DistilleryError: there are none.
        """
        if self.logits is None:
            raise DistilleryError(
                f"'{name}' needs soft labels: set labels to 'static' or 'dynamic', or loss to 'ce'"
            )
        return self.logits.detach()

    def unmixed(self, name: str) -> Tensor:
        """`hard`, of images that are not mixed.

        Args:
            name: of the loss that asks, for the message.

        Raises:
            DistilleryError: the images are mixed, so that they have no single class.
        """
        if self.lam != 1:
            raise DistilleryError(
                f"loss '{name}' is not defined for mixed images: set training.mix to 'none'"
            )
        return self.hard


def non_target_logits(logits: Tensor, hard: Tensor) -> Tensor:
    """The logits (B, classes - 1) of all classes but `hard` (B,), in their order."""
    index = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    # From the target's column on, each index skips it by one.
    return logits.gather(1, index + (index >= hard[:, None]))
