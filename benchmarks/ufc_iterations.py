"""Seconds per iteration of one compensator (INFER's UFC): a plain loop, against the project's path.

python benchmarks/ufc_iterations.py [--width 64 --size 32 --images 100 --parallel-groups 10
                                     --iterations 20 --rounds 5]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from compare import main
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from distillery.methods.infer import Recipe
from distillery.methods.shared.recovery import TeacherObjective, augment_groups, recover
from distillery.nets.network import build_network
from distillery.teacher.load import Teacher


def network(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    shape = (3, options.size, options.size)
    net = build_network(
        {"name": "convnet", "width": options.width, "norm": "batch"}, shape, options.images
    )
    net(torch.randn(64, *shape))
    return net.eval().requires_grad_(False)


def per_iteration(run: Callable[[int], None], options: argparse.Namespace) -> float:
    """Seconds per iteration of `run`, the first two left out."""
    run(2)
    start = time.perf_counter()
    run(options.iterations)
    return (time.perf_counter() - start) / options.iterations


def plain(options: argparse.Namespace) -> float:
    net, labels = network(options), torch.arange(options.images)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    gaps: list[Tensor] = []

    def gap(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        features = inputs[0]
        variance = features.var((0, 2, 3), correction=0)
        gaps.append(
            (features.mean((0, 2, 3)) - layer.running_mean).norm()
            + (variance - layer.running_var).norm()
        )

    for layer in norms:
        layer.register_forward_hook(gap)
    images = torch.randn(options.images, 3, options.size, options.size)

    def run(iterations: int) -> None:
        u = torch.zeros_like(images[:1]).requires_grad_()
        adam = torch.optim.Adam([u], lr=0.25, betas=(0.5, 0.9))
        for step in range(iterations):
            adam.param_groups[0]["lr"] = 0.125 * (1 + math.cos(math.pi * step / iterations))
            gaps.clear()
            shift = torch.randint(0, 5, (2,)).tolist()
            loss = (
                cross_entropy(net((images + u).roll(shift, (2, 3))), labels)
                + 9 * gaps[0]
                + sum(gaps)
            )
            adam.zero_grad()
            loss.backward()
            adam.step()

    return per_iteration(run, options)


def project(options: argparse.Namespace) -> float:
    teacher = Teacher("net", network(options), (0.5,) * 3, (0.25,) * 3, (), "", 100.0)
    groups, labels, device = (
        options.parallel_groups,
        torch.arange(options.images),
        torch.device("cpu"),
    )
    images = torch.randn(groups, options.images, 3, options.size, options.size)

    def run(iterations: int) -> None:
        recipe = Recipe(("net",), iterations=iterations, parallel_groups=groups)
        objective = TeacherObjective.of(teacher, recipe.alpha, recipe, images.shape[2:], device)
        augment = augment_groups(
            lambda step: recipe.augment, [torch.Generator().manual_seed(i) for i in range(groups)]
        )
        zero = torch.zeros_like(images[:, :1])
        recover(
            zero,
            lambda u, step: augment(images + u, step),
            labels,
            objective,
            recipe,
            tqdm(disable=True),
        )

    return per_iteration(run, options) / groups


def alone(options: argparse.Namespace) -> float:
    return project(argparse.Namespace(**vars(options) | {"parallel_groups": 1}))


if __name__ == "__main__":
    variants = {"plain loop": plain, "project, one at a time": alone, "project, groups": project}
    sizes = {"width": 64, "size": 32, "images": 100, "parallel_groups": 10, "iterations": 20}
    main(variants, "s / iteration", **sizes)
