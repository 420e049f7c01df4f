"""Images per second of the training loop, against a DataLoader with torchvision's transforms.

python benchmarks/student_training.py [--width 64 --size 32 --images 100 --batch 64 --epochs 5
                                       --rounds 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from compare import main
from torch import Tensor, nn
from torch.nn import functional as F

from distillery.nets.network import build_network
from distillery.store.job import Job, keep_freed_memory
from distillery.training.loop import initialise, train
from distillery.training.recipe import Mix, Training
from distillery.training.samples import Samples

CLASSES = 10
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def student(options: argparse.Namespace) -> nn.Module:
    shape = (3, options.size, options.size)
    return initialise(
        lambda: build_network(
            {"name": "convnet", "width": options.width, "norm": "batch"}, shape, CLASSES
        ),
        0,
    )


def data(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) uint8 and their classes (N,)."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (options.images, 3, options.size, options.size), dtype=torch.uint8, generator=stream
    )
    return images, torch.arange(options.images) % CLASSES


def images_per_second(run: Callable[[int], None], options: argparse.Namespace) -> float:
    """Of `run`, which trains for some epochs; one epoch before is left out."""
    run(1)
    start = time.perf_counter()
    run(options.epochs)
    return options.epochs * options.images / (time.perf_counter() - start)


def plain(options: argparse.Namespace) -> float:
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms

    pixels, labels = data(options)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    steps = [
        transforms.RandomCrop(options.size, 4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
    ]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(pictures[index]), int(labels[index])

    net = student(options).train()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for images, classes in DataLoader(Pictures(), options.batch, shuffle=True):
                lam, partner = np.random.beta(0.8, 0.8), torch.randperm(len(images))
                logits = net(lam * images + (1 - lam) * images[partner])
                loss = lam * F.cross_entropy(logits, classes) + (1 - lam) * F.cross_entropy(
                    logits, classes[partner]
                )
                adam.zero_grad()
                loss.backward()
                adam.step()

    return images_per_second(run, options)


def project(options: argparse.Namespace) -> float:
    pixels, labels = data(options)
    known = {
        "shape": pixels.shape[1:],
        "mean": MEAN,
        "std": STD,
        "pixels": lambda indices: pixels[indices],
        "resident": True,
    }
    samples, one = (
        Samples.from_images(SimpleNamespace(labels=part, **known), "cpu")
        for part in (labels, labels[:1])
    )
    net = student(options)

    def run(epochs: int) -> None:
        training = Training(
            epochs, options.batch, augment=("crop:4", "flip"), mix=Mix("mixup"), test_every=epochs
        )
        with tempfile.TemporaryDirectory() as folder:
            job = Job({}, {}, Path(folder), Path(folder), "benchmark", torch.device("cpu"))
            train(
                net,
                samples,
                training,
                lambda logits, target: F.cross_entropy(logits, target.mixed),
                job,
                test=one,
            )

    return images_per_second(run, options)


def as_a_job(options: argparse.Namespace) -> float:
    keep_freed_memory()
    return project(options)


if __name__ == "__main__":
    variants = {
        "DataLoader, PIL": plain,
        "project": project,
        "project, freed memory kept": as_a_job,
    }
    main(
        variants,
        "images / s",
        name="student-training",
        width=64,
        size=32,
        images=100,
        batch=64,
        epochs=5,
    )
