"""Planned and measured peaks of memory: writes docs/results/data/benchmark-memory.json.

python benchmarks/memory.py [--only distill]

Each job of a made-up table runs in a process of its own, on the CPU with one thread. Measured is
the peak of its resident set less that of a process that has torch and the stage loaded; planned is
`plan.cost` less what it takes for such a process. Rows of the file are in MiB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from records import keep

from distillery.plan.cost import BASE_MEMORY, Estimator
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.store.artefact import read_meta
from distillery.store.spec import folder

ROOT = Path(__file__).parents[1]
CLASSES, TRAIN, TEST, SIDE = 10, 400, 520, 64
SCALE = """
about: "to measure memory"
networks:
  wide: {name: convnet, width: 64, norm: batch, depth: 3}
  flat: {name: convnet, width: 64, norm: instance, depth: 3}
datasets:
  large: &data
    source: folder:data/made-up
    size: 64
    channels: 3
    expected: {classes: 10, train: 400, test: 520, shape: [3, 64, 64]}
  small: {<<: *data, size: 32, expected: {classes: 10, train: 400, test: 520, shape: [3, 32, 32]}}
whiten:
  zca: {ridge: 0.1}
teacher:
  wide: {training: {epochs: 4, batch: 100, optimizer: {name: adamw, lr: 0.01}}}
distill:
  random: {}
  sre2l: {teachers: [wide], iterations: 2, batch: 10, parallel_groups: 5}
  g-vbsm: {teachers: [wide], iterations: 2, batch: 100, patch: 4, reference_images: 128}
  rded: {teachers: [wide], pool: 40}
  infer: {teachers: [wide], iterations: 2, parallel_groups: 4}
  rat-bptt: {network: flat, meta_steps: 1, batch: 400, window: 3, inner_steps: 4, labels: learned}
label:
  static: {teachers: [wide]}
  dynamic: {teachers: [wide]}
  learned: {}
evaluate:
  hard: {loss: {name: ce}, training: &training {epochs: 1, batch: 100}}
  static: {loss: {name: kl, temperature: 4.0}, training: {<<: *training, micro_batch: 25}}
  dynamic: {loss: {name: kl, temperature: 4.0}, training: {<<: *training, precision: bf16}}
  rat-bptt: {loss: {name: soft-ce}, training: *training}
tables:
  podd/table2: {dataset: [small], student: [flat], ipc: [10]}
  infer/table1: {dataset: [large], student: [wide], ipc: [20]}
"""
ROWS = {
    "podd/table2": [
        {"row": "RaT-BPTT", "method": "rat-bptt", "labels": "learned", "protocol": "rat-bptt"}
    ],
    "infer/table1": [
        {"row": "INFER", "method": "infer", "labels": "static"},
        {"row": "RDED", "method": "rded", "labels": "dynamic"},
        {"row": "G-VBSM", "method": "g-vbsm", "labels": "hard"},
        {"row": "SRe2L", "method": "sre2l", "labels": "static"},
        {"row": "Random", "method": "random", "labels": "hard"},
    ],
}
LOADED = "import torch, pyarrow.parquet, PIL.Image, distillery.training.loop, resource;"


def project(root: Path) -> None:
    """A copy of the project that has the scale, its tables and made-up images."""
    shutil.copytree(ROOT / "workflow", root / "workflow")
    shutil.copytree(ROOT / "src", root / "src")  # what runs is what was planned
    for scale in (root / "workflow/scales").glob("*.yaml"):
        scale.unlink()
    (root / "workflow/scales/memory.yaml").write_text(SCALE)
    for table, rows in ROWS.items():
        content = {"title": table, "panel": "dataset", "columns": ["student", "ipc"], "rows": rows}
        (root / f"workflow/tables/{table}.yaml").write_text(yaml.safe_dump(content))
    params = {"paper": "infer", "scale": "memory", "students": 1, "tables": list(ROWS)}
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"device": "cpu"}))
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", TEST)):
        for index in range(count):
            file = root / f"data/made-up/{split}/class-{index % CLASSES}/{index:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = random.integers(0, 80, (SIDE, SIDE, 3))
            # A teacher has to tell the classes apart, by their brightness here.
            Image.fromarray((noise + 19 * (index % CLASSES)).astype(np.uint8)).save(file)


def peak(command: list[str], root: Path) -> int:
    """Bytes of the largest resident set of a child process."""
    said = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", LOADED + said, *command],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": "src"},
    )
    return int(done.stdout) << 10


def made(node: Node, plan: Plan, root: Path) -> int:
    """Make an artefact in a process of its own; bytes at the peak."""
    command = ["-m", "distillery", node.spec.stage, "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, *command, "--spec", node.spec.dumps()],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": "src"},
    )
    if done.returncode:
        raise SystemExit(f"{node.spec.address}: {done.stderr[-2000:]}")
    return read_meta(folder(plan.store, node.address))["peak_memory_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="the stage whose rows are written; the others run as well")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        project(root)
        plan = Plan(root)
        estimator, base = Estimator(plan.settings, plan.store), peak([], root)
        print(f"a process with torch: {base >> 20} MiB, planned {BASE_MEMORY >> 20}")
        rows: list[dict[str, Any]] = []
        about = "`python benchmarks/memory.py`: above a process with torch, which takes "
        about += f"{base >> 20} MiB (planned: {BASE_MEMORY >> 20}); one thread."
        for node in plan.missing(list(ROWS)):
            cost, found = estimator.cost(node), made(node, plan, root) - base
            if cost is None or (only and node.spec.stage != only):
                continue
            planned = cost.on_host(on_gpu=False) - BASE_MEMORY
            row = {"stage": node.spec.stage, "job": node.spec.label, "planned": planned / 2**20}
            rows.append(row | {"measured": found / 2**20, "ratio": planned / found})
            print(*rows[-1].values(), flush=True)
            keep("memory", about, COLUMNS, rows)


COLUMNS = {"stage": "stage", "job": "job", "planned": "planned, MiB|.0f"}
COLUMNS |= {"measured": "measured, MiB|.0f", "ratio": "planned / measured|.2f"}


if __name__ == "__main__":
    main()
