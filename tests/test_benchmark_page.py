"""The page of benchmarks holds what the result files say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules that keep results and fill the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("page", "records"):  # other folders have modules of these names
        monkeypatch.delitem(sys.modules, name, raising=False)
    import page
    import records

    return page, records


def test_the_page_is_up_to_date_and_leaves_no_result_out(benchmarks):
    page, records = benchmarks
    text = page.PAGE.read_text()
    assert page.filled(text) == text
    files = {path.stem for path in records.RESULTS.glob("benchmark-*.json")}
    assert {found[2] for found in page.TABLE.finditer(text)} == files


def test_what_is_kept_replaces_the_table_of_its_name(benchmarks, tmp_path, monkeypatch):
    for module in benchmarks:
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    page, records = benchmarks
    columns = {"way": "", "seconds": "s|.1f", "ratio": "ratio|.2f"}
    rows = [{"way": "é", "seconds": 2, "ratio": 1}, {"way": "b", "seconds": 1.55, "ratio": 0.775}]
    records.keep("one", "`x`: width 4.", columns, rows)
    found = page.filled("x\n<!-- benchmark-one -->\nold\n<!-- end -->\ny\n")
    assert [line for line in found.splitlines() if line] == [
        "x",
        "<!-- benchmark-one -->",
        "|  | s | ratio |",
        "| --- | ---: | ---: |",
        "| é | 2.0 | 1.00 |",
        "| b | 1.6 | 0.78 |",
        "`x`: width 4.",
        "<!-- end -->",
        "y",
    ]
