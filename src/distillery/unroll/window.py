"""Train a network on a distilled set, and differentiate the result by the set.

This is back-propagation through training; the gradient by the set is the meta-gradient. Each step
has a graph of its own, from the state before it and its batch to the state after it, and the
backward pass goes from graph to graph. As many of the last steps as a budget of memory holds keep
the graph that they were made with (all: the full graph of the window). Of the others only the
states before them are kept, 12 bytes for each parameter and step with Adam in float32, and each is
made again for its derivative (replay). The bits are the same however many are kept, if the network
has `unroll.layers`; torch's own group norm takes another first derivative in a graph, equal to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    graph_bytes: float = 0.0,
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
        graph_bytes: memory for the graphs of steps that are not made again; 0: all are, inf: none.
            The result is the same, to the bit where the network is `explicit`.
    """
    state = theta.detach(), tuple(moment.detach() for moment in moments)
    images, labels = images.detach(), labels.detach()
    state, kept = _forwards(inner, state, images, labels, steps, graph_bytes)
    last_theta = state[0].detach().requires_grad_()
    with torch.enable_grad():
        loss = outer(last_theta)
    # Backwards through the steps: the gradient of the outer loss by the state after a step becomes
    # that by the state before it. The loss does not see the last moments.
    by_state = (*torch.autograd.grad(loss, last_theta), *map(torch.zeros_like, state[1]))
    by_images, by_labels = torch.zeros_like(images), torch.zeros_like(labels)
    for step in reversed(steps):
        made = kept.pop()
        if not isinstance(made, _Graph):
            made = _Graph.of_step(inner, made, images, labels, step)
        by_state, by_batch_images, by_batch_labels = made.backwards(by_state)
        # An image may be in several batches, and several times in one: its gradients add up.
        by_images.index_add_(0, made.indices.to(images.device), by_batch_images)
        by_labels.index_add_(0, made.indices.to(labels.device), by_batch_labels)
    return MetaGradients(loss.detach(), by_images, by_labels)


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


class _Graph(NamedTuple):
    """One step, and its graph from all of its inputs to the state after it.

    Attributes:
        leaves: theta, the moments, images and labels of the batch. The batch is the leaf, not the
            set: its gradient is then as small as the batch.
        after: theta and the moments after the step.
        indices: of the batch in the set.
    """

    leaves: list[Tensor]
    after: tuple[Tensor, ...]
    indices: Tensor

    @classmethod
    @torch.enable_grad()
    def of_step(
        cls, inner: InnerTraining, state: TrainingState, images: Tensor, labels: Tensor, step: int
    ) -> _Graph:
        """Make a step from a state, on a batch of a set."""
        indices, augment = inner.batch(step)
        before = (state[0], *state[1], images[indices], labels[indices])
        leaves = [tensor.detach().requires_grad_() for tensor in before]
        theta, *moments, batch, targets = leaves
        loss = inner.loss(inner.network(theta, augment(batch)), targets)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        after, moments_after = inner.optimizer.step(theta, tuple(moments), gradient, step)
        return cls(leaves, (after, *moments_after), indices)

    @property
    def state(self) -> TrainingState:
        """That after the step, without the graph."""
        theta, *moments = (tensor.detach() for tensor in self.after)
        return theta, tuple(moments)

    def backwards(self, by_after: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """From a gradient by the state after the step to those by the state before, and the batch.

        It uses the graph up.
        """
        *by_before, by_images, by_labels = torch.autograd.grad(
            self.after, self.leaves, by_after, allow_unused=True, materialize_grads=True
        )
        return tuple(by_before), by_images, by_labels


def _forwards(
    inner: InnerTraining,
    state: TrainingState,
    images: Tensor,
    labels: Tensor,
    steps: range,
    graph_bytes: float,
) -> tuple[TrainingState, list[TrainingState | _Graph]]:
    """The state after the steps, and of each what it is differentiated by.

    That is its graph where graph_bytes hold it and those of all later steps, else the state before.
    """
    kept: list[TrainingState | _Graph] = []
    graphs = 0  # that fit
    for step in steps:
        if graph_bytes > 0 and not kept:  # the first step shows how large a graph is
            graph, size = _measured(_Graph.of_step, inner, state, images, labels, step)
            graphs = int(min(len(steps), graph_bytes // max(size, 1)))
            kept.append(graph if graphs == len(steps) else state)
            state = graph.state
            del graph
        elif step >= steps.stop - graphs:
            kept.append(graph := _Graph.of_step(inner, state, images, labels, step))
            state = graph.state
        else:
            kept.append(state)
            state = run_steps(inner, *state, images, labels, range(step, step + 1))
    return state, kept


def _measured(make: Callable[..., _Graph], *arguments: Any) -> tuple[_Graph, int]:
    """What `make` returns, and the bytes that its graph keeps."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        return make(*arguments), sum(sizes.values())
