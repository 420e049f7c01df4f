"""The page of benchmarks holds what the result files say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import page

    yield page
    for name in ("page", "compare"):
        sys.modules.pop(name, None)


def test_the_page_is_up_to_date(page):
    text = page.PAGE.read_text()
    assert "<!-- benchmark-unroll -->" in text and page.filled(text) == text


def test_a_table_is_replaced_by_that_of_its_file(page, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    (tmp_path / "benchmark-one.csv").write_text(
        "variant,unit,value,memory_mib,settings\na,s,2,100,width 4\nb,s,1.5,25,width 4\n"
    )
    found = page.filled("x\n<!-- benchmark-one -->\nold\n<!-- end -->\ny\n")
    lines = [line for line in found.splitlines() if line]
    assert lines == [
        "x",
        "<!-- benchmark-one -->",
        "| | s | ratio | peak memory (MiB) | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| a | 2 | 1.00 | 100 | 1.00 |",
        "| b | 1.5 | 0.75 | 25 | 0.25 |",
        "width 4, one thread; medians.",
        "<!-- end -->",
        "y",
    ]
