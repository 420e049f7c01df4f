"""An optimisation of images between two steps: what it needs, and what a checkpoint of it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from distillery.store.checkpoint import same_form

if TYPE_CHECKING:
    from distillery.store.checkpoint import Checkpoint, Stateful


class AdamFields(Protocol):
    """The fields of a method's Recipe that `recover` reads."""

    @property
    def iterations(self) -> int:
        """Steps."""
        ...

    @property
    def lr(self) -> float:
        """Learning rate at the first step."""
        ...

    @property
    def betas(self) -> tuple[float, float]:
        """Of Adam."""
        ...


class ImageObjective(Protocol):
    """What `recover` minimises."""

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both losses and the gradient of their weighted sum.

        Args:
            images: (G, B, C, H, W), normalised.
            labels: (B,) int64, the same for each group.

        Returns:
            Cross entropy and loss of the statistics (scalars), and the gradient by the images, in
            their shape.
        """
        ...


@dataclass
class RecoveryState:
    """An optimisation between two steps.

    Attributes:
        leaf: what is optimised.
        adam: its optimiser.
        streams: the random streams, and what else a step changes.
        steps: how many were made.
    """

    leaf: Tensor
    adam: torch.optim.Adam
    streams: Sequence[Stateful]
    steps: int = 0

    @classmethod
    def of(cls, start: Tensor, recipe: AdamFields, streams: Sequence[Stateful]) -> RecoveryState:
        """The state before the first step."""
        leaf = start.detach().clone().requires_grad_()
        adam = torch.optim.Adam([leaf], betas=recipe.betas, eps=1e-8)
        # As Adam itself starts, but before its first step: every state has the same form then.
        zeros = {name: torch.zeros_like(leaf.detach()) for name in ("exp_avg", "exp_avg_sq")}
        adam.state[leaf] = {"step": torch.zeros(()), **zeros}
        return cls(leaf, adam, streams)

    def state(self) -> dict[str, Any]:
        """What the next steps follow from."""
        return {
            "steps": self.steps,
            "leaf": self.leaf.detach(),
            "adam": dict(self.adam.state[self.leaf]),
            "streams": [stream.get_state() for stream in self.streams],
        }

    def resume(self, checkpoint: Checkpoint, iterations: int) -> None:
        """Go on from a checkpoint, where there is one of such an optimisation."""
        stored = checkpoint.load()
        if stored is None or not same_form(stored, self.state()):
            return
        if 0 <= stored["steps"] <= iterations:
            self._restore(stored)

    def _restore(self, stored: Mapping[str, Any]) -> None:
        self.steps = stored["steps"]
        with torch.no_grad():
            self.leaf.copy_(stored["leaf"])
            for name, value in self.adam.state[self.leaf].items():
                value.copy_(stored["adam"][name])
        for stream, state in zip(self.streams, stored["streams"], strict=True):
            stream.set_state(state)
