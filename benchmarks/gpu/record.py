"""Steps of the benchmark, and what is known of those that are done: a file each, and the reports.

OUT/steps/PART/STEP.json    a finished step: its rows, seconds, or the error it ended with
OUT/steps/PART/tries.json   how often an unfinished step was begun
OUT/report/PART.jsonl       the rows of a part, a line each; PART.csv the same as a table
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.store.atomic import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: within its part; no two are equal.
        run: does the work; returns rows of one report.
        resumes: whether a step that was cut off goes on where it was; others start again.
    """

    name: str
    run: Callable[[], list[Row]]
    resumes: bool = False


@dataclass(frozen=True)
class Records:
    """The finished steps of a part in the folder `out`."""

    out: Path
    part: str

    def file(self, step: str) -> Path:
        return self.out / "steps" / self.part / f"{re.sub('[^A-Za-z0-9._-]+', '-', step)}.json"

    def done(self, step: str) -> bool:
        return self.file(step).is_file()

    def write(self, step: str, seconds: float, rows: Sequence[Row], error: str = "") -> None:
        """Record a finished step: all of it, or, killed in between, nothing."""
        known = {"step": step, "seconds": round(seconds, 2), "rows": rows, "error": error}
        write_text(self.file(step), json.dumps(known, indent=1) + "\n")

    def read(self) -> list[Row]:
        """The records in the order in which the steps were finished."""
        files = sorted((self.out / "steps" / self.part).glob("*.json"), key=_written)
        return [json.loads(file.read_text()) for file in files if file.name != "tries.json"]

    @property
    def tries(self) -> dict[str, int]:
        """How often each step was begun."""
        file = self.out / "steps" / self.part / "tries.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def begin(self, step: str) -> None:
        """Note that a step begins, for the case that its process ends before it does."""
        begun = self.tries
        begun[step] = begun.get(step, 0) + 1
        write_text(self.out / "steps" / self.part / "tries.json", json.dumps(begun))

    def retry_failed(self) -> None:
        """Forget the steps that ended with an error, and how often others were begun."""
        for record in self.read():
            if record["error"]:
                self.file(record["step"]).unlink()
        write_text(self.out / "steps" / self.part / "tries.json", "{}")

    def rows(self) -> list[Row]:
        """The rows of all steps, each with its step; a failed step is a row with its error."""
        found = []
        for record in self.read():
            step = {"step": record["step"], "step_seconds": record["seconds"]}
            found += [step | row for row in record["rows"]]
            if record["error"]:
                found.append(step | {"error": record["error"]})
        return found

    def report(self) -> None:
        """Write the rows anew, as JSON lines and as a CSV file with all their columns."""
        rows, folder = self.rows(), self.out / "report"
        write_text(folder / f"{self.part}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write_text(folder / f"{self.part}.csv", table(rows))


def _written(file: Path) -> tuple[int, str]:
    return file.stat().st_mtime_ns, file.name


def table(rows: Iterable[Row]) -> str:
    """Rows as CSV; a column for each key, in the order in which they come up."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether `part/step` matches one of the patterns, or there are none."""
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def may_match(part: str, patterns: Sequence[str]) -> bool:
    """Whether a step of the part may match one of the patterns, by what is before their slash."""
    return chosen(part, [pattern.partition("/")[0] for pattern in patterns])
