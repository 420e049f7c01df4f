"""Plans of the project's own tables and of small ones, and what moved between two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml

from distillery.plan.plan import Plan
from distillery.plan.settings import Settings, merge, read_yaml
from helpers.project import ROOT


def at(scale: str, **changes) -> Plan:
    return Plan(ROOT, merge(read_yaml(ROOT / "params.yaml"), {"scale": scale}, changes))


def settings_with(tmp_path: Path, changes: dict, params: dict | None = None) -> Settings:
    scale = tmp_path / "workflow/scales/small.yaml"
    scale.parent.mkdir(parents=True)
    base = {
        "about": "",
        "networks": {name: {"name": "convnet"} for name in "abcd"},
        "ensemble": ["a", "b", "c"],
        "datasets": {"one": {"source": "sklearn:digits"}},
        "tables": {},
    }
    scale.write_text(yaml.safe_dump(merge(base, changes)))
    return Settings(tmp_path, {"scale": "small", "tables": ["table1"]} | (params or {}))


def stages(plan: Plan, table: str = "table2") -> Counter:
    return Counter(node.spec.stage for node in plan.missing([table]))


def planned(root: Path, **changes) -> Plan:
    return Plan(root, merge(read_yaml(root / "params.yaml"), changes))


def ids(plan: Plan) -> dict[str, str]:
    """label -> id of everything the table needs."""
    return {f"{n.spec.stage}/{n.spec.label}": n.spec.id for n in plan.missing(["table2"])}


def moved(before: Plan, after: Plan) -> set[str]:
    old, new = ids(before), ids(after)
    return {label for label in old.keys() | new.keys() if old.get(label) != new.get(label)}
