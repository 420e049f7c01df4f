"""Two explicit commands on the store: adopt artefacts under new code, and remove what no plan reaches."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery.errors import PlanError
from distillery.plan.explain import stored_metas
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.table_files import RECIPES
from distillery.plan.upgrade import convert
from distillery.plan.yaml_files import read_yaml
from distillery.store.artefact import META, verify_files
from distillery.store.fingerprint import module_digests
from distillery.store.spec import folder


def adopt(plan: Plan, tables: list[str]) -> list[tuple[Node, str]]:
    """Give existing artefacts the identity they have under the present code.

    For code that changed without changing behaviour: recipe and inputs are the same. Files are
    hard-linked, those of an earlier format converted; meta.json records `adopted_from`.

    Args:
        plan: of the scale whose artefacts are wanted.
        tables: names of the tables that need them.

    Returns:
        The adopted nodes, each with the id that it had.

    Raises:
        ArtefactError: a source is corrupt.
    """
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for meta in sorted(stored_metas(plan.store), key=lambda meta: meta.get("created", "")):
        newest[meta["stage"], meta["key"]] = meta
    adopted = []
    for node in plan.missing(tables):
        if earlier := newest.get((node.spec.stage, node.key)):
            _adopt(plan.store, node, earlier)
            adopted.append((node, earlier["id"]))
    return adopted


def _adopt(store: Path, node: Node, meta: dict[str, Any]) -> None:
    source, target = folder(store, f"{meta['stage']}/{meta['id']}"), folder(store, node.address)
    verify_files(source, meta["files"])
    target.mkdir(parents=True, exist_ok=True)
    new = convert(meta, source, target)
    for name, recorded in new["files"].items():
        if recorded == meta["files"][name]:
            _link(source / name, target / name)
    new |= {
        "id": node.spec.id,
        "spec": asdict(node.spec),
        "modules": module_digests(node.spec.roots),
        "adopted_from": {
            "id": meta["id"],
            "modules": meta["modules"],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
    aside = target / f".{META}.{os.getpid()}"
    aside.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    os.replace(aside, target / META)


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has no links."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, aside)
    except OSError:
        shutil.copyfile(source, aside)
    os.replace(aside, target)


def every_plan(root: Path) -> list[Plan]:
    """The plans of all scales, with params.yaml as it is, and with the full grid, and without its changes: what any of them
    reaches is worth keeping. Raises PlanError when params.yaml does not fit its own scale."""
    params = read_yaml(root / "params.yaml")
    plain = {
        key: params[key]
        for key in params.keys() - {"grid", "datasets", "networks", "ensemble", *RECIPES}
    }
    plans = [Plan(root, params)]
    for scale in sorted(file.stem for file in (root / "workflow/scales").glob("*.yaml")):
        for variant in (params, {**params, "grid": {}}, plain):
            with contextlib.suppress(PlanError):  # changes made for one scale need not fit another
                plans.append(Plan(root, {**variant, "scale": scale}))
    for plan in plans:
        for _ in plan.growing():
            pass
    return plans


def unreachable(plans: list[Plan]) -> list[Path]:
    """Artefact folders of the store that none of these plans, at any table of their scales, names."""
    wanted = {address for plan in plans for address in plan.nodes}
    store = plans[0].store
    return [
        path.parent
        for path in sorted(store.glob(f"*/*/{META}"))
        if str(path.parent.relative_to(store)) not in wanted
    ]


def prune(paths: list[Path]) -> None:
    """Remove artefact folders; meta.json goes first, so that an interrupted removal leaves no artefact that looks complete."""
    for path in paths:
        (path / META).unlink()
        shutil.rmtree(path)
