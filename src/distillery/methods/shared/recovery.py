"""Optimise images against frozen teachers.

What SRe2L's and G-VBSM's recovery and INFER's compensators have in common. Images come in groups
(G, B, C, H, W). Each group is an optimisation of its own, with its own mean over the batch, its own
feature statistics and its own random stream; several stand side by side only because that fills the
device better.
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
from distillery.methods.shared.recovery_state import AdamFields, ImageObjective, RecoveryState
from distillery.nets.features import fired_batch_norms
from distillery.store.checkpoint import Checkpoint, gathered
from distillery.training.augment import pipeline
from distillery.training.frozen import frozen
from distillery.training.normalise import normalise

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.store.checkpoint import Stateful
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

POSTFIX_EVERY = 50  # reading a loss waits for the device

StepAugmentations = Callable[[int], Sequence[str]]  # from a step to names of its augmentations


class RecoveryFields(AdamFields, Protocol):
    """Those that one teacher's objective and the grouping read besides."""

    @property
    def first_bn_weight(self) -> float:
        """Weight of the first layer in the BN loss."""
        ...

    @property
    def micro_batch(self) -> int | None:
        """Images of a group per forward pass; None: all."""
        ...

    @property
    def parallel_groups(self) -> int:
        """Groups optimised side by side."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the teacher: "fp32" or "bf16"."""
        ...


@dataclass(frozen=True)
class TeacherObjective:
    """CE(f(x), y), mean over the batch, plus alpha L_BN(x) of one network f.

    It is the sum of both over the groups. The groups do not interact, so the gradient of the sum
    holds the gradient of each.

    Attributes:
        model: f.
        layers: its batch norms, those that run.
        alpha: weight of the BN loss.
        first_weight: weight of the first layer within it.
        micro_batch: images of each group that go through the network at a time (None: all): the
            gradient is the full batch's, for less memory and a second forward pass.
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
        recipe: RecoveryFields,
        shape: Sequence[int],
        device: torch.device,
    ) -> TeacherObjective:
        """The objective of one teacher, in the recipe's precision and the fastest memory format.

        Args:
            teacher: the network.
            alpha: weight of the BN loss; at 0 a network without batch normalisation will do.
            recipe: says the rest.
            shape: (C, H, W) of the images.
            device: where the teacher is.

        Raises:
            TeacherError: alpha is not 0, and the teacher has no batch normalisation.
        """
        model = frozen(teacher.model, device, recipe.precision)
        layers = fired_batch_norms(model, torch.zeros(1, *shape, device=device))
        if alpha and not layers:
            raise TeacherError(
                f"teacher '{teacher.name}' has no batch normalisation to match: "
                f"name another network"
            )
        return cls(model, layers, alpha, recipe.first_bn_weight, recipe.micro_batch)

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both losses and the gradient of the objective.

        Args:
            images: (G, B, C, H, W), normalised.
            labels: (B,) int64, the same for each group.

        Returns:
            Cross entropy and BN loss (scalars, means over the groups), and the gradient by the
            images, in their shape.
        """
        leaf = images.detach().requires_grad_()
        with record_inputs(
            self.layers, lambda layer, x: shifted_moments(layer, x, len(images))
        ) as moments:
            if self.micro_batch is None or self.micro_batch >= len(labels):
                ce, bn = self._cross_entropy(leaf, labels), self._distance(moments, leaf)
                (grad,) = torch.autograd.grad(ce.sum() + self.alpha * bn.sum(), leaf)
            else:
                ce, bn, grad = self._in_parts(images, labels, moments, self.micro_batch)
        return ce.detach().mean(), bn.detach().mean(), grad

    def _cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.model(images.flatten(0, 1))
        of_images = cross_entropy(logits, labels.repeat(len(images)), reduction="none")
        return of_images.view(len(images), -1).mean(1)

    def _distance(self, moments: Sequence[Tensor], images: Tensor) -> Tensor:
        if not self.layers:
            return images.new_zeros(len(images))
        return running_distance(self.layers, moments, self.first_weight)

    def _in_parts(
        self, images: Tensor, labels: Tensor, moments: list[Tensor], size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The norms are of the whole batch, but its moments are sums over images. So the norms are
        # differentiated once, at the moments of the whole batch, and each part then minimises the
        # linear function of its own moments with these coefficients: it has the same gradient.
        parts = list(zip(images.split(size, 1), labels.split(size), strict=True))
        whole = self._moments_of_all(parts, len(labels), moments)
        bn = self._distance(whole, images)
        by_moments = torch.autograd.grad(self.alpha * bn.sum(), whole) if self.layers else ()
        ce, gradients = images.new_zeros(len(images)), []
        for part, classes in parts:
            leaf, share = part.detach().requires_grad_(), part.shape[1] / len(labels)
            of_part = self._cross_entropy(leaf, classes) * share
            linear = sum(
                ((g * m).sum() for g, m in zip(by_moments, moments, strict=True)),
                of_part.new_zeros(()),
            )
            gradients += torch.autograd.grad(of_part.sum() + share * linear, leaf)
            ce = ce + of_part.detach()
        return ce, bn, torch.cat(gradients, 1)

    @torch.no_grad()
    def _moments_of_all(
        self, parts: Sequence[tuple[Tensor, Tensor]], count: int, moments: list[Tensor]
    ) -> list[Tensor]:
        """The moments of the whole batch of `count` images, leaves of a graph."""
        whole = [torch.zeros(()) for _ in self.layers]
        for part, _ in parts:
            self.model(part.flatten(0, 1))
            share = part.shape[1] / count
            whole = [total + m * share for total, m in zip(whole, moments, strict=True)]
        return [total.requires_grad_() for total in whole]


def augment_groups(
    augment: StepAugmentations, streams: Sequence[torch.Generator]
) -> Callable[[Tensor, int], Tensor]:
    """An augmentation of groups (G, B, C, H, W) at a step.

    Args:
        augment: names the augmentations of a step.
        streams: group i draws from streams[i].
    """

    def apply(groups: Tensor, step: int) -> Tensor:
        transform = pipeline(augment(step))
        return torch.stack(
            [transform(group, stream) for group, stream in zip(groups, streams, strict=True)]
        )

    return apply


def cosine_decay(lr: float, step: int, steps: float) -> float:
    """Learning rate at `step` (0 .. steps - 1): lr (1 + cos(pi step / steps)) / 2, towards 0."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


def recover(
    leaf: Tensor,
    images: Callable[[Tensor, int], Tensor],
    labels: Tensor,
    objective: ImageObjective,
    recipe: AdamFields,
    bar: tqdm,
    project: Callable[[Tensor], object] = lambda leaf: None,
    *,
    streams: Sequence[Stateful] = (),
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Minimise the objective with a fresh Adam (eps 1e-8, no decay) and a cosine rate to 0.

    Args:
        leaf: (G, ...), what is optimised; left alone.
        images: called at each step, from the leaf and the step's number to normalised, augmented
            images (G, B, C, H, W).
        labels: (B,) int64.
        objective: what is minimised.
        recipe: steps, learning rate, betas.
        bar: advances by G per step and shows both losses.
        project: changes the leaf in place after each step.
        streams: the random streams that `images` and `objective` draw from, and what else a step
            changes.
        checkpoint: where a killed job left the steps that it made; None: all are made.

    Returns:
        The last iterate, detached.

    Raises:
        DistilleryError: it is not finite.
    """
    run = RecoveryState.of(leaf, recipe, streams)
    if checkpoint is not None:
        run.resume(checkpoint, recipe.iterations)
    leaf = run.leaf
    bar.update(len(leaf) * run.steps)
    for step in range(run.steps, recipe.iterations):
        run.adam.param_groups[0]["lr"] = cosine_decay(recipe.lr, step, recipe.iterations)
        seen = images(leaf, step)
        ce, bn, gradient = objective.gradient(seen, labels)
        (leaf.grad,) = torch.autograd.grad(seen, leaf, gradient)
        run.adam.step()
        with torch.no_grad():
            project(leaf)
        run.steps += 1
        if checkpoint is not None:
            checkpoint.offer(run.state)
        if step % POSTFIX_EVERY == 0:
            bar.set_postfix(ce=f"{ce:.3f}", bn=f"{bn:.3f}", refresh=False)
        bar.update(len(leaf))
    if not leaf.isfinite().all():
        raise diverged(recipe)
    return leaf.detach()


def diverged(recipe: AdamFields) -> DistilleryError:
    """The error of an optimisation that left the finite numbers."""
    return DistilleryError(
        f"the optimisation diverged: it is not finite; lower lr (now {recipe.lr}) in the recipe"
    )


def pixel_range(train: ImageSet, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function that clamps normalised images (..., C, H, W) on `device` to pixels, in place."""
    black, white = (
        normalise(torch.full((1, *train.shape), v, device=device), train.mean, train.std)
        for v in (0.0, 1.0)
    )
    return lambda images: images.clamp_(black, white)


def in_groups(
    indices: range,
    optimise: Callable[[list[int], Checkpoint], Tensor],
    name: str,
    recipe: RecoveryFields,
    job: Job,
    bar: tqdm,
) -> Tensor:
    """Optimise a few groups at a time, and go on where a killed job stopped.

    Args:
        indices: of all groups.
        optimise: from at most recipe.parallel_groups indices, and where their steps are kept, to
            their results, side by side, on the CPU.
        name: of the files in the scratch folder.
        recipe: says how many side by side.
        job: gives the scratch folder.
        bar: stands where the finished groups put it.

    Returns:
        The results joined along the first dimension, on the CPU.
    """
    start, checkpoint = bar.n, Checkpoint(job, f"{name}-steps")

    def make(first: int) -> Tensor:
        bar.update(start + (first - indices[0]) * recipe.iterations - bar.n)
        group = list(indices[first - indices[0] :][: recipe.parallel_groups])
        return optimise(group, checkpoint.of(first)).cpu()

    results = gathered(job, name, indices[:: recipe.parallel_groups], make)
    bar.update(start + len(indices) * recipe.iterations - bar.n)  # what was read and not made
    checkpoint.remove()
    return torch.cat(results)
