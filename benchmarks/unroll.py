"""One meta-step of PoDD on CIFAR-10, replayed and by the full graph: seconds and peak memory.

python benchmarks/unroll.py [--width 128 --window 60 --patches 96 --batch 5000 --steps 70
                             --chunk 500 --rounds 1]

The meta-step: `steps` plain steps of Adam on all patches, `window` differentiated ones, the loss of
a batch of real images, `chunk` at a time. The full graph of the default sizes takes 18 GB; smaller
ones show the same ratios: --window 10 --width 64.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from compare import main
from torch import Tensor
from torch.nn.functional import one_hot

from distillery.nets.network import build_network
from distillery.training.augment import pipeline
from distillery.unroll.network import FlatNetwork
from distillery.unroll.optimizers import Adam
from distillery.unroll.window import (
    InnerTraining,
    Transform,
    batched_loss,
    meta_gradients,
    run_steps,
)

CLASSES, SHAPE = 10, (3, 32, 32)


def meta_step(options: argparse.Namespace, replay: bool) -> float:
    """Its seconds."""
    network, adam = (
        FlatNetwork(build_network({"name": "convnet", "width": options.width}, SHAPE, CLASSES)),
        Adam(),
    )
    stream, augment = torch.Generator().manual_seed(0), pipeline(["dsa:flip-rotate"])
    images, real = (
        torch.randn(count, *SHAPE, generator=stream) for count in (options.patches, options.batch)
    )
    labels, classes = (torch.arange(count) % CLASSES for count in (options.patches, options.batch))

    def batch(step: int) -> tuple[Tensor, Transform]:
        return torch.arange(options.patches), lambda x: augment(
            x, torch.Generator().manual_seed(step)
        )

    start = time.perf_counter()
    theta = network.initial(0)
    data, inner = (
        (images, one_hot(labels, CLASSES).float()),
        InnerTraining(network=network, optimizer=adam, batch=batch),
    )
    state = run_steps(inner, theta, adam.start(theta), *data, range(options.steps))
    window = range(options.steps, options.steps + options.window)
    meta_gradients(
        inner,
        *state,
        *data,
        window,
        batched_loss(network, real, classes, options.chunk),
        replay=replay,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    variants = {
        "full graph": partial(meta_step, replay=False),
        "replay": partial(meta_step, replay=True),
    }
    main(
        variants, "s / meta-step", width=128, window=60, patches=96, batch=5000, steps=70, chunk=500
    )
