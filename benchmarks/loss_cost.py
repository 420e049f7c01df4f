"""Time of each loss, alone and within a training step of a ConvNet, as a Markdown table.

python benchmarks/loss_cost.py [--width 64 --size 32 --batch 100 --classes 100 --rounds 15
                                --device cpu]

With plain and with refined labels; forward and backward pass; ratios are to KL. One process and one
thread, all in turns, medians over the rounds. Within a step the loss is timed by itself, and the
rest of the step once for all losses: it varies by more than any loss costs. On a CPU the clock is
the process's, since other jobs may share the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from distillery.components import registry
from distillery.losses.target import Target
from distillery.nets.network import build_network
from distillery.training.optim import build_optimizer
from distillery.training.recipe import Optimizer

FIRST = "kl"  # what the ratios are to
ALONE_S = 0.03  # at least so long in a round

Loss = Callable[[Tensor], Tensor]
Clock = Callable[[], float]


def targets(options: argparse.Namespace) -> Target:
    stream = torch.Generator().manual_seed(0)
    hard = torch.arange(options.batch) % options.classes
    logits = 4 * torch.randn(options.batch, options.classes, generator=stream)
    parts = (hard, F.one_hot(hard, options.classes).float(), logits)
    return Target(*(part.to(options.device) for part in parts), epoch=100)


def losses(target: Target) -> dict[tuple[str, bool], Loss]:
    """Each loss, with plain and, where it reads soft labels, refined ones: (name, refined)."""
    kind, how = registry.build("refinement", {"name": "gift"})
    found: dict[tuple[str, bool], Loss] = {}
    for name in sorted(registry.index("loss"), key=lambda name: (name != FIRST, name)):
        module, recipe = registry.build("loss", {"name": name})
        found[name, False] = lambda logits, m=module, r=recipe: m.loss(logits, target, r)
        if registry.trait(module, "needs_soft_labels", False):
            found[name, True] = lambda logits, m=module, r=recipe: m.loss(
                logits, kind.refine(target, how), r
            )
    return found


def alone(loss: Loss, options: argparse.Namespace) -> Callable[[], None]:
    logits = torch.randn(options.batch, options.classes, device=options.device, requires_grad=True)
    return lambda: torch.autograd.grad(loss(logits), logits)


def within(
    loss: Loss, net: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, clock: Clock
) -> tuple[float, float]:
    """Seconds of the loss and of all the rest in one training step."""
    start = clock()
    logits = net(images)
    leaf, before = logits.detach().requires_grad_(), clock()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    own = clock() - before
    optimizer.zero_grad()
    logits.backward(gradient)
    optimizer.step()
    return own, clock() - start - own


def finished() -> float:
    """The time when the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def measured(
    options: argparse.Namespace,
) -> tuple[dict[tuple[str, bool], tuple[float, float]], float]:
    """Seconds alone and within a training step, by loss, and those of the rest of a step."""
    shape, device = (3, options.size, options.size), options.device
    clock = time.process_time if device == "cpu" else finished
    net = build_network(
        {"name": "convnet", "width": options.width, "norm": "batch"}, shape, options.classes
    ).to(device)
    images = torch.randn(options.batch, *shape, device=device).to(memory_format=torch.channels_last)
    net, optimizer = (
        net.train().to(memory_format=torch.channels_last),
        build_optimizer(net, Optimizer()),
    )
    found = losses(targets(options))
    runs, rests = {key: ([], []) for key in found}, []
    for _ in range(options.rounds):
        for key, loss in found.items():
            timer = Timer(
                "run()", globals={"run": alone(loss, options)}, timer=clock, num_threads=1
            )
            runs[key][0].append(timer.blocked_autorange(min_run_time=ALONE_S).median)
            own, rest = within(loss, net, optimizer, images, clock)
            runs[key][1].append(own)
            rests.append(rest)
    return {
        key: (median(single), median(inside)) for key, (single, inside) in runs.items()
    }, median(rests)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {
        "width": 64,
        "size": 32,
        "batch": 100,
        "classes": 100,
        "rounds": 15,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows, rest = measured(options)
    first = rows[FIRST, False]
    print("| loss | labels | alone (us) | ratio | in a step (us) | ratio | step |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (name, refined), (single, inside) in rows.items():
        ratios = (single / first[0], inside / first[1], (rest + inside) / (rest + first[1]))
        numbers = f"{single * 1e6:.0f} | {ratios[0]:.2f} | {inside * 1e6:.0f} | {ratios[1]:.2f}"
        print(f"| {name} | {'refined' if refined else 'plain'} | {numbers} | {ratios[2]:.4f} |")
    settings = ", ".join(f"{name} {value}" for name, value in vars(options).items())
    print(
        f"\nstep: the ratio of whole training steps, {1e3 * rest:.1f} ms without the loss; "
        f"{settings}, one thread; medians"
    )


if __name__ == "__main__":
    main()
