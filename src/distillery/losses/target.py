"""What a loss compares the student with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distillery.errors import DistilleryError


@dataclass(frozen=True)
class Target:
    """The labels of one batch.

    hard: (B,) int64, the classes of the images before mixing. mixed: (B, classes) float32 probabilities, the one-hot labels
    mixed as the images are; one-hot where nothing is mixed. logits: (B, classes) float32, a teacher's raw logits, already
    those of the mixed images; None with hard labels.
    """

    hard: Tensor
    mixed: Tensor
    logits: Tensor | None = None

    def soft(self, loss: str) -> Tensor:
        """`logits`. Raises DistilleryError, naming the `loss` that asks, when there are none."""
        if self.logits is None:
            raise DistilleryError(f"loss '{loss}' needs soft labels: set labels to 'static' or 'dynamic', or loss to 'ce'")
        return self.logits
