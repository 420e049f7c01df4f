"""Say what a plan would run, why, and what it would cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.plan.cost import Cost, Estimator, duration, volume
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.preflight import Preflight
from distillery.plan.upgrade import upgraded
from distillery.store.artefact import META, check_meta, check_shape, is_earlier
from distillery.store.canonical import read_json
from distillery.store.fingerprint import module_digests
from distillery.store.spec import STAGES, Spec


class Explainer:
    """Compares missing artefacts with the nearest existing one of the same name."""

    def __init__(self, plan: Plan) -> None:
        """Take a plan, and estimates at its scale."""
        self.plan, self.estimator = plan, Estimator(plan.settings, plan.store)

    @cached_property
    def stored(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """meta.json of everything in the store, by stage and label, newest first."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for meta in reversed(stored_metas(self.plan.store)):
            found.setdefault((meta["stage"], meta["spec"]["label"]), []).append(meta)
        return found

    def why(self, node: Node) -> str:
        """One phrase: why this artefact is not there yet."""
        earlier = self.stored.get((node.spec.stage, node.spec.label))
        if not earlier:
            return "never made"
        old = earlier[0]
        if old["spec"]["recipe"] != node.spec.recipe:
            return "recipe changed: " + ", ".join(changes(old["spec"]["recipe"], node.spec.recipe))
        if old["spec"]["inputs"] != node.spec.inputs:
            return "an input changed"
        now, then = module_digests(node.spec.roots), old.get("modules", {})
        names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        return "code changed: " + ", ".join(names)

    def lines(self, tables: list[str]) -> Iterator[str]:
        """The plan as text: one line per missing artefact, then the totals."""
        missing = self.plan.missing(tables)
        for node in missing:
            cost = self.estimator.cost(node)
            time = duration(cost.seconds) if cost else "?"
            yield f"{node.spec.stage:<9} {node.spec.id:<64} {time:>8}  {self.why(node)}"
        for table in tables:
            state = "up to date" if self.plan.fresh(table) else "to be assembled"
            count = len(self.plan.evaluations(table))
            yield f"table     results/{table}.csv: {count} cells, {state}"
        for finding in Preflight(self.plan.settings, self.estimator).findings(missing):
            yield f"warning: {finding.text}"
        yield summary(missing, self.estimator, self.plan.settings.params.scale)


def stored_metas(store: Path) -> list[dict[str, Any]]:
    """The meta.json of every artefact in the store, in the present words, the oldest first.

    Unreadable ones are passed over, as they are no artefacts.
    """
    return sorted(_readable_metas(store), key=lambda meta: str(meta.get("created", "")))


def _readable_metas(store: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(store.glob(f"*/*/{META}")):
        try:
            stored = read_json(path)
            if not is_earlier(stored):
                check_meta(stored, path.parent)
            meta = upgraded(stored)
            Spec(**meta["spec"])
            check_shape(meta, path, without=("checksum",))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        except (OSError, ArtefactError):
            continue
        yield meta


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """The leaves that differ between two JSON values, as `key.key old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            c
            for key in sorted(old.keys() | new.keys())
            for c in changes(old.get(key), new.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if old == new else [f"{path} {json.dumps(old)} -> {json.dumps(new)}"]


def summary(nodes: list[Node], estimator: Estimator, scale: str) -> str:
    """Counts by stage and the estimated total, as one line."""
    counts = Counter(node.spec.stage for node in nodes)
    listed = ", ".join(f"{counts[stage]} {stage}" for stage in STAGES if counts[stage]) or "nothing"
    total, unknown = estimator.total(nodes)
    unknown_text = f", {unknown} without an estimate" if unknown else ""
    return f"scale {scale}: {listed} to be made; about {describe(total)}{unknown_text}"


def describe(cost: Cost) -> str:
    """A total cost as text: time of all jobs in turn, memory of the largest, bytes stored."""
    memory = f"{volume(cost.on_host(True))} memory and {volume(cost.device)} activations at most"
    return f"{duration(cost.seconds)} one job at a time, {memory}, {volume(cost.bytes)} stored"
