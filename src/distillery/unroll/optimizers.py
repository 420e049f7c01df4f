"""Optimisers as functions of one flat vector, differentiable in all that they are given.

The formulas are those of torch.optim. Moments are a tuple of vectors (P,), and empty where an
optimiser keeps none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Moments = tuple[Tensor, ...]
LEAST = 1e-30  # far below the square of any gradient that matters, far above the least float32


class FlatOptimizer(Protocol):
    """What the unrolled training asks of an optimiser."""

    def start(self, theta: Tensor) -> Moments:
        """The moments before the first step of theta (P,)."""
        ...

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int
    ) -> tuple[Tensor, Moments]:
        """One more step.

        Args:
            theta: (P,) parameters.
            moments: those of the step before, or of `start`.
            gradient: (P,).
            count: steps made before, from 0.

        Returns:
            theta (P,) and the moments after the step.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), without weight decay.

    The root of the second moment v has an infinite derivative at 0, and one dead channel would make
    every meta-gradient NaN. Where v is below 1e-30 it counts as constant: the step is the same (its
    first moment is 0 too), the derivative through v is 0.

    Deviation: eps is added to the root of the bias-corrected v, as in torch.optim; `higher`, on
    which the authors of PoDD and RaT-BPTT build, adds it to the root of v itself. Meta-gradients
    differ by 2e-6 to 3e-3 of their norm, and by up to 4.6e-2 where the window starts at step 0;
    with eps in the same place they agree to 2e-13 in float64.

    Attributes:
        lr: learning rate.
        betas: decays of the first and the second moment.
        eps: added to the root of the second moment.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def start(self, theta: Tensor) -> Moments:
        """Both moments, zeros (P,)."""
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int | Tensor
    ) -> tuple[Tensor, Moments]:
        """Return theta - lr m^ / (sqrt(v^) + eps), m^ and v^ the bias-corrected moments.

        The moments m and v start at zero; the correction divides them by 1 - beta^(count + 1). With
        count a scalar tensor on the device, a step is the same kernels whatever the count, as a
        CUDA graph asks for; equal to rounding.
        """
        beta_1, beta_2 = self.betas
        mean = torch.lerp(moments[0], gradient, 1 - beta_1)
        square = torch.addcmul(beta_2 * moments[1], gradient, gradient, value=1 - beta_2)
        # m^ / (sqrt(v^) + eps) with numerator and denominator times sqrt(1 - beta_2^t): the
        # corrections are then two scalars, and a step is few operations.
        exponent = count.double() + 1 if isinstance(count, Tensor) else count + 1
        left = 1 - beta_2**exponent
        correction = left.sqrt() if isinstance(left, Tensor) else math.sqrt(left)
        root = square.clamp(min=LEAST).sqrt() + self.eps * correction
        rate = -self.lr * correction / (1 - beta_1**exponent)
        if isinstance(rate, Tensor):
            return torch.addcdiv(theta, rate * mean, root), (mean, square)
        return torch.addcdiv(theta, mean, root, value=rate), (mean, square)


@dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum.

    Attributes:
        lr: learning rate.
        momentum: decay of the velocity.
        weight_decay: L2 decay, added to the gradient.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def start(self, theta: Tensor) -> Moments:
        """The velocity, zeros (P,), where there is momentum."""
        return (torch.zeros_like(theta),) if self.momentum else ()

    def step(
        self, theta: Tensor, moments: Moments, gradient: Tensor, count: int
    ) -> tuple[Tensor, Moments]:
        """Return theta - lr u, the velocity u being momentum u + gradient + weight_decay theta."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        moments = tuple(self.momentum * velocity + gradient for velocity in moments)
        return theta - self.lr * (moments[0] if moments else gradient), moments
