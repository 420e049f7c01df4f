"""The tidy table: one row per cell, published and measured numbers in columns of their own.

Accuracies and ratios are in percent, sizes in bytes, scores are fractions; nothing is empty text.
The columns are those of `COLUMNS`; the table's own axes stand behind "student"; `GAIN_COLUMNS`
follow where a row is compared with another, and the scores with the accuracies that they compare
where the table has them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillery.table.assemble import AssembledCell
from distillery.table.document import TableDocument
from distillery.table.scores import ACCURACIES, SCORES
from distillery.table.verdict import verdict

PLACE_COLUMNS = (
    *("paper", "table", "row", "method", "variant", "labels", "protocol", "scale"),
    *("dataset", "ipc", "student"),
)
PUBLISHED_COLUMNS = (
    *("published", "published_std", "published_table"),
    *("published_dataset", "published_student", "published_ipc", "comparable"),
)
MEASURED_COLUMNS = (
    *("measured", "std", "n", "spread_over", "draws", "students", "ci95"),
    *("measured_best", "difference", "verdict"),
)
EFFORT_COLUMNS = ("steps", "instances", "epochs", "rise")
STORED_COLUMNS = (
    *("cr_published", "cr_paper", "cr_stored"),
    *("bytes", "bytes_by_part", "pixels", "label_floats"),
)
ADDRESS_COLUMNS = ("ids", "distilled_id", "label_id", "data_id")
COLUMNS = (
    *PLACE_COLUMNS,
    *PUBLISHED_COLUMNS,
    *MEASURED_COLUMNS,
    *EFFORT_COLUMNS,
    *STORED_COLUMNS,
    *ADDRESS_COLUMNS,
)
GAIN_COLUMNS = ("against", "gain", "gain_test", "gain_p", "gain_q", "gain_published")

_AS_PRINTED = "{!r}".format  # a printed number keeps its printed digits
_TWO = "{:.2f}".format
_WITH_DIGITS = ("measured", "std", "ci95", "gain")
_FORMATS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("ipc", "published_ipc"), "{:g}".format),
    **dict.fromkeys(
        ("published", "published_std", "gain_published"), lambda x: _AS_PRINTED(float(x))
    ),
    **dict.fromkeys(("measured_best", "rise", "cr_published", "cr_paper", "cr_stored"), _TWO),
    **dict.fromkeys(("gain_p", "gain_q", *ACCURACIES, *SCORES), "{:.4f}".format),
    "difference": lambda x: _TWO(round(x, 2) + 0.0),  # no -0.00
}


def columns(document: TableDocument) -> list[str]:
    """The columns of a table, in order."""
    compared = any(cell.against for cell in document.cells)
    return [
        *PLACE_COLUMNS,
        *document.axes,
        *COLUMNS[len(PLACE_COLUMNS) :],
        *(GAIN_COLUMNS if compared else ()),
        *((*ACCURACIES, *SCORES) if document.scores else ()),
    ]


def csv_text(document: TableDocument, cells: Sequence[AssembledCell]) -> str:
    """The tidy table as CSV.

    Measured numbers have three decimals more than a cell of the table, ratios two, printed ones
    as many as are printed.
    """
    measured = f"{{:.{document.digits + 3}f}}".format
    formats = _FORMATS | dict.fromkeys(_WITH_DIGITS, measured)
    names, lines = columns(document), io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(names)
    for cell in cells:
        values = _values(document, cell)
        writer.writerow([_text(formats.get(name, str), values.get(name)) for name in names])
    return lines.getvalue()


def _text(format_value: Callable[[Any], str], value: object) -> str:
    return "" if value is None else format_value(value)


def _values(document: TableDocument, assembled: AssembledCell) -> Mapping[str, object]:
    """The values of a row by column; what is not there is nothing."""
    cell = assembled.planned
    place = {
        "paper": document.paper,
        "table": document.table.rpartition("/")[2],
        "row": cell.row,
        "method": cell.method,
        "variant": cell.variant,
        "labels": cell.labels,
        "protocol": cell.protocol,
        "scale": document.scale,
        "dataset": cell.place.dataset,
        "ipc": cell.place.ipc,
        "student": cell.place.student,
    }
    return (
        {**cell.place.axes, **place}
        | _published(assembled)
        | _measured(assembled)
        | _effort(assembled)
        | _stored(assembled)
        | _gain(assembled)
        | dict(assembled.scores)
    )


def _published(assembled: AssembledCell) -> dict[str, object]:
    printed, place = assembled.planned.published, assembled.planned.printed_place
    if printed is None:
        return {"comparable": "no"}
    return {
        "published": printed.mean,
        "published_std": printed.std,
        "published_table": printed.table,
        "published_dataset": place and place.dataset,
        "published_student": place and place.student,
        "published_ipc": place and place.ipc,
        "comparable": "yes" if assembled.comparable else "no",
        "cr_published": printed.compression_ratio,
    }


def _measured(assembled: AssembledCell) -> dict[str, object]:
    cell, measured = assembled.planned, assembled.measured
    if measured is None:
        return {}
    return {
        "measured": measured.mean,
        "std": measured.std,
        "n": measured.n,
        "spread_over": measured.over,
        "draws": measured.draws,
        "students": measured.students,
        "ci95": measured.ci95,
        "measured_best": assembled.measured_best,
        "difference": assembled.difference,
        "verdict": verdict(assembled),
        "ids": _ids(cell.students),
        "distilled_id": _ids(cell.distilled),
        "label_id": _ids(cell.label),
        "data_id": _ids([cell.data] if cell.data else []),
    }


def _effort(assembled: AssembledCell) -> dict[str, object]:
    """What each student took: one number where all took the same."""
    efforts = assembled.efforts
    if not efforts:
        return {}
    counts = {
        name: ";".join(dict.fromkeys(str(getattr(effort, name)) for effort in efforts))
        for name in ("steps", "instances", "epochs")
    }
    return {**counts, "rise": assembled.rise}


def _stored(assembled: AssembledCell) -> dict[str, object]:
    stored = assembled.stored
    if stored is None:
        return {}
    return {
        "cr_paper": stored.cr_paper,
        "cr_stored": stored.cr_stored,
        "bytes": stored.bytes,
        "bytes_by_part": by_part(stored.bytes_by_part),
        "pixels": stored.pixels,
        "label_floats": stored.label_floats,
    }


def _gain(assembled: AssembledCell) -> dict[str, object]:
    gain, printed = assembled.gain, assembled.planned.published
    of_paper: dict[str, object] = {"gain_published": printed and printed.gain}
    if gain is None:
        return of_paper
    return of_paper | {
        "against": gain.against,
        "gain": gain.difference,
        "gain_test": gain.test,
        "gain_p": gain.p,
        "gain_q": gain.q,
    }


def by_part(sizes: Mapping[str, int]) -> str:
    """Bytes by part as text: "images=4480;labels=1400"."""
    return ";".join(f"{part}={size}" for part, size in sizes.items())


def _ids(addresses: Sequence[str]) -> str:
    return ";".join(address.partition("/")[2] for address in addresses)
