"""Compare ways of doing the same work: fresh processes in turns, medians, as a Markdown table."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from statistics import median

import torch


def main(
    variants: Mapping[str, Callable[[argparse.Namespace], float]], unit: str, **sizes: int
) -> None:
    """Run each variant and print a table; ratios are to the first variant.

    Other jobs may share the machine: with turns and medians their load falls on all variants.

    Args:
        variants: functions by name; each returns a number in `unit`.
        unit: what the functions measure.
        sizes: names and defaults of the command line's options, handed to the functions.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=variants, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    if options.variant:
        torch.set_num_threads(1)
        number = variants[options.variant](options)
        print(json.dumps([number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
    else:
        _table({name: [] for name in variants}, options, unit)


def _table(found: dict[str, list[list[float]]], options: argparse.Namespace, unit: str) -> None:
    for _ in range(options.rounds):
        for name, runs in found.items():
            command = [sys.executable, *sys.argv, "--variant", name]
            runs.append(
                json.loads(
                    subprocess.run(command, capture_output=True, text=True, check=True).stdout
                )
            )
    rows = {
        name: [median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()
    }
    first = next(iter(rows.values()))
    print(f"| | {unit} | ratio | peak memory (MiB) | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for name, (number, memory) in rows.items():
        print(
            f"| {name} | {number:.4g} | {number / first[0]:.2f} "
            f"| {memory:.0f} | {memory / first[1]:.2f} |"
        )
    settings = {name: value for name, value in vars(options).items() if name != "variant"}
    print(
        "\n"
        + ", ".join(f"{name} {value}" for name, value in settings.items())
        + ", one thread; medians"
    )
