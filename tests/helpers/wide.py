"""A project with most kinds of settings, small enough to be planned in a fraction of a second."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from helpers.project import ROOT

PARAMS = "params.yaml"
SCALE = "workflow/scales/wide.yaml"
TABLE = "workflow/tables/infer/table2.yaml"
AXES = "workflow/tables/gift/table5.yaml"  # with an axis of its own, which has values
SWEEP = "workflow/tables/gift/figure3.yaml"  # with one that sets a value
PAPER = "workflow/tables/infer/paper.yaml"
FILES = (PARAMS, SCALE, TABLE, AXES, SWEEP, PAPER)

_GRID = {"dataset": ["digits"], "student": ["convnet-w16"], "ipc": [5]}
_TABLES = {
    "infer/table2": _GRID | {"ipc": {"digits": [5, 10]}},
    "infer/figure8": _GRID | {"student": ["resnet10-w16"]},
    "gift/table5": _GRID | {"optimizer": ["sgd", "adamw"]},
    "gift/figure3": _GRID | {"gamma": [0.0, 0.5]},
    "podd/table1": _GRID | {"student": ["convnet-in16"], "ipc": [1.0, 0.3]},
}
_OF_DATA = {"evaluate": {"static": {"per_ipc": {10: {"training": {"epochs": 5}}}}}}
_PARAMS = {
    "paper": "infer",
    "scale": "wide",
    "students": 1,
    "tables": list(_TABLES),
    "device": "cpu",
    "environment": 1,
    "datasets": {"digits": {"mean": [0.3], "std": [0.4], "fit": {"train": "stretch"}}},
    "networks": {"convnet-w16": {"depth": 2}},
    "teacher": {"convnet-w32": {"training": {"epochs": 3}}},
    "distill": {"infer": {"per_ipc": {5: {"iterations": 7}}}},
    "label": {"static": {"teachers": ["convnet-w16", "convnet-w32"]}},
    "evaluate": {
        "hard": {
            "training": {"augment": ["crop:1", "flip"], "schedule": {"warmup": 2}},
            "per_student": {"convnet-w16": {"training": {"batch": 9}}},
        }
    },
    "grid": {
        "table2": {"rows": ["Random", "INFER", "G-VBSM"]},
        "infer/figure8": {"rows": ["INFER"]},
        "gift/table5": {"rows": ["SRe2L", "SRe2L + GIFT"]},
        "gift/figure3": {"rows": ["RDED + GIFT"]},
    },
}


def make_wide(folder: Path) -> Path:
    """A folder to plan in: the demo's recipes, five kinds of tables, and changes of each kind."""
    root = folder / "wide"
    for name in ("tables", "published"):
        shutil.copytree(ROOT / "workflow" / name, root / "workflow" / name)
    shutil.copy(ROOT / "workflow/costs.yaml", root / "workflow")
    (root / "workflow/scales").mkdir()
    (root / "results/store").mkdir(parents=True)
    scale = yaml.safe_load((ROOT / "workflow/scales/demo.yaml").read_text())
    scale["tables"] = _TABLES
    scale["datasets"]["digits"] |= _OF_DATA
    write(root, {SCALE: scale, PARAMS: _PARAMS})
    return root


def read(root: Path) -> dict[str, Any]:
    """The content of the settings files, by their path below `root`."""
    return {name: yaml.safe_load((root / name).read_text()) for name in FILES}


def dumped(content: Any) -> str:
    """A settings file's text; equal parts are written out each time."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(root: Path, files: dict[str, Any]) -> None:
    """Write settings files."""
    for name, content in files.items():
        (root / name).write_text(dumped(content))
