"""BPTT and RaT-BPTT: where they start, what they draw, and meta-steps of BPTT by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distillery.methods import bptt, rat_bptt
from distillery.methods.shared.meta_draws import class_subset
from distillery.methods.shared.meta_learning import HISTORY
from distillery.nets.network import build_network
from distillery.store.job import Job
from distillery.training.augment import pipeline
from helpers.jobs import job_in
from helpers.methods import NETWORK, SHORT, classes
from helpers.tiny import TinySet

TRAIN = classes()
MEAN, STD = 0.5, 0.25
BPTT = bptt.Recipe(**SHORT | {"meta_steps": 3, "inner_steps": 3}, clip=0.02)
RAT = rat_bptt.Recipe(**SHORT | {"meta_steps": 1}, labels="learned", label_lr=0.07)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- BPTT ----------------------------------------------------------------------------------------


def real_batch(train: TinySet, job: Job, number: int, augment) -> tuple[Tensor, Tensor]:
    """Five images of each of four classes."""
    drawn = job.generator(f"real/{number}")
    members = [(train.labels == label).nonzero().flatten() for label in range(4)]
    chosen = torch.cat([m[torch.randperm(12, generator=drawn)[:5]] for m in members])
    images = (train.images[chosen].float() / 255 - MEAN) / STD
    return augment(images, job.generator(f"outer/{number}")), train.labels[chosen]


def meta_gradient(images: Tensor, job: Job, number: int) -> tuple[float, Tensor]:
    """Three steps of SGD with momentum 0.9 on all images, with one graph over them."""
    augment, images = pipeline(BPTT.augment), images.clone().requires_grad_()
    torch.manual_seed(job.seed(f"network/{number}"))
    net = build_network(NETWORK, TRAIN.shape, 4)
    theta = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in theta.items()}
    for t in range(3):
        seen = augment(images, job.generator(f"augment/{number}/{t}"))
        logits = torch.func.functional_call(net, theta, (seen,))
        loss = F.cross_entropy(logits, torch.arange(4))
        found = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        for name, gradient in zip(theta, found, strict=True):
            velocity[name] = 0.9 * velocity[name] + gradient
        theta = {name: p - 0.01 * velocity[name] for name, p in theta.items()}
    real, labels = real_batch(TRAIN, job, number, augment)
    outer = F.cross_entropy(torch.func.functional_call(net, theta, (real,)), labels)
    return outer.item(), torch.autograd.grad(outer, images)[0]


def test_meta_steps_of_bptt_are_those_by_hand(tmp_path: Path) -> None:
    """From Xavier's noise, with momentum inside and outside, and a clip in units that bites."""
    job = job_in(tmp_path)
    made = bptt.distill(TRAIN, BPTT, ipc=1, teachers=[], job=job)
    # four images of 64 pixels are a 4 x 64 matrix: U(-a, a), a = sqrt(6 / (4 + 64))
    bound = (6 / 68) ** 0.5
    images = (2 * torch.rand(4, 1, 8, 8, generator=job.generator("noise")) - 1) * bound
    velocity, rows = torch.zeros_like(images), []
    for number in range(3):
        loss, gradient = meta_gradient(images, job, number)
        norm = gradient.norm().item()
        assert norm > 0.02, "a clip that changes nothing would test nothing"
        velocity = 0.5 * velocity + gradient * 0.02 / norm
        images = images - 0.1 * velocity
        rows.append([number + 1, loss, norm, 0.02, 0])
    with (job.out / HISTORY).open() as file:
        found = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(rows), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close((made["images"] - MEAN) / STD, images, rtol=0, atol=2e-6)


@pytest.mark.parametrize("field", ["momentum", "inner_momentum"])
def test_both_momenta_of_bptt_count(field: str, tmp_path: Path) -> None:
    one, other = (
        bptt.distill(TRAIN, recipe, ipc=1, teachers=[], job=job_in(tmp_path / str(i)))["images"]
        for i, recipe in enumerate((BPTT, replace(BPTT, **{field: 0.0})))
    )
    assert (one - other).abs().max() > 1e-5


# --- RaT-BPTT ------------------------------------------------------------------------------------


def test_images_of_a_class_are_drawn_anew_at_each_step() -> None:
    draw = class_subset(classes=4, ipc=5, step_ipc=2, step_classes=3)
    steps = [draw(stream(step)) for step in range(200)]
    assert all(len(step.unique()) == 6 for step in steps)
    assert {tuple(sorted(set((step // 5).tolist()))) for step in steps} == {
        (0, 1, 2),
        (0, 1, 3),
        (0, 2, 3),
        (1, 2, 3),
    }
    times = torch.cat(steps).bincount(minlength=20)
    assert len(times) == 20 and times.min() > 30, "each of 20 images is expected 60 times of 200"
    pairs = {tuple(sorted((step[step // 5 == 0]).tolist())) for step in steps}
    assert len(pairs - {()}) == 10, "all pairs of five images"


def test_it_starts_from_noise_of_unit_norm(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    found = rat_bptt.noise((50, 3, 8, 8), job)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.ones(50))
    gaussian = found * 192**0.5
    assert gaussian.mean().abs() < 0.05 and gaussian.std().item() == pytest.approx(1, abs=0.05)
    recipe = replace(RAT, lr=1e-9, label_lr=1e-9)
    made = rat_bptt.distill(TRAIN, recipe, ipc=2, teachers=[], job=job)
    images = (made["images"] - MEAN) / STD
    torch.testing.assert_close(images, rat_bptt.noise((8, 1, 8, 8), job), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("label_lr", "expected"), [(0.07, 0.07), (0.02, 0.02), (None, 1e-3)])
def test_labels_move_at_their_own_rate(
    label_lr: float | None, expected: float, tmp_path: Path
) -> None:
    """The first step of Adam is the learning rate wherever there is a gradient."""
    recipe, job = replace(RAT, label_lr=label_lr), job_in(tmp_path)
    made = rat_bptt.distill(TRAIN, recipe, ipc=2, teachers=[], job=job)
    start = torch.eye(4).repeat_interleave(2, 0)
    moved = (made["soft"] - start).abs()
    assert moved.max().item() == pytest.approx(expected, rel=1e-3)
    noise = rat_bptt.noise((8, 1, 8, 8), job)
    of_images = ((made["images"] - MEAN) / STD - noise).abs()
    assert of_images.max().item() == pytest.approx(1e-3, rel=1e-3)
