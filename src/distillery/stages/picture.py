"""Draw a figure from its finished table and the values of its analyses, and keep the data beside the picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.numpy import load_file

from distillery.components import registry
from distillery.figures.panel import Entry, Panel
from distillery.figures.style import save
from distillery.store.artefact import open_artefact
from distillery.store.files import ANALYSIS_ARRAYS, ANALYSIS_VALUES
from distillery.table.files import check_table, read_plan
from distillery.table.identity import picture_identity

KEYS = ("row", "dataset", "ipc", "student")


def make_picture(plan_file: Path, store: Path, out_stem: Path) -> None:
    """Write .png, .pdf and .values.csv beside `out_stem`, then .picture.json, which says what they were drawn from.

    plan_file: the plan of a table that names a figure; the table lies beside `out_stem`, the artefacts of its cells in `store`.
    Raises ArtefactError when either is missing, corrupt or another plan's, PlanError when there is no such figure component.
    """
    plan = read_plan(plan_file)
    check_table(plan, out_stem)
    frame = pd.read_csv(f"{out_stem}.csv", keep_default_na=False, na_values=[""])
    entries = list(_entries(plan, frame, store))
    figure = registry.load("figure", plan["figure"]).draw(Panel(plan["title"], entries))
    for kind in ("png", "pdf"):
        _write(out_stem, kind, lambda path: save(figure, path))
    _write(
        out_stem,
        "values.csv",
        lambda path: _values(entries).to_csv(path, index=False, lineterminator="\n"),
    )
    sidecar = json.dumps(picture_identity(plan), indent=1, sort_keys=True) + "\n"
    _write(out_stem, "picture.json", lambda path: path.write_text(sidecar, encoding="utf-8"))


def _entries(plan: Mapping[str, Any], frame: pd.DataFrame, store: Path) -> Iterator[Entry]:
    """The measured positions, with what their analyses found; the arrays are the first repeat's."""
    for position, record in zip(plan["positions"], frame.to_dict("records"), strict=True):
        if position["evaluations"]:
            place = {key: position[key] for key in KEYS}
            number = {
                "value": record["measured"],
                "std": _optional(record["std"]),
                "n": int(record["n"]),
            }
            yield Entry(
                **place,
                **number,
                **_found(plan, position, store),
                extra={a: position[a] for a in plan["axes"]},
            )


def _found(plan: Mapping[str, Any], position: Mapping[str, Any], store: Path) -> dict[str, Any]:
    if not plan["analysis"]:
        return {"values": None, "arrays": {}}
    folders = [open_artefact(store / address).path for address in position["evaluations"]]
    frames = [
        pd.read_parquet(folder / ANALYSIS_VALUES).assign(repeat=i)
        for i, folder in enumerate(folders)
    ]
    arrays = folders[0] / ANALYSIS_ARRAYS
    return {
        "values": pd.concat(frames, ignore_index=True),
        "arrays": load_file(arrays) if arrays.is_file() else {},
    }


def _values(entries: list[Entry]) -> pd.DataFrame:
    """The data behind the picture, tidy: a row per value, or per accuracy where nothing was analysed."""
    frames = []
    for entry in entries:
        number = pd.DataFrame({"value": [entry.value], "std": [entry.std], "n": [entry.n]})
        found = number if entry.values is None else entry.values
        frames.append(found.assign(**{key: getattr(entry, key) for key in KEYS}, **entry.extra))
    table, first = pd.concat(frames, ignore_index=True), (*KEYS, *entries[0].extra)
    return table[[*first, *(column for column in table.columns if column not in first)]]


def _optional(number: float) -> float | None:
    return None if pd.isna(number) else number


def _write(out_stem: Path, suffix: str, write: Any) -> None:
    path = Path(f"{out_stem}.{suffix}")
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    write(aside)
    os.replace(aside, path)
