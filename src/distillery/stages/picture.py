"""The picture stage: draw a figure from its finished table and the values of its analyses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from distillery.components import registry
from distillery.errors import PlanError
from distillery.figures.panel import Entry, Panel
from distillery.figures.style import save
from distillery.store.artefact import open_artefact
from distillery.store.atomic import Write, text_writer, write_together
from distillery.store.files import ANALYSIS_ARRAYS, ANALYSIS_VALUES
from distillery.table.document import DocumentCell, TableDocument, read_document
from distillery.table.files import check_table
from distillery.table.identity import picture_identity

if TYPE_CHECKING:
    from distillery.components.contracts import FigureModule

PLACE = ("row", "dataset", "ipc", "student")
NOTHING: tuple[pd.DataFrame, dict[str, np.ndarray]] = (pd.DataFrame(), {})  # of no analysis


def make_picture(plan_file: Path, store: Path, out_stem: Path) -> None:
    """Write .png, .pdf and .values.csv, then .picture.json, which says what they were drawn from.

    Args:
        plan_file: the plan document of a table that names a figure.
        store: folder of the artefacts of its cells.
        out_stem: path of the table's files, and of the picture's, without their suffixes.

    Raises:
        ArtefactError: the table or an artefact is missing, corrupt or another plan's.
        PlanError: the table names no figure, or one that does not exist.
    """
    document = read_document(plan_file)
    if document.figure is None:
        raise PlanError(f"table '{document.table}' has no figure: nothing to draw")
    check_table(document, out_stem)
    table = pd.read_csv(f"{out_stem}.csv", keep_default_na=False, na_values=[""])
    entries = list(_entries(document, table, store))
    panel = Panel(document.title, entries, document.printed)
    module: FigureModule = registry.load("figure", document.figure)
    figure = module.draw(panel)
    values, identity = _values(entries), picture_identity(document)
    sidecar = json.dumps(identity, indent=1, sort_keys=True) + "\n"
    writers: dict[str, Write] = {
        "png": lambda path: save(figure, path),
        "pdf": lambda path: save(figure, path),
        "values.csv": lambda path: values.to_csv(path, index=False, lineterminator="\n"),
        "picture.json": text_writer(sidecar),
    }
    write_together({Path(f"{out_stem}.{suffix}"): write for suffix, write in writers.items()})


def _entries(document: TableDocument, table: pd.DataFrame, store: Path) -> Iterator[Entry]:
    """The measured cells, with what their analyses found; the arrays are the first repeat's."""
    for cell, record in zip(document.cells, table.to_dict("records"), strict=True):
        if cell.evaluations:
            values, arrays = _analysed(cell, store) if document.analysis else NOTHING
            yield Entry(
                row=cell.row,
                dataset=cell.place.dataset,
                ipc=cell.place.ipc,
                student=cell.place.student,
                value=record["measured"],
                std=None if pd.isna(record["std"]) else record["std"],
                n=int(record["n"]),
                values=values,
                arrays=arrays,
                extra=cell.place.axes,
            )


def _analysed(cell: DocumentCell, store: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The rows of all repeats, numbered in a column `repeat`, and the arrays of the first one."""
    folders = [open_artefact(store / address).path for address in cell.evaluations]
    frames = [
        pd.read_parquet(folder / ANALYSIS_VALUES).assign(repeat=repeat)
        for repeat, folder in enumerate(folders)
    ]
    arrays = folders[0] / ANALYSIS_ARRAYS
    return pd.concat(frames, ignore_index=True), load_file(arrays) if arrays.is_file() else {}


def _values(entries: list[Entry]) -> pd.DataFrame:
    """The data behind the picture, tidy: a row per value, or per number where none was analysed."""
    frames = []
    for entry in entries:
        number = pd.DataFrame({"value": [entry.value], "std": [entry.std], "n": [entry.n]})
        values = number if entry.values.empty else entry.values
        place = {key: getattr(entry, key) for key in PLACE} | entry.extra
        frames.append(values.assign(**place))
    table, first = pd.concat(frames, ignore_index=True), (*PLACE, *entries[0].extra)
    return table[[*first, *(column for column in table.columns if column not in first)]]
