"""A small copy of the project to plan and run in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = """
about: "for tests: seconds per job"
networks:
  net-a: {name: convnet, width: 4, norm: batch}
  net-b: {name: convnet, width: 6, norm: batch}
datasets:
  digits:
    source: sklearn:digits
    expected: {classes: 10, train: 1437, test: 360, shape: [1, 8, 8], original_bytes: 91968}
teacher:
  net-a: &teacher
    training: {epochs: 2, batch: 64, optimizer: {name: sgd, lr: 0.1}, augment: [], test_every: 2}
  net-b: *teacher
distill:
  random: {}
  infer: {teachers: [net-a, net-b], iterations: 3, lr: 0.25, alpha: 1.0, augment: []}
label:
  static: {teachers: [net-a, net-b]}
  dynamic: {teachers: [net-a]}
evaluate:
  hard: {loss: {name: ce}, training: &training {epochs: 2, batch: 32, augment: [], test_every: 2}}
  static: {loss: {name: kl, temperature: 4.0}, training: *training}
  dynamic: {loss: {name: kl, temperature: 4.0}, training: *training}
tables:
  infer/table2: {dataset: [digits], student: [net-a], ipc: [5]}
"""


TABLE = """
title: "a small table"
published: infer_table2.csv
panel: dataset
columns: [student, ipc]
paper: {dataset: [imagenet-1k], student: [resnet18], ipc: [10]}
rows:
  - {row: Random, method: random, labels: hard}
  - {row: INFER, method: infer, labels: static}
"""


PARAMS = """
paper: infer
scale: tiny
students: 2
tables: [table2]
datasets: {}
evaluate: {}
"""


def make_project(folder: Path) -> Path:
    """A copy of the project, in `folder`, with a scale and a table that run in seconds."""
    root = folder / "project"
    for name in ("src", "workflow", "profiles", ".dvc"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp")
        )
    for name in ("Snakefile", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / "results/store").mkdir(parents=True)
    shutil.copy(ROOT / "results/store/.gitignore", root / "results/store")
    for scale in (root / "workflow/scales").glob("*.yaml"):
        scale.unlink()
    (root / "workflow/scales/tiny.yaml").write_text(TINY)
    (root / "workflow/tables/infer/table2.yaml").write_text(TABLE)
    (root / "params.yaml").write_text(PARAMS)
    return root
