"""Compare ways of doing the same work: fresh processes in turns, medians, a table.

A benchmark with a name keeps what it found (`records.keep`).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from records import keep, markdown


def main(
    variants: Mapping[str, Callable[[argparse.Namespace], float]],
    unit: str,
    name: str | None = None,
    **sizes: int,
) -> None:
    """Run each variant and print a table; ratios are to the first variant.

    Other jobs may share the machine: with turns and medians their load falls on all variants.

    Args:
        variants: functions by name; each returns a number in `unit`.
        unit: what the functions measure.
        name: of the result file; None: there is none.
        sizes: names and defaults of the command line's options, handed to the functions.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=variants, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    for option, default in sizes.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    if options.variant:
        torch.set_num_threads(1)
        before = _peak()
        number = variants[options.variant](options)
        print(json.dumps([number, _peak(), before]))
        return
    found = _measured(list(variants), options)
    settings = {key: value for key, value in vars(options).items() if key != "variant"}
    stated = ", ".join(f"{option} {value}" for option, value in settings.items())
    number, memory = next(iter(found.values()))
    rows = [
        {"variant": variant, "value": n, "ratio": n / number, "memory": m, "of": m / memory}
        for variant, (n, m) in found.items()
    ]
    columns = {"variant": "", "value": f"{unit}|.4g", "ratio": "ratio|.2f"}
    columns |= {"memory": "peak memory (MiB)|.0f", "of": "ratio|.2f"}
    about = f"`python benchmarks/{Path(sys.argv[0]).name}`: {stated}; one thread; medians."
    if name:
        print(keep(name, about, columns, rows))
    else:
        print(markdown({"about": about, "columns": columns, "rows": rows}))


def _peak() -> float:
    """MiB of this process at its peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measured(variants: list[str], options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Medians of the numbers and of the peak memory, without what the process has at its start."""
    found: dict[str, list[list[float]]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, runs in found.items():
            command = [sys.executable, *sys.argv, "--variant", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            number, peak, before = json.loads(done.stdout)
            runs.append([number, peak - before])
            print(f"{name}: {number:.4g}, {peak - before:.0f} MiB", file=sys.stderr)
    medians = {
        n: [median(column) for column in zip(*runs, strict=True)] for n, runs in found.items()
    }
    return {name: (number, memory) for name, (number, memory) in medians.items()}
