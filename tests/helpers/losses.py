"""Logits, targets and calls of losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from distillery.components import registry
from distillery.losses.target import Target

S = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
T = torch.tensor([[3.0, 1.0, 0.0, -2.0], [-0.5, 1.5, 0.5, 2.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])
TARGET = Target(Y, F.one_hot(Y, 4).double(), T)
UNMIXED = ("wsld", "dkd", "nkd")
SOFT = ("kl", "soft-ce", "raw-ce", "mse", "mse+ce", "kl+ce", "soft-ce+ce", "cosine", "kd", *UNMIXED)
RAMPED = replace(TARGET, epoch=19)  # of a recipe with 20 epochs of ramp


def loss(name, logits=S, target=TARGET, **fields):
    module, recipe = registry.build("loss", {"name": name, **fields})
    return module.loss(logits, target, recipe)


def random_logits(classes, scale=4.0):
    return scale * torch.randn(
        2, 64, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def gradient_of(name, student, target, **fields):
    value = loss(name, student, target, **fields)
    return value.detach(), torch.autograd.grad(value, student)
