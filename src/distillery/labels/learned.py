"""Learned soft labels: what the distilled set itself says of each of its instances; no teacher, nothing stored beside it."""

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
    """space: what a loss is given, logarithms of probabilities or these less their mean over the classes. A softmax sees no
    difference; the cosine of GIFT means nothing without the latter."""

    space: Literal["log-probabilities", "centred"] = "log-probabilities"


def labeller(
    recipe: Recipe,
    *,
    stored: Artefact | None,
    teachers: list[Teacher],
    device: torch.device,
    own: Tensor | None = None,
) -> Callable[[Batch], Tensor | None]:
    """The set's own labels of a batch, (B, classes) float32 logits: the logarithm of the probabilities, which are mixed as the
    images are. own: `Instances.soft`, (N, classes). Raises PlanError when the set holds none.

    Deviation: labels whose sum drifted from 1 (RaT-BPTT learns them raw) count as the probabilities in proportion to them,
    since a loss takes the softmax of logits.
    """
    if own is None:
        raise PlanError(
            "labels 'learned' are those that a set holds, this one has none; use hard, or labels of teachers"
        )
    probabilities = own.to(device).exp()

    def label(batch: Batch) -> Tensor:
        logits = batch.mixing.labels(probabilities[batch.indices]).log()
        return logits - logits.mean(1, keepdim=True) if recipe.space == "centred" else logits

    return label
