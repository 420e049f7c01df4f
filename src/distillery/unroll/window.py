"""Train a network on a distilled set, and differentiate what comes out by the set: back-propagation through training.

The meta-gradient is exact either way. The full graph keeps every activation of every step. Replay keeps the states between the
steps, 12 bytes for each parameter and step with Adam in float32, and makes one step at a time again for its derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distillery.unroll.network import Network
from distillery.unroll.optimizers import Moments, Optimizer

Augment = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Outer = Callable[[Tensor], Tensor]
State = tuple[Tensor, Moments]


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The training of a network on a distilled set.

    batch: by step number, the indices (b,) int64 into the set and the augmentation of its images (b, C, h, w). A step may be
    made twice, so the same number must give the same batch and the same random numbers.
    loss: of logits (b, n) and labels (b, n), the mean over the batch; cross-entropy takes labels as probabilities.
    """

    network: Network
    optimizer: Optimizer
    batch: Callable[[int], tuple[Tensor, Augment]]
    loss: Loss = cross_entropy


class Outcome(NamedTuple):
    """loss: the outer loss, a scalar. images, labels: its gradients, in the shapes of the set's images and labels."""

    loss: Tensor
    images: Tensor
    labels: Tensor


def run(
    inner: Inner, theta: Tensor, moments: Moments, images: Tensor, labels: Tensor, steps: range
) -> State:
    """theta (P,) and moments after plain `steps` on images (N, C, h, w) and labels (N, n), without a graph.

    steps: step numbers, counted from the start of the training: range(0, 40), then range(40, 100), continue one training.
    """
    for step in steps:
        indices, augment = inner.batch(step)
        with torch.no_grad():
            batch = augment(images[indices])
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(
                inner.loss(inner.network(leaf, batch), labels[indices].detach()), leaf
            )
        with torch.no_grad():
            theta, moments = inner.optimizer.step(theta.detach(), moments, gradient, step)
    return theta, moments


def gradients(
    inner: Inner,
    theta: Tensor,
    moments: Moments,
    images: Tensor,
    labels: Tensor,
    steps: range,
    outer: Outer,
    *,
    replay: bool = True,
) -> Outcome:
    """The loss `outer` of theta after `steps` from theta and moments, and its gradients by images and labels through them.

    theta (P,) and moments are constants: what came before them is not differentiated (RaT-BPTT; PoDD, section 3).
    They and the step numbers are those of the training so far: an Adam of 40 steps goes on with its moments, as step 41.
    replay: store the states and make each step again; False: keep the full graph, for much more memory. Equal to rounding.
    images (N, C, h, w) and labels (N, n) are of theta's number format and on its device.
    """
    state = theta.detach(), tuple(moment.detach() for moment in moments)
    return (_replayed if replay else _whole)(
        inner, state, images.detach(), labels.detach(), steps, outer
    )


def batched_loss(
    network: Network, images: Tensor, labels: Tensor, chunk: int = 500, loss: Loss = cross_entropy
) -> Outer:
    """The mean loss of a network on images (B, C, h, w) and labels (B,) int64 or (B, n) float, as a function of theta (P,).

    `chunk` images at a time go through the network, forwards and backwards, so that no more of them are ever in memory. The
    result has one derivative, not two. `loss` is a mean over the samples.
    """

    def outer(theta: Tensor) -> Tensor:
        leaf, total = theta.detach().requires_grad_(), theta.new_zeros(())
        gradient = torch.zeros_like(leaf)
        for part, classes in zip(images.split(chunk), labels.split(chunk), strict=True):
            with torch.enable_grad():
                share = loss(network(leaf, part.to(leaf)), classes.to(leaf.device)) * (
                    len(part) / len(images)
                )
            gradient += torch.autograd.grad(share, leaf)[0]
            total += share.detach()
        # The second term is zero; its derivative is the gradient.
        return total + (theta - leaf.detach()) @ gradient

    return outer


def _differentiable(
    inner: Inner, state: State, images: Tensor, labels: Tensor, augment: Augment, step: int
) -> State:
    """One step on a batch, with a graph from all of its inputs to the new state."""
    theta, moments = state
    loss = inner.loss(inner.network(theta, augment(images)), labels)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    return inner.optimizer.step(theta, moments, gradient, step)


@torch.enable_grad()
def _whole(
    inner: Inner, state: State, images: Tensor, labels: Tensor, steps: range, outer: Outer
) -> Outcome:
    images, labels, theta = (
        tensor.requires_grad_() for tensor in (images.detach(), labels.detach(), state[0].detach())
    )
    state = theta, state[1]
    for step in steps:
        indices, augment = inner.batch(step)
        state = _differentiable(inner, state, images[indices], labels[indices], augment, step)
    loss = outer(state[0])
    found = torch.autograd.grad(loss, (images, labels), allow_unused=True, materialize_grads=True)
    return Outcome(loss.detach(), *found)


@torch.enable_grad()
def _replayed(
    inner: Inner, state: State, images: Tensor, labels: Tensor, steps: range, outer: Outer
) -> Outcome:
    states = []
    for step in steps:
        states.append(state)
        state = run(inner, *state, images, labels, range(step, step + 1))
    last = state[0].detach().requires_grad_()
    loss = outer(last)
    change = (*torch.autograd.grad(loss, last), *map(torch.zeros_like, state[1]))
    totals = torch.zeros_like(images), torch.zeros_like(labels)
    for step in reversed(steps):
        indices, augment = inner.batch(step)
        theta, moments = states.pop()
        # The batch is the leaf, not the set: its gradient is as small as the batch.
        leaves = [
            tensor.detach().requires_grad_()
            for tensor in (theta, *moments, images[indices], labels[indices])
        ]
        after, later = _differentiable(
            inner, (leaves[0], tuple(leaves[1:-2])), *leaves[-2:], augment, step
        )
        found = torch.autograd.grad(
            (after, *later), leaves, change, allow_unused=True, materialize_grads=True
        )
        change = found[:-2]
        for total, gradient in zip(totals, found[-2:], strict=True):
            total.index_add_(0, indices.to(total.device), gradient)
    return Outcome(loss.detach(), *totals)
