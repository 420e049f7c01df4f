"""Learned soft labels: what the distilled set itself says of each of its instances.

No teacher, and nothing stored beside the set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distillery.errors import PlanError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distillery.store.artefact import Artefact
    from distillery.teacher.load import Teacher
    from distillery.training.batches import Batch

NAMES = ("learned",)
TRAITS = {
    "logits": True,
    "stored_in_set": True,  # labels that the set holds
    "counted_as": "static",  # how the papers' compression ratio counts them
}


@dataclass(frozen=True)
class Recipe:
    """How the labels are handed to a loss.

    Attributes:
        space: logarithms of probabilities, or these less their mean over the classes. A softmax
            sees no difference; the cosine of GIFT means nothing without the latter.
    """

    space: Literal["log-probabilities", "centred"] = "log-probabilities"


def labeller(
    recipe: Recipe,
    *,
    stored: Artefact | None,
    teachers: list[Teacher],
    device: torch.device,
    set_labels: Tensor | None = None,
) -> Callable[[Batch], Tensor | None]:
    """The set's own labels of a batch: the logarithm of the probabilities.

    The probabilities are mixed as the images are.
    Labels whose sum drifted from 1 (RaT-BPTT learns them raw) count as the probabilities in
    proportion to them where a loss takes the softmax of logits; `raw-ce` sees their sum.

    Args:
        recipe: the space of the labels.
        stored: not read.
        teachers: not read.
        device: of the batches.
        set_labels: `Instances.soft`, (N, classes), log-probabilities.

    Returns:
        From a batch to logits (B, classes) float32.

    Raises:
        PlanError: the set holds no soft labels.
    """
    if set_labels is None:
        raise PlanError(
            "labels 'learned' are those that a set holds, this one has none; "
            "use hard, or labels of teachers"
        )
    probabilities = set_labels.to(device).exp()

    def label(batch: Batch) -> Tensor:
        logits = batch.mixing.labels(probabilities[batch.indices]).log()
        return logits - logits.mean(1, keepdim=True) if recipe.space == "centred" else logits

    return label
