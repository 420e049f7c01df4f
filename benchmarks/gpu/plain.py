"""Plain loops of the mathematics that the project's methods have, as one writes them in torch.

float32 unless they are told to autocast; nothing of the project's own runs in them but networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

CHUNK = 500  # real images per pass of the outer loss, as in the project


def compensator(
    net: nn.Module, images: Tensor, labels: Tensor, steps: int, bf16: bool, most: int = 4
) -> Tensor:
    """INFER's compensator: cross-entropy and the distance of the features' statistics, with hooks.

    Args:
        net: in eval mode, no parameter requires a gradient.
        images: (B, C, H, W), normalised.
        labels: (B,).
        steps: of Adam.
        bf16: whether the network computes under autocast.
        most: pixels that the images are rolled by.

    Returns:
        u, (1, C, H, W).
    """
    gaps: list[Tensor] = []

    def gap(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        features = inputs[0].float()
        variance = features.var((0, 2, 3), correction=0)
        by_mean = (features.mean((0, 2, 3)) - layer.running_mean).norm()
        gaps.append(by_mean + (variance - layer.running_var).norm())

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [layer.register_forward_hook(gap) for layer in norms]
    u = torch.zeros_like(images[:1]).requires_grad_()
    adam = torch.optim.Adam([u], lr=0.25, betas=(0.5, 0.9))
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.125 * (1 + math.cos(math.pi * step / steps))
        gaps.clear()
        shift = torch.randint(0, most + 1, (2,)).tolist()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = net((images + u).roll(shift, (2, 3)))
        loss = F.cross_entropy(logits.float(), labels) + 9 * gaps[0] + sum(gaps)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for handle in handles:
        handle.remove()
    return u.detach()


def flip_or_rotate(images: Tensor) -> Tensor:
    """Of DSA flip or rotate, one of the two for the batch, drawn for each image on the device."""
    if torch.rand(()) < 0.5:
        chance = torch.rand(len(images), 1, 1, 1, device=images.device)
        return torch.where(chance < 0.5, images.flip(3), images)
    angle = torch.empty(len(images), device=images.device).uniform_(-15, 15).deg2rad()
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return _sampled(images, grid)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear, zeros outside; by indices, as grid_sample has no second derivative by images."""
    height, width = images.shape[2:]
    x = (grid[..., 0] + 1) * width / 2 - 0.5
    y = (grid[..., 1] + 1) * height / 2 - 0.5
    padded, total = F.pad(images, (1, 1, 1, 1)).flatten(2), torch.zeros_like(images)
    for left in (x.floor(), x.floor() + 1):
        for top in (y.floor(), y.floor() + 1):
            weight = (1 - (x - left).abs()) * (1 - (y - top).abs())
            column = (left + 1).clamp(0, width + 1)
            row = (top + 1).clamp(0, height + 1)
            index = (row * (width + 2) + column).long().flatten(1)
            index = index[:, None].expand(-1, images.shape[1], -1)
            total = total + weight[:, None] * padded.gather(2, index).view_as(images)
    return total


State = list[Tensor]


def meta_step(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    real: tuple[Tensor, Tensor],
    before: int,
    window: int,
) -> Tensor:
    """A meta-step of RaT-BPTT and PoDD by the full graph of the window; the gradient by images.

    Args:
        net: of the inner training; a fresh copy is trained by Adam.
        images: (N, C, H, W), all in each inner step.
        labels: (N, classes) probabilities.
        real: images (B, C, H, W) and their labels (B,), of the outer loss.
        before: plain inner steps.
        window: differentiated inner steps.
    """
    net = copy.deepcopy(net)
    for layer in net.modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
    names = [name for name, _ in net.named_parameters()]
    theta = [value.detach().requires_grad_() for value in net.parameters()]
    means, squares = ([torch.zeros_like(value) for value in theta] for _ in range(2))

    def logits(theta: State, images: Tensor) -> Tensor:
        return functional_call(net, dict(zip(names, theta, strict=True)), (images,))

    leaf = images.detach().requires_grad_()
    for step in range(before + window):
        kept = step >= before
        inputs = flip_or_rotate(leaf if kept else images)
        loss = -(labels * F.log_softmax(logits(theta, inputs), 1)).sum(1).mean()
        gradients = torch.autograd.grad(loss, theta, create_graph=kept)
        with torch.set_grad_enabled(kept):
            theta, means, squares = _adam(theta, means, squares, gradients, step + 1)
        if not kept:
            theta = [value.detach().requires_grad_() for value in theta]
    last = [value.detach().requires_grad_() for value in theta]
    by_last = [torch.zeros_like(value) for value in last]
    for part, classes in zip(*(t.split(CHUNK) for t in real), strict=True):
        outer = F.cross_entropy(logits(last, part), classes, reduction="sum") / len(real[1])
        for total, gradient in zip(by_last, torch.autograd.grad(outer, last), strict=True):
            total += gradient
    return torch.autograd.grad(theta, leaf, by_last)[0]


def _adam(
    theta: State, means: State, squares: State, gradients: Sequence[Tensor], count: int
) -> tuple[State, State, State]:
    means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
    squares = [0.999 * v + 0.001 * g * g for v, g in zip(squares, gradients, strict=True)]
    one, two = 1 - 0.9**count, 1 - 0.999**count
    steps = [
        1e-3 * (m / one) / ((v.clamp(min=1e-30) / two).sqrt() + 1e-8)
        for m, v in zip(means, squares, strict=True)
    ]
    return [value - step for value, step in zip(theta, steps, strict=True)], means, squares


def crop_and_flip(images: Tensor, pad: int = 4) -> Tensor:
    """Zero-pad, crop back and mirror, drawn for each image on the device."""
    count, channels, height, width = images.shape
    chance = torch.rand(count, 1, 1, 1, device=images.device)
    images = torch.where(chance < 0.5, images.flip(3), images)
    padded = F.pad(images, (pad,) * 4)
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, count, 1), device=images.device).unbind()
    rows = tops + torch.arange(height, device=images.device)
    columns = lefts + torch.arange(width, device=images.device)
    first = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[first, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _mixed(images: Tensor) -> tuple[Tensor, Tensor, float]:
    lam = float(torch.distributions.Beta(0.8, 0.8).sample())
    order = torch.randperm(len(images), device=images.device)
    return torch.lerp(images[order], images, lam), order, lam


def student(
    net: nn.Module,
    images: Tensor,
    logits: Tensor | Sequence[nn.Module],
    epochs: int,
    batch: int,
    bf16: bool,
) -> None:
    """Train by KL at temperature 30 with AdamW, crop, flip and MixUp.

    Args:
        net: trained in place.
        images: (N, C, H, W), normalised, on the device.
        logits: (N, classes) of the images, mixed with them, or teachers that see each batch.
        epochs: passes over them.
        batch: images of a step.
        bf16: whether networks compute under autocast.
    """
    net.train()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    for epoch in range(epochs):
        adam.param_groups[0]["lr"] = 5e-4 * (1 + math.cos(math.pi * epoch / epochs))
        for part in torch.randperm(len(images), device=images.device).split(batch):
            seen, order, lam = _mixed(crop_and_flip(images[part]))
            with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
                soft = (
                    torch.lerp(logits[part][order], logits[part], lam)
                    if isinstance(logits, Tensor)
                    else _said(logits, seen)
                )
                answers = net(seen)
            target = F.log_softmax(soft.float() / 30, 1)
            loss = F.kl_div(
                F.log_softmax(answers.float() / 30, 1), target, None, None, "batchmean", True
            )
            adam.zero_grad()
            loss.backward()
            adam.step()


@torch.no_grad()
def _said(teachers: Sequence[nn.Module], images: Tensor) -> Tensor:
    return torch.stack([teacher(images).float() for teacher in teachers]).mean(0)


def relabel(teachers: Sequence[nn.Module], images: Tensor, epochs: int, batch: int) -> list[Tensor]:
    """The logits (N, classes) float16 of all augmented, mixed batches, on the CPU, by epoch."""
    found = []
    for _ in range(epochs):
        parts = torch.randperm(len(images), device=images.device).split(batch)
        said = [_said(teachers, _mixed(crop_and_flip(images[part]))[0]) for part in parts]
        found.append(torch.cat([logits.half().cpu() for logits in said]))
    return found
