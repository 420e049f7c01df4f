"""CPU seconds per iteration of one compensator (INFER's UFC): a plain loop, the project's path.

ResNet-18 and a ConvNet of width 128, float32 and bf16, all in one run and one thread. The plain
loop is in the manner of the authors' code: contiguous float32, hooks on the batch norms that take
mean and variance, a norm per layer, Adam.

python benchmarks/ufc_iterations.py [--images 100 --size 32 --iterations 2 --rounds 7
                                     --groups 4]
python benchmarks/page.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from pairs import in_turns
from records import keep
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from distillery.methods.infer import Recipe
from distillery.methods.shared.recovery import TeacherObjective, augment_groups, recover
from distillery.nets.network import build_network
from distillery.store.job import keep_freed_memory
from distillery.teacher.load import Teacher

NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-18": {"name": "resnet18"},
    "ConvNet, width 128": {"name": "convnet", "width": 128, "norm": "batch"},
}
COLUMNS = {
    "network": "network",
    "side": "",
    "cpu": "CPU s / iteration|.3f",
    "wall": "wall s / iteration|.3f",
    "ratio": "ratio|.2f",
    "lowest": "lowest|.2f",
    "highest": "highest|.2f",
}


def network(spec: dict[str, Any], options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    shape = (3, options.size, options.size)
    net = build_network(spec, shape, options.images)
    net(torch.randn(64, *shape))
    return net.eval().requires_grad_(False)


def plain(net: nn.Module, images: Tensor, iterations: int) -> Callable[[], None]:
    labels = torch.arange(len(images))
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

    def run() -> None:
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

    return run


def project(net: nn.Module, images: Tensor, recipe: Recipe) -> Callable[[], Tensor]:
    groups = recipe.parallel_groups
    teacher = Teacher("net", net, (0.5,) * 3, (0.25,) * 3, (), "", 100.0)
    objective = TeacherObjective.of(
        teacher, recipe.alpha, recipe, images.shape[1:], torch.device("cpu")
    )
    streams = [torch.Generator().manual_seed(i) for i in range(groups)]
    augment = augment_groups(lambda step: recipe.augment, streams)
    labels, bar = torch.arange(len(images)), tqdm(disable=True)
    return lambda: recover(
        torch.zeros(groups, 1, *images.shape[1:]),
        lambda u, step: augment(images + u, step),
        labels,
        objective,
        recipe,
        bar,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    sizes = {"images": 100, "size": 32, "iterations": 2, "rounds": 7, "groups": 4}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the project's jobs do; the plain loop has it too
    images, rows = torch.randn(options.images, 3, options.size, options.size), []
    for name, spec in NETWORKS.items():
        loop = plain(network(spec, options), images, options.iterations)
        sides: dict[str, tuple[Callable[[], object], float]] = {
            "plain loop": (loop, options.iterations)
        }
        for word, groups in (("fp32", 1), ("bf16", 1), ("bf16", options.groups)):
            recipe = Recipe(
                ("net",), iterations=options.iterations, precision=word, parallel_groups=groups
            )
            side = f"project, {word}" + (f", `parallel_groups: {groups}`" if groups > 1 else "")
            run = project(network(spec, options), images, recipe)
            sides[side] = run, options.iterations * groups
        for row in in_turns(sides, options.rounds):
            rows.append({"network": name} | row)
            print(rows[-1], flush=True)
    keep("ufc-iterations", about(options), COLUMNS, rows)


def about(options: argparse.Namespace) -> str:
    return (
        f"`python benchmarks/ufc_iterations.py`: an iteration of one compensator, {options.images} "
        f"images of {options.size} pixels, one thread. A plain loop in contiguous float32 with "
        f"hooks, norms per layer and Adam, as in the authors' code, against "
        f"`methods/shared/recovery.py`. All sides take turns in one process; medians of "
        f"{options.rounds} rounds, ratios of CPU time within a round, their least and largest."
    )


if __name__ == "__main__":
    main()
