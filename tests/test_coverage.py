"""Every printed cell is comparable, measurable or printed only, and the committed page says so."""

import csv
from collections import Counter

import pytest

from distillery.plan.coverage import (
    CLASSES,
    COMPARABLE,
    MEASURABLE,
    PRINTED,
    coverage,
    coverage_csv,
    summary,
)
from helpers.project import ROOT

PAGE = ROOT / "docs/results/coverage"
AGAIN = "run `python workflow/scripts/coverage.py`"


@pytest.fixture(scope="module")
def cells():
    return coverage(ROOT)


def printed_lines():
    """Counted without the project's own reader."""
    for file in sorted((ROOT / "workflow/published").glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.DictReader(lines), 2):
                if row.get("mean"):
                    yield f"{file.name}:{number}"


def test_each_printed_cell_has_one_class(cells):
    lines = list(printed_lines())
    assert len(lines) == 769
    assert sorted(cell.line for cell in cells) == sorted(lines)
    counts = Counter(cell.kind for cell in cells)
    assert sum(counts[kind] for kind in CLASSES) == 769
    assert counts == {COMPARABLE: 667, MEASURABLE: 8, PRINTED: 94}


def test_a_reason_stands_wherever_a_cell_is_not_comparable(cells):
    assert all(bool(cell.reason) == (cell.kind != COMPARABLE) for cell in cells)


def test_the_page_is_of_this_plan(cells):
    assert PAGE.with_suffix(".csv").read_text() == coverage_csv(cells), AGAIN
    assert PAGE.with_suffix(".md").read_text().endswith(summary(cells)), AGAIN
