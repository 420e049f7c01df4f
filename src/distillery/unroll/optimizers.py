"""Optimisers as functions of one flat vector, differentiable in all they are given. The formulas are torch.optim's.

Moments are a tuple of vectors (P,), and empty where an optimiser keeps none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Moments = tuple[Tensor, ...]
LEAST = 1e-30  # far below the square of any gradient that matters, far above the smallest float32


class Optimizer(Protocol):
    """What the unrolled loop asks of an optimiser."""

    def start(self, theta: Tensor) -> Moments:
        """The moments before the first step of theta (P,)."""

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int
    ) -> tuple[Tensor, Moments]:
        """theta (P,) and moments after one more step; `count` steps, from 0, have been made before."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), without weight decay.

    The root of the second moment v has an infinite slope at 0, and one dead channel would make every meta-gradient NaN. Where v
    is below 1e-30 it counts as constant: the step is the same (its first moment is 0 too), the derivative through v is 0.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def start(self, theta: Tensor) -> Moments:
        """Both moments, zeros (P,)."""
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int
    ) -> tuple[Tensor, Moments]:
        """theta - lr m^ / (sqrt(v^) + eps), the moments m and v divided by 1 - beta^(count+1): freed of their zeros."""
        first, second = self.betas
        mean = torch.lerp(moments[0], gradient, 1 - first)
        square = torch.addcmul(second * moments[1], gradient, gradient, value=1 - second)
        left = math.sqrt(1 - second ** (count + 1))
        root = square.clamp(min=LEAST).sqrt() + self.eps * left
        return torch.addcdiv(
            theta, mean, root, value=-self.lr * left / (1 - first ** (count + 1))
        ), (mean, square)


@dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum and an L2 decay that is added to the gradient."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def start(self, theta: Tensor) -> Moments:
        """The velocity, zeros (P,), where there is momentum."""
        return (torch.zeros_like(theta),) if self.momentum else ()

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int
    ) -> tuple[Tensor, Moments]:
        """theta - lr u, the velocity u being momentum u + gradient + weight_decay theta."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        moments = tuple(self.momentum * velocity + gradient for velocity in moments)
        return theta - self.lr * (moments[0] if moments else gradient), moments
