"""The files of a table: the plan it is read off by, and the five that are written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from distillery.errors import ArtefactError, PlanError
from distillery.store.canonical import digest
from distillery.table.layout import layout, metrics, notes
from distillery.table.render import csv_text, latex, markdown


def read_plan(plan_file: Path) -> dict[str, Any]:
    """The plan document of a file. Raises PlanError when it cannot be read."""
    try:
        return json.loads(Path(plan_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{plan_file}: not a readable plan ({error}); write it again with `distillery plan --write`"
        ) from None


def check_table(plan: Mapping[str, Any], out_stem: Path) -> None:
    """Raise ArtefactError unless the table beside `out_stem` is there, untouched, and of this very plan."""
    table, advice = (
        Path(f"{out_stem}.csv"),
        f"`distillery table {plan['table']}` makes it from finished cells",
    )
    try:
        sidecar = json.loads(Path(f"{out_stem}.json").read_text(encoding="utf-8"))
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except (OSError, ValueError):
        raise ArtefactError(f"{table}: not made yet; {advice}") from None
    if sidecar.get("plan") != digest(plan, 64) or sidecar.get("csv_sha256") != found:
        raise ArtefactError(f"{table}: made from another plan, or edited since; {advice}")


def write(frame: pd.DataFrame, plan: Mapping[str, Any], out_stem: Path) -> None:
    """Write .csv, .md, .tex, .metrics.json and, last, .json beside `out_stem` (a path without suffix): same plan, same bytes.

    The last one names the plan (SHA-256 of its canonical JSON), the CSV's SHA-256 and the cells, all evaluations in the plan's
    order: a table is stale when these are not the present ones. Each file is written aside and renamed.
    """
    panels, foot = layout(frame, plan), notes(frame, plan, f"{out_stem.name}.csv")
    table = csv_text(frame, plan["digits"])
    sidecar = {
        "table": plan["table"],
        "scale": plan["scale"],
        "plan": digest(plan, 64),
        "csv_sha256": hashlib.sha256(table.encode()).hexdigest(),
        "cells": list(
            dict.fromkeys(
                address for position in plan["positions"] for address in position["evaluations"]
            )
        ),
    }
    out_stem.parent.mkdir(parents=True, exist_ok=True)
    _replace(Path(f"{out_stem}.csv"), table)
    _replace(Path(f"{out_stem}.md"), markdown(plan["title"], panels, foot))
    _replace(Path(f"{out_stem}.tex"), latex(plan["title"], panels, foot))
    _replace(Path(f"{out_stem}.metrics.json"), _json(metrics(frame, plan)))
    _replace(Path(f"{out_stem}.json"), _json(sidecar))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8", newline="")
    os.replace(aside, path)
