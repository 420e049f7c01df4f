"""Compare ways of doing the same work: fresh processes in turns, medians, a table.

A benchmark with a name writes docs/results/data/benchmark-<name>.csv, from which
`python benchmarks/page.py` fills the tables of docs/results/benchmarks.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "data"
COLUMNS = ("variant", "unit", "value", "memory_mib", "settings")


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
    rows = _measured(list(variants), options)
    settings = {key: value for key, value in vars(options).items() if key != "variant"}
    stated = ", ".join(f"{key} {value}" for key, value in settings.items())
    records = [[variant, unit, f"{n:.4g}", f"{m:.0f}", stated] for variant, (n, m) in rows.items()]
    if name:
        with (RESULTS / f"benchmark-{name}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *records])
    print(table([dict(zip(COLUMNS, record, strict=True)) for record in records]))


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


def table(records: list[dict[str, str]]) -> str:
    """The Markdown table of a result file's records."""
    first, unit = records[0], records[0]["unit"]
    lines = [f"| | {unit} | ratio | peak memory (MiB) | ratio |", "| --- " + "| ---: " * 4 + "|"]
    for record in records:
        value, memory = (
            f"{record[key]} | {float(record[key]) / float(first[key]):.2f}"
            for key in ("value", "memory_mib")
        )
        lines.append(f"| {record['variant']} | {value} | {memory} |")
    return "\n".join([*lines, "", f"{first['settings']}, one thread; medians."])
