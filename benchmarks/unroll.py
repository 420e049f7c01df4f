"""One meta-step of PoDD on CIFAR-10 in several ways: seconds of CPU and peak memory.

python benchmarks/unroll.py [--width 128 --window 10 --steps 12 --batch 830 --chunk 100
                             --graph-mb 600 --rounds 3]

The first way is the authors' manner: patches are cut one by one at every inner step, the student
is a list of parameters with torch's layers, Adam is written out for each of them (`higher`), the
graph of the whole window is kept, and the real images of the outer loss go through at once. The
others are the project's. All are given the same draws; `--check` prints how far their gradients are
apart.

The meta-step: `steps` plain steps on all patches, `window` differentiated ones, the loss of `batch`
real images. The paper's has 70 (on average), 60 and 5000, a graph of 17 GB; the defaults are a
sixth of each, `chunk` and `graph-mb` likewise. The second meta-step of a process is measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from compare import main
from torch import Tensor
from torch.func import functional_call
from torch.nn import GroupNorm
from torch.nn.functional import cross_entropy, one_hot

from distillery.nets.network import build_network
from distillery.poster.geometry import Grid, corners, cut, flat_index
from distillery.store.job import keep_freed_memory
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

CLASSES, SHAPE, SIDE = 10, (3, 32, 32), 32
WIDTH, HEIGHT, PATCHES = 153, 60, Grid(16, 6)
AUGMENT = pipeline(["dsa:flip-rotate"])


class Problem:
    """What a meta-step is given."""

    def __init__(self, options: argparse.Namespace):
        stream = torch.Generator().manual_seed(0)
        self.poster = torch.randn(3, HEIGHT, WIDTH, generator=stream)
        self.real = torch.randn(options.batch, *SHAPE, generator=stream)
        self.classes = torch.arange(options.batch) % CLASSES
        self.labels = one_hot(torch.arange(PATCHES.count) % CLASSES, CLASSES).float()
        recipe = {"name": "convnet", "width": options.width}
        self.module = build_network(recipe, SHAPE, CLASSES)
        norms = [
            name for name, layer in self.module.named_modules() if isinstance(layer, GroupNorm)
        ]
        self.cancelled = {f"{int(name) - 1}.bias" for name in norms}
        self.options = options

    def double(self) -> Problem:
        """In float64."""
        self.poster, self.real, self.labels = (
            tensor.double() for tensor in (self.poster, self.real, self.labels)
        )
        self.module.double()
        return self

    def augment(self, step: int) -> Transform:
        return lambda images: AUGMENT(images, torch.Generator().manual_seed(step))


def authors(problem: Problem) -> Tensor:
    """The gradient by the poster in the manner of the authors' code."""
    options, net = problem.options, problem.module
    theta = start(problem)
    poster = problem.poster.clone().requires_grad_()
    places = corners(WIDTH, HEIGHT, SIDE, PATCHES).tolist()

    def loss_of(theta: dict[str, Tensor], step: int) -> Tensor:
        slices = [poster[:, y : y + SIDE, x : x + SIDE] for x, y in places]
        images = problem.augment(step)(torch.stack(slices))
        return cross_entropy(functional_call(net, theta | still, (images,)), problem.labels)

    # Biases that a norm cancels stay, as in the project: their gradient is rounding.
    still = {name: theta.pop(name) for name in list(theta) if name in problem.cancelled}
    parameters = {name: value.clone().requires_grad_() for name, value in theta.items()}
    adam = torch.optim.Adam(parameters.values(), lr=1e-3)
    for step in range(options.steps):
        loss = loss_of(parameters, step)
        adam.zero_grad()
        loss.backward(inputs=list(parameters.values()))
        adam.step()
    state = {name: adam.state[value] for name, value in parameters.items()}
    theta = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    means = {name: state[name]["exp_avg"] for name in theta}
    squares = {name: state[name]["exp_avg_sq"] for name in theta}
    for step in range(options.steps, options.steps + options.window):
        loss = loss_of(theta, step)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        after = {}
        for (name, value), g in zip(theta.items(), gradients, strict=True):
            means[name] = means[name] * 0.9 + 0.1 * g
            squares[name] = squares[name] * 0.999 + 0.001 * g * g
            root = (squares[name] / (1 - 0.999 ** (step + 1)) + 1e-30).sqrt() + 1e-8
            after[name] = value - 1e-3 / (1 - 0.9 ** (step + 1)) * means[name] / root
        theta = after
    outer = cross_entropy(functional_call(net, theta | still, (problem.real,)), problem.classes)
    return torch.autograd.grad(outer, poster)[0]


def start(problem: Problem) -> dict[str, Tensor]:
    """The student before its first step, by the names of its parameters."""
    theta, named = FlatNetwork(problem.module).initial(0), dict(problem.module.named_parameters())
    parts = theta.split([value.numel() for value in named.values()])
    return {n: part.view(named[n].shape) for n, part in zip(named, parts, strict=True)}


def project(problem: Problem, *, explicit: bool, graph_mb: float | None) -> Tensor:
    """The gradient by the poster by `unroll`; `graph_mb` None: what the command line says."""
    options, adam = problem.options, Adam()
    network = FlatNetwork(problem.module, explicit=explicit)
    poster = problem.poster.clone().requires_grad_()
    patches = cut(poster, flat_index(WIDTH, HEIGHT, SIDE, PATCHES))
    every = torch.arange(PATCHES.count)

    def batch(step: int) -> tuple[Tensor, Transform]:
        return every, problem.augment(step)

    data = patches.detach(), problem.labels
    theta, inner = network.initial(0), InnerTraining(network=network, optimizer=adam, batch=batch)
    state = run_steps(inner, theta, adam.start(theta), *data, range(options.steps))
    window = range(options.steps, options.steps + options.window)
    outer = batched_loss(network, problem.real, problem.classes, options.chunk)
    graph_bytes = 1e6 * (options.graph_mb if graph_mb is None else graph_mb)
    found = meta_gradients(inner, *state, *data, window, outer, graph_bytes=graph_bytes)
    return torch.autograd.grad(patches, poster, found.images)[0]


def measured(options: argparse.Namespace, way: Callable[[Problem], Tensor], keep: bool) -> float:
    """Seconds of CPU of the second meta-step."""
    if keep:
        keep_freed_memory()
    problem = Problem(options)
    way(problem)
    begin = time.process_time()
    way(problem)
    return time.process_time() - begin


WAYS = {
    "the authors' manner": (authors, False),
    "the authors' manner, freed memory kept": (authors, True),
    "full graph": (partial(project, explicit=True, graph_mb=1e9), True),
    "some of the graph": (partial(project, explicit=True, graph_mb=None), True),
    "replay": (partial(project, explicit=True, graph_mb=0), True),
    "replay, torch's layers (default)": (partial(project, explicit=False, graph_mb=0), True),
}
SIZES = {"width": 128, "window": 10, "steps": 12, "batch": 830, "chunk": 100, "graph_mb": 600}


def check() -> None:
    """Print how far the gradients of the ways are from the first's: float64, at a small size."""
    torch.set_num_threads(1)
    sizes = SIZES | {"width": 8, "batch": 100, "window": 5, "graph_mb": 100}
    problem = Problem(argparse.Namespace(**sizes)).double()
    first = authors(problem)
    for name, (way, _) in WAYS.items():
        print(f"{float((way(problem) - first).norm() / first.norm()):.1e}  {name}")


if __name__ == "__main__":
    if "--check" in sys.argv:
        check()
    else:
        variants = {
            name: partial(measured, way=way, keep=keep) for name, (way, keep) in WAYS.items()
        }
        main(variants, "CPU s / meta-step", name="unroll", **SIZES)
