"""The reports of a folder as Markdown tables, for docs/results/benchmarks.md.

python benchmarks/gpu/page.py DIR
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def page(report: Path) -> str:
    """The tables of `report`, those parts that are there."""
    machine = json.loads((report / "machine.json").read_text())
    libraries = f"torch {machine['versions']['torch']}, Python {machine['python']}"
    lines = [f"{machine['device']}, {libraries}, TF32 off.", ""]
    lines += [*_check(_lines(report / "check.jsonl")), *_measure(_lines(report / "measure.jsonl"))]
    return "\n".join([*lines, *_cells(report / "printed.csv")])


def _lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _check(rows: Sequence[Row]) -> Iterator[str]:
    """The largest differences of each kind of job, and all that are not well."""
    if not rows:
        return
    well = [row for row in rows if row.get("ok")]
    yield f"The device against the CPU: {len(well)} of {len(rows)} results agree."
    yield from ("", *_table(["job", "results", "largest relative error", "rounding alone"]))
    for kind in dict.fromkeys(row["what"] for row in well):
        of_kind = [row for row in well if row["what"] == kind]
        worst = max(of_kind, key=lambda row: row["relative_error"])
        name, errors = worst["step"], (worst["relative_error"], worst["rounding_alone"])
        yield _row(f"{kind} ({name})", len(of_kind), *(_number(error) for error in errors))
    yield ""
    for row in rows:
        if not row.get("ok"):
            said = row.get("error") or f"relative error {_number(row['relative_error'])}"
            yield f"- not well: {row['step']}: {said}"
    yield ""


def _measure(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield from _table(["unit", "what", "side", "s", "ratio", "peak on the device (MiB)"])
    for row in rows:
        if row.get("error"):
            yield _row(row.get("unit", ""), row.get("what", row["step"]), row["error"], "", "", "")
        else:
            numbers = (_number(row[key]) for key in ("seconds", "ratio", "peak_device_mib"))
            yield _row(row["unit"], row["what"], row["side"], *numbers)
    yield ""


def _cells(file: Path) -> Iterator[str]:
    if not file.is_file():
        return
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    yield from _table(
        ["table", "row", "ipc", "student", "meta-step", "printed", "measured", "steps", "protocol"]
    )
    for row in rows:
        printed = f"{row['printed']} ± {row['printed_std']}" if row.get("printed") else ""
        first = (row[key] for key in ("table", "row", "ipc", "student"))
        measured = f"{float(row['measured']):.1f}"
        rest = (printed, measured, row.get("steps") or "", row["protocol"])
        yield _row(*first, row.get("meta_step") or "", *rest)


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3g}"


def _table(columns: Sequence[str]) -> Iterator[str]:
    yield _row(*columns)
    yield _row(*("---" for _ in columns))


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    print(page(Path(sys.argv[1]) / "report"))
