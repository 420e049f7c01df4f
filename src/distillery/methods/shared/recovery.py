"""Optimise images against frozen teachers: what SRe2L's and G-VBSM's recovery and INFER's compensators have in common.

Images come in groups (G, B, C, H, W). Each group is an optimisation of its own, with its own mean over the batch, its own
feature statistics and its own random stream; several stand side by side only because that fills the device better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.errors import DistilleryError, TeacherError
from distillery.matching.statistics import record_inputs, running_distance, shifted_moments
from distillery.nets.features import fired_batch_norms
from distillery.store.checkpoint import kept
from distillery.training.augment import pipeline
from distillery.training.normalise import normalise
from distillery.training.precision import set_memory_format

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

POSTFIX_EVERY = 50  # reading a loss waits for the device


class Steps(Protocol):
    """The fields of a method's Recipe that the optimisation reads."""

    iterations: int
    lr: float
    betas: tuple[float, float]


class Settings(Steps, Protocol):
    """Those that one teacher's objective and the grouping read besides."""

    first_bn_weight: float
    micro_batch: int | None
    parallel_groups: int


class Descent(Protocol):
    """What `recover` minimises."""

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy and loss of the statistics (scalars) and the gradient for images (G, B, C, H, W), labels (B,)."""


@dataclass(frozen=True)
class Objective:
    """CE(f(x), y), mean over the batch, plus alpha L_BN(x) of one network; the sum of both over the groups.

    The groups do not interact, so the gradient of the sum holds the gradient of each. `micro_batch` images of each group at a
    time go through the network (None: all): the gradient is the full batch's, for less memory and a second forward pass.
    """

    model: nn.Module
    layers: list[nn.BatchNorm2d]
    alpha: float
    first_weight: float
    micro_batch: int | None = None

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        alpha: float,
        settings: Settings,
        shape: Sequence[int],
        device: torch.device,
    ) -> Objective:
        """The objective of one teacher, put into the fastest memory format, for images of `shape` (C, H, W).

        Raises TeacherError without batch normalisation.
        """
        layers = fired_batch_norms(teacher.model, torch.zeros(1, *shape, device=device))
        if alpha and not layers:
            raise TeacherError(
                f"teacher '{teacher.name}' has no batch normalisation to match: name another network"
            )
        return cls(
            set_memory_format(teacher.model, device),
            layers,
            alpha,
            settings.first_bn_weight,
            settings.micro_batch,
        )

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy and BN loss (scalars, means over the groups) and the gradient of the objective.

        images: (G, B, C, H, W), normalised; labels: (B,) int64, the same for each group. The gradient has the images' shape.
        """
        leaf = images.detach().requires_grad_()
        with record_inputs(
            self.layers, lambda layer, x: shifted_moments(layer, x, len(images))
        ) as moments:
            if self.micro_batch is None or self.micro_batch >= len(labels):
                ce, bn = self._cross_entropy(leaf, labels), self._distance(moments, leaf)
                (grad,) = torch.autograd.grad(ce.sum() + self.alpha * bn.sum(), leaf)
            else:
                ce, bn, grad = self._in_parts(images, labels, moments)
        return ce.detach().mean(), bn.detach().mean(), grad

    def _cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.model(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return (
            cross_entropy(logits.flatten(0, 1), labels.repeat(len(images)), reduction="none")
            .view(len(images), -1)
            .mean(1)
        )

    def _distance(self, moments: Sequence[Tensor], images: Tensor) -> Tensor:
        if not self.layers:
            return images.new_zeros(len(images))
        return running_distance(self.layers, moments, self.first_weight)

    def _in_parts(
        self, images: Tensor, labels: Tensor, moments: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The moments are sums over images: differentiate the norms at the whole batch's moments once, then hand each part the
        # resulting coefficients as a linear loss.
        parts = list(
            zip(images.split(self.micro_batch, 1), labels.split(self.micro_batch), strict=True)
        )
        whole = [0.0] * len(self.layers)
        with torch.no_grad():
            for part, _ in parts:
                self.model(part.flatten(0, 1))
                whole = [
                    w + m * (part.shape[1] / len(labels))
                    for w, m in zip(whole, moments, strict=True)
                ]
        whole = [w.requires_grad_() for w in whole]
        bn = self._distance(whole, images)
        slopes = torch.autograd.grad(self.alpha * bn.sum(), whole) if self.layers else ()
        ce, grads = images.new_zeros(len(images)), []
        for part, classes in parts:
            leaf, share = part.detach().requires_grad_(), part.shape[1] / len(labels)
            term = self._cross_entropy(leaf, classes) * share
            linear = sum(
                ((s * m).sum() for s, m in zip(slopes, moments, strict=True)), term.new_zeros(())
            )
            grads += torch.autograd.grad(term.sum() + share * linear, leaf)
            ce = ce + term.detach()
        return ce, bn, torch.cat(grads, 1)


def each_group(
    augment: Callable[[int], Sequence[str]], streams: Sequence[torch.Generator]
) -> Callable[[Tensor, int], Tensor]:
    """An augmentation of groups (G, B, C, H, W) at a step: `augment(step)` names it, group i draws from streams[i]."""

    def apply(groups: Tensor, step: int) -> Tensor:
        transform = pipeline(augment(step))
        return torch.stack(
            [transform(group, stream) for group, stream in zip(groups, streams, strict=True)]
        )

    return apply


def cosine(lr: float, step: int, steps: float) -> float:
    """Learning rate at `step` (0 .. steps - 1): lr (1 + cos(pi step / steps)) / 2, from lr towards 0."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


def recover(
    leaf: Tensor,
    images: Callable[[Tensor, int], Tensor],
    labels: Tensor,
    objective: Descent,
    settings: Steps,
    bar: tqdm,
    project: Callable[[Tensor], None] = lambda leaf: None,
) -> Tensor:
    """Minimise the objective over `leaf` (G, ...) with a fresh Adam (eps 1e-8, no decay) and a cosine learning rate to 0.

    images: called at each step, from the leaf and the step's number to normalised, augmented images (G, B, C, H, W). project:
    changes the leaf in place after each step. `bar` advances by G per step and shows both losses. Returns the last iterate,
    detached. Raises DistilleryError when it is not finite.
    """
    leaf = leaf.detach().clone().requires_grad_()
    adam = torch.optim.Adam([leaf], betas=settings.betas, eps=1e-8)
    for step in range(settings.iterations):
        adam.param_groups[0]["lr"] = cosine(settings.lr, step, settings.iterations)
        seen = images(leaf, step)
        ce, bn, grad = objective.gradient(seen, labels)
        (leaf.grad,) = torch.autograd.grad(seen, leaf, grad)
        adam.step()
        with torch.no_grad():
            project(leaf)
        if step % POSTFIX_EVERY == 0:
            bar.set_postfix(ce=f"{ce:.3f}", bn=f"{bn:.3f}", refresh=False)
        bar.update(len(leaf))
    if not leaf.isfinite().all():
        raise diverged(settings)
    return leaf.detach()


def diverged(settings: Steps) -> DistilleryError:
    """The error of an optimisation that left the finite numbers."""
    return DistilleryError(
        f"the optimisation diverged: it is not finite; lower lr (now {settings.lr}) in the recipe"
    )


def pixel_range(train: ImageSet, device: torch.device) -> Callable[[Tensor], None]:
    """A function that clamps normalised images (..., C, H, W) on `device` to the pixel range, in place."""
    black, white = (
        normalise(torch.full((1, *train.shape), v, device=device), train.mean, train.std)
        for v in (0.0, 1.0)
    )
    return lambda images: images.clamp_(black, white)


def in_groups(
    indices: range,
    optimise: Callable[[list[int]], Tensor],
    name: str,
    settings: Settings,
    job: Job,
    bar: tqdm,
) -> Tensor:
    """`optimise` over groups of `settings.parallel_groups` indices, joined along the first dimension, on the CPU.

    Each finished group is kept in the job's scratch folder and read from there when the job starts again.
    """
    found = []
    for first in indices[:: settings.parallel_groups]:
        group = list(indices[first : first + settings.parallel_groups])
        done = bar.n + len(group) * settings.iterations
        file = job.scratch / f"{name}-{first}.safetensors"
        found.append(kept(file, lambda group=group: {"found": optimise(group)})["found"])
        bar.update(done - bar.n)  # what was read and not made
    return torch.cat(found)
