"""What the numbers of a table mean, in sentences for its foot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from distillery.table.assemble import AssembledCell
from distillery.table.document import TableDocument
from distillery.table.findings import findings
from distillery.table.gains import LEVEL
from distillery.table.layout import EMPTY
from distillery.table.scores import SHARE
from distillery.table.stats import DRAWS, STUDENTS
from distillery.table.verdict import STATED, reasons

_CR = (
    "CR: INFER's accounting, images by number and labels by bytes. Stored: all bytes kept over the "
    "raw bytes of the training images. Labels made during training count in the former only."
)
_SCORES = (
    "HLR: accuracy of the student's network on the real data minus that on this set with hard "
    "labels, low is good. IOR: accuracy on this set minus that on as many random real images, "
    "treated alike, high is good. LRS and ARS, in 0 to 1, weigh HLR against IOR, and IOR with "
    f"augmentation against IOR without ({SHARE:g} each); 0.269 says: no gain and no loss. All of "
    "the last epoch, on one draw of random images; the accuracies are the columns acc_... of {0}."
)


def notes(document: TableDocument, cells: Sequence[AssembledCell], csv_name: str) -> list[str]:
    """The notes of a table whose tidy form is the file `csv_name`."""
    protocols = dict.fromkeys(cell.planned.protocol for cell in cells if cell.measured)
    named = ", ".join(protocols) or "none was run"
    last = "" if document.analysis else "last epoch, "
    best = f"measured_best in {csv_name} is the best epoch on the test set: a diagnostic, not a "
    best += "result."
    return [
        f"Measured: {document.quantity}, {last}mean ± standard deviation (ddof 1) over "
        f"{_spread_over(cells)}; {csv_name} has the 95 % t-interval of the mean, ±ci95. "
        f"Evaluation protocols: {named}.",
        *_tests(cells),
        *findings(document, cells),
        *([best] if last else []),
        *([_CR] if document.compression_ratio else []),
        "Printed numbers are the paper's, in its own setting; a difference is drawn only where the "
        f"measured setting is that one. {EMPTY}: not measured, or not printed.",
        *([STATED] if any(cell.planned.published for cell in cells) else []),
        *(f"({number}) {reason}." for reason, number in reasons(cells).items()),
        *_elsewhere(cells),
        *_without_gain(document, cells),
        *([_SCORES.format(csv_name)] if document.scores else []),
        *_mixed_versions(cells),
        "The artefacts behind each number: columns ids, distilled_id, label_id and data_id of "
        f"{csv_name}.",
    ]


def _spread_over(cells: Sequence[AssembledCell]) -> str:
    over = {cell.measured.over for cell in cells if cell.measured}
    draws = (
        "draws of the distilled set, each made with random numbers of its own and counted once, "
        "with the mean of its students"
    )
    students = (
        "students of one distilled set: it says nothing of how much another draw of the set "
        "would differ"
    )
    if over == {DRAWS, STUDENTS}:
        return f"{draws}; where there is one draw, over {students}"
    return draws if over == {DRAWS} else students


def _tests(cells: Sequence[AssembledCell]) -> list[str]:
    """How the gains were tested, or why they were not."""
    gains = [cell.gain for cell in cells if cell.gain]
    if not gains:
        return []
    tested = [gain for gain in gains if gain.q is not None]
    if not tested:
        return [
            "Gains have no star: a test needs several draws of the sets that vary (`draws` in "
            "params.yaml)."
        ]
    kinds = " and ".join(dict.fromkeys(str(gain.test) for gain in tested))
    return [
        f"*: q < {LEVEL:g}. {len(tested)} of {len(gains)} gains were tested over draws ({kinds}); "
        "q is p corrected for that number (Benjamini and Hochberg). Rows of one draw share what "
        "is drawn for the same purpose: natural images, initial pixels, weights, batches."
    ]


def _mixed_versions(cells: Sequence[AssembledCell]) -> list[str]:
    """A note where the cells were not all made with the same versions of the libraries."""
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        for library, versions in cell.versions.items():
            counts.setdefault(library, Counter()).update(versions)
    mixed = [
        f"{library} " + ", ".join(f"{version} ({n})" for version, n in sorted(found.items()))
        for library, found in sorted(counts.items())
        if len(found) > 1
    ]
    if not mixed:
        return []
    return [f"Versions of libraries differ between cells (cells in brackets): {'; '.join(mixed)}."]


def _elsewhere(cells: Sequence[AssembledCell]) -> list[str]:
    """Rows whose gain is not from the row beside them, but from it at another place."""
    found = {
        (cell.planned.row, gain.against): cell.planned.against_at
        for cell in cells
        if (gain := cell.gain) and cell.planned.against_at
    }
    return [
        f"Gains of {row} are over {against} at "
        f"{', '.join(f'{axis} {value}' for axis, value in places.items())}, wherever {row} stands."
        for (row, against), places in found.items()
    ]


def _without_gain(document: TableDocument, cells: Sequence[AssembledCell]) -> list[str]:
    """Rows that were measured where the row that they are compared with was not."""
    axes = [document.shape.panel, *document.shape.columns]
    measured: dict[tuple[str, str], int] = {}
    lacking: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        planned = cell.planned
        if planned.against is None or cell.measured is None:
            continue
        rows = planned.row, planned.against
        measured[rows] = measured.get(rows, 0) + 1
        if cell.gain is None:
            place = (f"{axis} {planned.place.at(axis)}" for axis in axes)
            lacking.setdefault(rows, []).append(", ".join(place))
    return [
        f"No gain of {row} over {against}"
        + (f" at {'; '.join(places)}" if len(places) < measured[row, against] else "")
        + f": {against} is not measured there."
        for (row, against), places in lacking.items()
    ]
