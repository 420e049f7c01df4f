"""Eight by eight digits, small networks and a job for the training loop."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch import nn
from tqdm import tqdm

from distillery.training.loop import initialise
from distillery.training.samples import Samples


def loop_job(scratch):
    seeds = {"batches": 1, "augment": 2, "mix": 3, "dropout": 4}
    return SimpleNamespace(
        generator=lambda role: torch.Generator().manual_seed(seeds[role]),
        progress=lambda total, label: tqdm(total=total, disable=True),
        scratch=scratch,
        key="key",
        device=torch.device("cpu"),
    )


def digits(count=None, start=0):
    data = load_digits()
    pixels = torch.tensor(data.images[start:][:count] * 15.9375).round().to(torch.uint8)[:, None]
    return SimpleNamespace(
        labels=data.target[start:][:count],
        shape=(1, 8, 8),
        mean=(0.3,),
        std=(0.35,),
        pixels=lambda i: pixels[i].numpy(),
        resident=False,
    )


def samples(count=70, start=0):
    return Samples.from_images(digits(count, start), "cpu")


def network():
    return initialise(_layers, 0)


def _layers():
    first = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*first, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96, 10))


class Two(nn.Module):
    """Two parameters, which are its logits whatever the image."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, images):
        return self.theta.expand(len(images), 2)
