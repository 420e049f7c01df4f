"""Wall seconds until a bad setting of the demo is one line, as a Markdown table.

python benchmarks/time_to_fail.py [--rounds 3]

Each setting is laid over params.yaml in a copy of the project without its results. `distillery
plan` and `snakemake -n` run in processes of their own; the time is the median over the rounds. The
first row is the demo itself, which is planned. The script fails where a bad setting is accepted, or
is no single line of ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from distillery.plan.origins import combine, located, plain

ROOT = Path(__file__).parents[1]
COPIED = ("src", "workflow", "profiles", "Snakefile", "params.yaml")
COMMANDS = {
    "distillery plan": ("distillery", "plan"),
    "snakemake -n": ("snakemake", "-n", "results/table2.csv"),
}
# What is laid over params.yaml, and what the line says.
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, ""),
    "a scale that is a path": ({"scale": "../scales/demo"}, "params.yaml.scale"),
    "a misspelt key": ({"evaluate": {"hard": {"trainin": {}}}}, "did you mean 'training'"),
    "a million images per class": ({"grid": {"table2": {"ipc": [1000000]}}}, "training images"),
    "ten million students": ({"students": 10**7}, "params.yaml.students"),
    "images of a million pixels": ({"datasets": {"digits": {"size": 10**6}}}, "digits.size"),
    "a mean of three channels": ({"datasets": {"digits": {"mean": [0.5] * 3}}}, "digits.mean"),
    "a network that pools too much": ({"networks": {"convnet-w16": {"depth": 9}}}, "depth = 9"),
    "a student that no table has": ({"distill": {"infer": {"per_student": {"x": {}}}}}, "student"),
    "a teacher twice": ({"label": {"static": {"teachers": ["convnet-w16"] * 2}}}, "twice"),
    "a crop beyond the image": (
        {"evaluate": {"static": {"training": {"augment": ["crop:99"]}}}},
        "the images have 8 px",
    ),
}


def copied(folder: Path) -> Path:
    """The project without its results, in `folder`."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "results/store").mkdir(parents=True)
    return folder


def run(root: Path, words: tuple[str, ...]) -> tuple[float, int, list[str]]:
    """Seconds, exit status and lines of a command."""
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=root, capture_output=True, text=True, env=environment
    )
    return time.perf_counter() - start, done.returncode, (done.stdout + done.stderr).splitlines()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    print("| setting |", " | ".join(f"{name}, s" for name in COMMANDS), "|")
    print("| --- |", " | ".join("---:" for _ in COMMANDS), "|")
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        for name, (change, said) in SETTINGS.items():
            laid = plain(combine(located(params, ""), located(change, "")))
            (root / "params.yaml").write_text(yaml.safe_dump(laid))
            row = []
            for words in COMMANDS.values():
                found = [run(root, words) for _ in range(rounds)]
                row.append(f"{median(seconds for seconds, _, _ in found):.2f}")
                _, status, lines = found[0]
                ours = [line for line in lines if said in line and "params.yaml" in line]
                if bool(status) != bool(change) or (change and len(ours) != 1):
                    sys.exit(f"{name}: {' '.join(words)}: exit {status}:\n" + "\n".join(lines))
            print(f"| {name} |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
