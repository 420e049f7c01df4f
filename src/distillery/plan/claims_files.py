"""results/claims.csv and results/claims.md: what became of each claim of the papers."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from distillery.plan.claims import CLAIMS, CheckedClaim, Claim, check_claims
from distillery.store.atomic import text_writer, write_together
from distillery.table.verdict import SDS

STEM = "results/claims"
NOTES = (
    "Printed: what the paper's own cells give, and whether that is what it claims. Measured: the "
    "same expression over the tables that exist below results/, and whether the claim holds there.",
    "A bound is judged by the measured value. A number is judged within the tolerance of a "
    "table's verdict where all cells are comparable; elsewhere only the sign of a gain is, and an "
    "accuracy is not.",
    "sd: over draws (over students where there is one draw), as if the cells were independent; "
    f"+ where the value is more than {SDS:g} of them from "
    "the bound (from 0, where a sign was judged).",
    "claims.csv has the expression of each claim and says where each was measured.",
)


def write_claims(root: Path) -> list[Path]:
    """Write both files, whichever tables exist; returns their paths.

    Raises:
        PlanError: a claim is wrong.
        ArtefactError: a table cannot be read.
    """
    texts = _texts(root)
    write_together({path: text_writer(text) for path, text in texts.items()})
    return list(texts)


def claims_are_current(root: Path) -> bool:
    """Whether both files are there and say what the claims and tables of now give."""
    texts = _texts(root)
    return all(path.is_file() and path.read_bytes() == t.encode() for path, t in texts.items())


def _texts(root: Path) -> dict[Path, str]:
    found = check_claims(root)
    return {
        root / f"{STEM}.md": claims_markdown(found),
        root / f"{STEM}.csv": claims_csv(found),
    }


def claims_csv(found: Iterable[CheckedClaim]) -> str:
    """The checked claims as CSV: the columns of the claims file, then those of `CheckedClaim`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ours = [field.name for field in fields(CheckedClaim) if field.name != "claim"]
    writer.writerow([*(field.name for field in fields(Claim)), *ours])
    for one in found:
        values = [getattr(one, name) for name in ours]
        writer.writerow([*astuple(one.claim), *map(_text, values)])
    return text.getvalue()


def _text(value: float | str | None, digits: int = 4) -> str:
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:.{digits}f}".rstrip("0").rstrip(".")  # no -0
    return value or ""


def claims_markdown(found: Sequence[CheckedClaim]) -> str:
    """The checked claims to read: counts, and a table for each paper."""
    lines = [
        "# Claims of the papers",
        "",
        f"{len(found)} claims ({CLAIMS}).",
        "",
        f"- by the printed cells: {_counts(one.printed_verdict for one in found)}",
        f"- as measured: {_counts(one.measured_verdict for one in found)}",
    ]
    for paper in dict.fromkeys(one.claim.paper for one in found):
        lines += [
            "",
            f"## {paper}",
            "",
            "| id | claim | claimed | printed | | measured | sd | | where |",
            "| --- | --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
            *(_line(one) for one in found if one.claim.paper == paper),
        ]
    return "\n".join([*lines, "", *(f"- {note}" for note in NOTES)]) + "\n"


def _counts(verdicts: Iterable[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common())


def _line(one: CheckedClaim) -> str:
    claim = one.claim
    claimed = f"{claim.claimed} {claim.unit}".strip()
    sd = _text(one.measured_sd, 2) + (" +" if one.beyond_spread == "yes" else "")
    measured = _text(one.measured, 2)
    where = f"{one.scale}, draws {one.draws}, cells {one.cells_measured}" if measured else ""
    printed = _text(one.printed, 2)
    verdicts = one.printed_verdict, one.measured_verdict
    cells = (claim.id, claim.claim, claimed, printed, verdicts[0], measured, sd, verdicts[1], where)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
