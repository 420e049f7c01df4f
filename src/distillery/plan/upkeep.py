"""Two commands on the store: adopt artefacts under new code, and remove what no plan reaches."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from distillery.errors import PlanError
from distillery.plan.explain import stored_metas
from distillery.plan.nodes import Node
from distillery.plan.params import CHANGES, scale_names, without
from distillery.plan.plan import Plan
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.upgrade import convert, with_sizes
from distillery.plan.yaml_files import read_yaml
from distillery.store.artefact import (
    FORMAT,
    META,
    Meta,
    check_meta,
    meta_writer,
    read_meta,
    verify_files,
)
from distillery.store.atomic import copier, write_file
from distillery.store.fingerprint import module_digests
from distillery.store.spec import folder


@dataclass(frozen=True, eq=False)
class Adoptable:
    """A missing artefact, of which the store holds one with the same recipe and inputs.

    Attributes:
        node: what the plan asks for.
        meta: meta.json of the newest such artefact, as `upgraded` gives it.
    """

    node: Node
    meta: dict[str, Any]


def adoptable(plan: Plan, tables: list[str]) -> list[Adoptable]:
    """What `adopt` would adopt, inputs before what reads them.

    Args:
        plan: of the scale whose artefacts are wanted.
        tables: names of the tables that need them.
    """
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for meta in stored_metas(plan.store):
        newest[meta["stage"], meta["key"]] = meta
    pairs = ((node, newest.get((node.spec.stage, node.key))) for node in plan.missing(tables))
    return [Adoptable(node, meta) for node, meta in pairs if meta]


def adopt(store: Path, found: Adoptable, into: Path | None = None) -> None:
    """Give an existing artefact the identity that it has under the present code.

    For code that changed without changing behaviour: recipe and inputs are the same. Files are
    hard-linked, those of an earlier format converted; meta.json records `adopted_from`.

    Args:
        store: that holds the artefact.
        found: what to adopt.
        into: another store that gets it.

    Raises:
        ArtefactError: the artefact is corrupt.
    """
    node, meta, goal = found.node, found.meta, into or store
    source, target = folder(store, f"{meta['stage']}/{meta['id']}"), folder(goal, node.address)
    if meta["format"] >= FORMAT:
        check_meta(meta, source)
    verify_files(source, meta["files"])
    target.mkdir(parents=True, exist_ok=True)
    new = with_sizes(convert(meta, source, target), partial(_input_metadata, goal, node))
    for name, recorded in new["files"].items():
        if recorded == meta["files"][name]:
            write_file(target / name, copier(source / name))
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
    write_file(target / META, meta_writer(cast(Meta, new)))  # it has all keys of the present format


def _input_metadata(store: Path, node: Node, role: str) -> dict[str, Any] | None:
    """The metadata of an input of a planned artefact; None where it is not at hand."""
    inputs = [folder(store, found.address) for found in node.inputs_of(role)]
    if len(inputs) != 1 or not (inputs[0] / META).is_file():
        return None
    return read_meta(inputs[0])["metadata"]


def every_plan(root: Path) -> list[Plan]:
    """The plans of all scales: what any of them reaches is worth keeping.

    Each scale is planned with params.yaml as it is, with the full grid, and without its changes;
    what `scales` says counts like what stands beside it.

    Raises:
        PlanError: params.yaml does not fit its own scale, or the data of a scale cannot be planned:
            what is made of them would look as if no plan reached it.
    """
    params = read_yaml(root / "params.yaml")
    full_grid, plain = without(params, ("grid",)), without(params, CHANGES)
    plans = [Plan(root, params)]
    for scale in scale_names(root):
        for variant in (params, full_grid, plain):
            with contextlib.suppress(PlanError):  # changes made for one scale need not fit another
                plans.append(Plan(root, {**variant, "scale": scale}))
    for plan in plans:
        for name in plan.settings.scale.datasets:
            plan_data(name, plan.context)
        for _ in plan.growing():
            pass
    return plans


def unreachable(plans: list[Plan]) -> list[Path]:
    """Artefact folders that none of these plans names, at any table of their scales."""
    wanted = {address for plan in plans for address in plan.nodes}
    store = plans[0].store
    return [
        path.parent
        for path in sorted(store.glob(f"*/*/{META}"))
        if str(path.parent.relative_to(store)) not in wanted
    ]


def prune(paths: list[Path]) -> None:
    """Remove artefact folders.

    meta.json goes first: an interrupted removal leaves no artefact that looks complete.
    """
    for path in paths:
        (path / META).unlink()
        shutil.rmtree(path)
