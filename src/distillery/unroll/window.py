"""Train a network on a distilled set, and differentiate the result by the set.

This is back-propagation through training; the gradient by the set is the meta-gradient. It is exact
in either of two ways. The full graph keeps every activation of every step. Replay keeps the states
between the steps, 12 bytes for each parameter and step with Adam in float32, and makes one step at
a time again for its derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distillery.unroll.network import FlatNetwork
from distillery.unroll.optimizers import FlatOptimizer, Moments

Transform = Callable[[Tensor], Tensor]  # of images (b, C, h, w)
LossFunction = Callable[[Tensor, Tensor], Tensor]  # of logits and labels, to a scalar
OuterLoss = Callable[[Tensor], Tensor]  # of theta (P,), to a scalar
TrainingState = tuple[Tensor, Moments]  # theta (P,) and moments between two steps


@dataclass(frozen=True, kw_only=True)
class InnerTraining:
    """The training of a network on a distilled set.

    Attributes:
        network: what is trained.
        optimizer: its optimiser.
        batch: from a step's number to the indices (b,) int64 into the set and the augmentation of
            its images (b, C, h, w). A step may be made twice, so the same number must give the same
            batch and the same random numbers.
        loss: of logits (b, n) and labels (b, n), the mean over the batch; cross-entropy takes
            labels as probabilities.
    """

    network: FlatNetwork
    optimizer: FlatOptimizer
    batch: Callable[[int], tuple[Tensor, Transform]]
    loss: LossFunction = cross_entropy


class MetaGradients(NamedTuple):
    """What differentiating a training gives.

    Attributes:
        loss: the outer loss, a scalar.
        images: its gradient, in the shape of the set's images.
        labels: its gradient, in the shape of the set's labels.
    """

    loss: Tensor
    images: Tensor
    labels: Tensor


def run_steps(
    inner: InnerTraining,
    theta: Tensor,
    moments: Moments,
    images: Tensor,
    labels: Tensor,
    steps: range,
) -> TrainingState:
    """Train without a graph.

    Args:
        inner: the training.
        theta: (P,), before the first of the steps.
        moments: of the optimiser, before the first of the steps.
        images: (N, C, h, w), the set's.
        labels: (N, n), the set's.
        steps: step numbers, counted from the start of the training: range(0, 40), then range(40,
            100), continue one training.

    Returns:
        theta (P,) and the moments after the steps.
    """
    for step in steps:
        indices, augment = inner.batch(step)
        with torch.no_grad():
            batch = augment(images[indices])
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = inner.loss(inner.network(leaf, batch), labels[indices].detach())
            (gradient,) = torch.autograd.grad(loss, leaf)
        with torch.no_grad():
            theta, moments = inner.optimizer.step(theta.detach(), moments, gradient, step)
    return theta, moments


def meta_gradients(
    inner: InnerTraining,
    theta: Tensor,
    moments: Moments,
    images: Tensor,
    labels: Tensor,
    steps: range,
    outer: OuterLoss,
    *,
    replay: bool = True,
) -> MetaGradients:
    """The outer loss after some steps, and its gradients by images and labels through them.

    Args:
        inner: the training.
        theta: (P,), of the training so far; a constant: what came before it is not differentiated
            (RaT-BPTT; PoDD, section 3).
        moments: of the training so far, constants: an Adam of 40 steps goes on with its moments, as
            step 41.
        images: (N, C, h, w), the set's, of theta's number format and on its device.
        labels: (N, n), the set's, likewise.
        steps: step numbers, counted from the start of the training.
        outer: the loss of theta after the steps.
        replay: store the states and make each step again; False: keep the full graph, for much more
            memory. Equal to rounding.
    """
    state = theta.detach(), tuple(moment.detach() for moment in moments)
    differentiate = _by_replay if replay else _by_full_graph
    return differentiate(inner, state, images.detach(), labels.detach(), steps, outer)


def batched_loss(
    network: FlatNetwork,
    images: Tensor,
    labels: Tensor,
    chunk: int = 500,
    loss: LossFunction = cross_entropy,
) -> OuterLoss:
    """The mean loss of a network on images, as a function of theta (P,).

    No more than `chunk` images are ever in memory: each part goes through the network forwards and
    backwards before the next. The result has one derivative, not two.

    Args:
        network: the network.
        images: (B, C, h, w).
        labels: (B,) int64 or (B, n) float.
        chunk: images at a time.
        loss: a mean over the samples.
    """

    def outer(theta: Tensor) -> Tensor:
        leaf, total = theta.detach().requires_grad_(), theta.new_zeros(())
        gradient = torch.zeros_like(leaf)
        for part, classes in zip(images.split(chunk), labels.split(chunk), strict=True):
            share = len(part) / len(images)
            with torch.enable_grad():
                logits = network(leaf, part.to(leaf))
                term = loss(logits, classes.to(leaf.device)) * share
            gradient += torch.autograd.grad(term, leaf)[0]
            total += term.detach()
        # The second term is zero; its derivative is the gradient.
        return total + (theta - leaf.detach()) @ gradient

    return outer


def _differentiable_step(
    inner: InnerTraining,
    state: TrainingState,
    images: Tensor,
    labels: Tensor,
    augment: Transform,
    step: int,
) -> TrainingState:
    """One step on a batch, with a graph from all of its inputs to the new state."""
    theta, moments = state
    loss = inner.loss(inner.network(theta, augment(images)), labels)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    return inner.optimizer.step(theta, moments, gradient, step)


@torch.enable_grad()
def _by_full_graph(
    inner: InnerTraining,
    state: TrainingState,
    images: Tensor,
    labels: Tensor,
    steps: range,
    outer: OuterLoss,
) -> MetaGradients:
    images, labels = images.detach().requires_grad_(), labels.detach().requires_grad_()
    state = state[0].detach().requires_grad_(), state[1]
    for step in steps:
        indices, augment = inner.batch(step)
        state = _differentiable_step(inner, state, images[indices], labels[indices], augment, step)
    loss = outer(state[0])
    by_images, by_labels = torch.autograd.grad(
        loss, (images, labels), allow_unused=True, materialize_grads=True
    )
    return MetaGradients(loss.detach(), by_images, by_labels)


def _states_before(
    inner: InnerTraining, state: TrainingState, images: Tensor, labels: Tensor, steps: range
) -> list[TrainingState]:
    """The states before each step, and the last one, without a graph."""
    states = [state]
    for step in steps:
        state = run_steps(inner, *state, images, labels, range(step, step + 1))
        states.append(state)
    return states


@torch.enable_grad()
def _by_replay(
    inner: InnerTraining,
    state: TrainingState,
    images: Tensor,
    labels: Tensor,
    steps: range,
    outer: OuterLoss,
) -> MetaGradients:
    states = _states_before(inner, state, images, labels, steps)
    state = states.pop()
    last_theta = state[0].detach().requires_grad_()
    loss = outer(last_theta)
    # Backwards through the steps: the gradient of the outer loss by the state after a step becomes
    # that by the state before it. The loss does not see the last moments.
    by_state = (*torch.autograd.grad(loss, last_theta), *map(torch.zeros_like, state[1]))
    by_images, by_labels = torch.zeros_like(images), torch.zeros_like(labels)
    for step in reversed(steps):
        indices, augment = inner.batch(step)
        theta, moments = states.pop()
        # The batch is the leaf, not the set: its gradient is then as small as the batch.
        before = (theta, *moments, images[indices], labels[indices])
        leaves = [tensor.detach().requires_grad_() for tensor in before]
        leaf_theta, *leaf_moments, leaf_images, leaf_labels = leaves
        leaf_state = leaf_theta, tuple(leaf_moments)
        theta_after, moments_after = _differentiable_step(
            inner, leaf_state, leaf_images, leaf_labels, augment, step
        )
        *by_state_before, by_batch_images, by_batch_labels = torch.autograd.grad(
            (theta_after, *moments_after),
            leaves,
            by_state,
            allow_unused=True,
            materialize_grads=True,
        )
        by_state = tuple(by_state_before)
        # An image may be in several batches, and several times in one: its gradients add up.
        by_images.index_add_(0, indices.to(images.device), by_batch_images)
        by_labels.index_add_(0, indices.to(labels.device), by_batch_labels)
    return MetaGradients(loss.detach(), by_images, by_labels)
