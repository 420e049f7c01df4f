"""The papers' quantitative claims, checked: by their own printed cells, and by what is measured.

workflow/published/claims.csv has one line for each, with an expression over the cells that it rests
on (`table.expression`), which is evaluated once on the printed and once on the measured cells.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from distillery.errors import PlanError, nearest
from distillery.plan.claim_cells import CellOfClaim, MeasuredCells, MeasuredRow, PrintedCells
from distillery.plan.table_cells import PUBLISHED
from distillery.table.expression import ACCURACY, Expression, Number, evaluate, parse
from distillery.table.verdict import SDS, tolerance

CLAIMS = PUBLISHED / "claims.csv"
# What a claim rests on: cells of tables, arithmetic over stated numbers, a choice of the authors,
# a picture without numbers, or the text alone.
CELLS, ARITHMETIC, SETTING, FIGURE, TEXT = "cells", "arithmetic", "setting", "figure", "text"
RESTS_ON = (CELLS, ARITHMETIC, SETTING, FIGURE, TEXT)
AGREES, DISAGREES = "agrees", "disagrees"
HOLDS, FAILS = "holds", "does not hold"
HOLDS_IN_PART = "holds where measured"
NOT_MEASURED, NOT_COMPARABLE, NO_CELLS = "not measured", "not comparable", "rests on no cells"
_GAIN = "points"  # the unit of differences between accuracies

_CLAIMED = re.compile(r"([<>]?)(-?\d+(?:\.(\d+))?)")


@dataclass(frozen=True)
class Claim:
    """A claim, as its line in workflow/published/claims.csv says it.

    Attributes:
        id: of the claim.
        paper: key of the paper.
        section: where the paper makes it; "" for a conclusion of this project.
        kind: "result" that the paper reports, "setting" that it chose, or "derived" here.
        rests_on: one of `RESTS_ON`.
        claim: in words.
        claimed: a number as printed, or a bound: ">0".
        unit: of it.
        expression: what should give it; "" where there is nothing to compute.
        note: doubts, and how the expression reads the claim.
    """

    id: str
    paper: str
    section: str
    kind: str
    rests_on: str
    claim: str
    claimed: str
    unit: str
    expression: str
    note: str

    @property
    def bound(self) -> str:
        """The sign "<" or ">" of a bound; nothing for a number."""
        return self._parts()[0]

    @property
    def number(self) -> float:
        """The number claimed, or that of the bound."""
        return float(self._parts()[1])

    @property
    def decimals(self) -> int:
        """Decimals that the claim is printed with."""
        return len(self._parts()[2] or "")

    def _parts(self) -> tuple[str, str, str | None]:
        found = _CLAIMED.fullmatch(self.claimed)
        if not found:
            raise PlanError(f"{CLAIMS}: {self.id}: claimed '{self.claimed}': a number, or >0, <0")
        return found[1], found[2], found[3]

    def bounded(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value > self.number if self.bound == ">" else value < self.number


@dataclass(frozen=True)
class CheckedClaim:
    """A claim and what became of it.

    Attributes:
        claim: the claim.
        printed: what the paper's own cells give; None where there is nothing to compute.
        printed_verdict: `AGREES`, `DISAGREES`, or what it rests on where neither can be said.
        measured: what the measured cells give.
        measured_sd: its standard deviation, were the cells independent; None: unknown.
        measured_verdict: `HOLDS`, `HOLDS_IN_PART` where some cells are not measured, `FAILS`,
            `NOT_MEASURED`, `NOT_COMPARABLE` or `NO_CELLS`.
        judged_by: the bound, the value with its tolerance, or the sign of a gain.
        beyond_spread: whether it is more than `SDS` standard deviations from the bound, or from 0
            where the sign was judged.
        cells_measured: how many of the cells it rests on are measured: "3 of 6".
        scale: of the measured cells.
        draws: sets that were made for each: "3", or "1;3" where they differ.
        students: that were trained on each set.
        measured_at: data set, network and images per class that stand for the paper's.
    """

    claim: Claim
    printed: float | None = None
    printed_verdict: str = ""
    measured: float | None = None
    measured_sd: float | None = None
    measured_verdict: str = NO_CELLS
    judged_by: str = ""
    beyond_spread: str = ""
    cells_measured: str = ""
    scale: str = ""
    draws: str = ""
    students: str = ""
    measured_at: str = ""


def read_claims(root: Path) -> list[Claim]:
    """The claims of a project, in the order of their file.

    Raises:
        PlanError: the file cannot be read, or a line of it is wrong.
    """
    names = [field.name for field in fields(Claim)]
    try:
        with (root / CLAIMS).open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text, strict=True)
            lines, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise PlanError(f"{CLAIMS}: unreadable ({error}); restore it") from None
    if list(columns) != names:
        raise PlanError(f"{CLAIMS}: columns {', '.join(columns)}: expected {', '.join(names)}")
    for number, line in enumerate(lines, 2):
        if None in line or None in line.values():
            raise PlanError(f"{CLAIMS} line {number}: has not {len(names)} values; correct it")
    claims = [Claim(**line) for line in lines]
    for claim in claims:
        _check(claim)
    return claims


def _check(claim: Claim) -> None:
    where = f"{CLAIMS}: {claim.id}"
    claim._parts()
    if claim.rests_on not in RESTS_ON:
        raise PlanError(
            f"{where}: rests_on '{claim.rests_on}': {nearest(claim.rests_on, RESTS_ON)}"
        )
    cells = parse(claim.expression, f"{where}: expression").cells if claim.expression else []
    if bool(cells) != (claim.rests_on == CELLS):
        raise PlanError(
            f"{where}: rests_on {claim.rests_on}, its expression has {len(cells)} cells"
        )


def check_claims(root: Path) -> list[CheckedClaim]:
    """What became of each claim, by the tables that exist below results/.

    Raises:
        PlanError: a claim is wrong, or names a cell that does not exist.
        ArtefactError: a table cannot be read.
    """
    printed = PrintedCells(root)
    measured = MeasuredCells(printed)
    return [_checked(claim, printed, measured) for claim in read_claims(root)]


def _checked(claim: Claim, printed: PrintedCells, measured: MeasuredCells) -> CheckedClaim:
    if not claim.expression:
        return CheckedClaim(claim, printed_verdict=claim.rests_on)
    where = f"{CLAIMS}: {claim.id}: expression"
    expression = parse(claim.expression, where)
    try:
        number = evaluate(expression, printed.lookup)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None
    if number is None:
        raise PlanError(f"{where}: has no value on the printed cells; correct it")
    verdict = SETTING if claim.rests_on == SETTING else _printed_verdict(claim, number.value)
    if claim.rests_on != CELLS:
        return CheckedClaim(claim, number.value, verdict)
    return _measured(claim, expression, number, verdict, printed, measured)


def _printed_verdict(claim: Claim, value: float) -> str:
    """Whether the printed cells give what is claimed, to its decimals or within its bound."""
    exact = Decimal(repr(round(value, 9)))  # printed numbers are decimal fractions
    if claim.bound:
        return AGREES if claim.bounded(float(exact)) else DISAGREES
    unit = Decimal(1).scaleb(-claim.decimals)
    rounded = exact.quantize(unit, ROUND_HALF_UP)
    return AGREES if rounded == Decimal(claim.claimed) else DISAGREES


def _measured(
    claim: Claim,
    expression: Expression,
    of_paper: Number,
    printed_verdict: str,
    printed: PrintedCells,
    measured: MeasuredCells,
) -> CheckedClaim:
    cells = [cell for reference in expression.cells for cell in printed.cells(reference)]
    lines = [line for line in map(measured.row, cells) if line is not None]
    number = evaluate(expression, measured.lookup)
    found = CheckedClaim(
        claim,
        of_paper.value,
        printed_verdict,
        measured_verdict=NOT_MEASURED,
        cells_measured=f"{len(lines)} of {len(cells)}",
    )
    if number is None:
        return found
    comparable = all(line["comparable"] == "yes" for line in lines)
    verdict, judged_by, turns_on = _judged(claim, number, of_paper, comparable, cells)
    in_part = verdict == HOLDS and len(lines) < len(cells)
    return replace(
        found,
        measured=number.value,
        measured_sd=_sd(number),
        measured_verdict=HOLDS_IN_PART if in_part else verdict,
        judged_by=judged_by,
        beyond_spread=_beyond(number, turns_on),
        scale=_each(line["scale"] for line in lines),
        draws=_each(line["draws"] for line in lines),
        students=_each(line["students"] for line in lines),
        measured_at=_each(map(_place, lines)),
    )


def _beyond(number: Number, turns_on: float | None) -> str:
    """Whether a value is clear of the one that its verdict turns on; "" where nobody can tell."""
    sd = _sd(number)
    if turns_on is None or sd is None:
        return ""
    return "yes" if abs(number.value - turns_on) > SDS * sd else "no"


def _place(line: MeasuredRow) -> str:
    return " ".join(filter(None, (line["dataset"], line.get("student"), f"ipc {line['ipc']}")))


def _judged(
    claim: Claim,
    number: Number,
    of_paper: Number,
    comparable: bool,
    cells: list[CellOfClaim],
) -> tuple[str, str, float | None]:
    """The verdict on a measured value, by what it was judged, and the value that this turns on."""
    value = number.value
    if claim.bound:
        return _held(claim.bounded(value)), f"bound {claim.claimed}", claim.number
    if comparable:
        accuracy = any(cell.reference.quantity == ACCURACY for cell in cells)
        allowed = 0.5 * 10.0**-claim.decimals
        if accuracy:
            allowed = tolerance(_sd(number), _sd(of_paper))
        near = abs(value - claim.number) <= allowed + 1e-9  # both are decimal fractions
        return _held(near), f"value, tolerance {allowed:.2f}", None
    if claim.unit == _GAIN:
        return _held(value * claim.number > 0), "sign alone: another setting than printed", 0.0
    return NOT_COMPARABLE, "another setting than printed", None


def _held(holds: bool) -> str:
    return HOLDS if holds else FAILS


def _sd(number: Number) -> float | None:
    return None if number.variance is None else math.sqrt(number.variance)


def _each(values: Iterable[str]) -> str:
    return ";".join(dict.fromkeys(values))
