"""The picture stage: draw a figure from its finished table and the values of its analyses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from distillery.components import registry
from distillery.errors import PlanError
from distillery.figures.panel import Entry, Panel
from distillery.figures.style import rendered
from distillery.store.artefact import Artefact, content, open_artefact
from distillery.store.files import ANALYSIS_ARRAYS, ANALYSIS_VALUES
from distillery.table.document import TableDocument, read_document
from distillery.table.files import check_table
from distillery.table.identity import SIDECAR, picture_identity
from distillery.table.seal import write_sealed

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
    check_table(document, out_stem, store)
    table = pd.read_csv(f"{out_stem}.csv", keep_default_na=False, na_values=[""])
    analyses: dict[str, Artefact] = {}
    entries = list(_entries(document, table, store, analyses))
    module: FigureModule = registry.load("figure", document.figure)
    figure = module.draw(Panel(document.title, entries, document.printed))
    contents = {suffix: rendered(figure, suffix) for suffix in (".png", ".pdf")}
    contents[".values.csv"] = _values(entries).to_csv(index=False, lineterminator="\n").encode()
    read = {address: content(artefact.meta) for address, artefact in analyses.items()}
    write_sealed(out_stem, contents, SIDECAR, picture_identity(document, out_stem), read)


def _entries(
    document: TableDocument, table: pd.DataFrame, store: Path, analyses: dict[str, Artefact]
) -> Iterator[Entry]:
    """The measured cells, with what their analyses found, which are put into `analyses`.

    The arrays are those of the first draw and its first student.
    """
    for cell, record in zip(document.cells, table.to_dict("records"), strict=True):
        if cell.evaluations:
            found = {a: open_artefact(store / a) for a in cell.students if document.analysis}
            analyses |= found
            values, arrays = _analysed(cell.evaluations, found) if found else NOTHING
            yield Entry(
                row=cell.row,
                dataset=cell.place.dataset,
                ipc=cell.place.ipc,
                student=cell.place.student,
                value=record["measured"],
                std=_number(record["std"]),
                n=int(record["n"]),
                values=values,
                arrays=arrays,
                extra=cell.place.axes,
                over=_text(record["spread_over"]),
                ratio=_number(record["cr_paper"]),
            )


def _number(value: float) -> float | None:
    return None if pd.isna(value) else value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _analysed(
    draws: Sequence[Sequence[str]], analyses: Mapping[str, Artefact]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The rows of all analyses, and the arrays of the first one.

    The rows say whose they are in the columns `draw` and `student_of_draw`, both from 0.

    Args:
        draws: for each draw of the set the addresses of its analyses, one per student.
        analyses: by address.
    """
    frames = [
        pd.read_parquet(analyses[address].path / ANALYSIS_VALUES).assign(
            draw=draw, student_of_draw=student
        )
        for draw, addresses in enumerate(draws)
        for student, address in enumerate(addresses)
    ]
    arrays = analyses[draws[0][0]].path / ANALYSIS_ARRAYS
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
