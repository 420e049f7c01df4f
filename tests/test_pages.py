"""Pages of results are what the result files beside them say."""

import runpy

import pytest

from helpers.project import ROOT

PAGES = runpy.run_path(str(ROOT / "workflow/scripts/pages.py"))
filled = PAGES["filled"]
COLUMNS = (
    "row,dataset,measured,std,ci95,draws,students,against,gain,gain_p,gain_q,steps,rise,published\n"
)


@pytest.mark.parametrize("page", sorted(PAGES["RESULTS"].glob("*.md")), ids=lambda page: page.stem)
def test_a_page_agrees_with_its_files(page):
    text = page.read_text()
    assert filled(text, page.parent) == text, "run `python workflow/scripts/pages.py`"


def test_a_table_by_hand(tmp_path):
    (tmp_path / "a.csv").write_text(
        COLUMNS
        + "Random,one,40.0,1.0,2.5,3,2,,,,,150,0.5,31.0\n"
        + "INFER,one,45.0,2.0,5.0,3,2,Random,5.0,0.0100,0.0200,150,3.1,34.0\n"
        + "INFER,two,99.0,,,1,1,,,,,150,,\n"
        + "DC,one,,,,,,,,,,,,44.0\n"
    )
    page = "before\n<!-- table: a.csv dataset=one -->\nold\n<!-- end -->\nafter\n"
    assert filled(page, tmp_path) == (
        "before\n<!-- table: a.csv dataset=one -->\n\n"
        + PAGES["HEAD"]
        + "| Random | 40.0 ± 1.0 (±2.5) | 3 x 2 |  | 150 | 0.5 |\n"
        + "| INFER | 45.0 ± 2.0 (±5.0) | 3 x 2 | +5.0* over Random (p 0.0100, q 0.0200) | 150 | "
        + "3.1 |\n"
        + "\n<!-- end -->\nafter\n"
    )


def test_a_place_that_was_not_measured_is_said(tmp_path):
    (tmp_path / "a.csv").write_text(COLUMNS + "DC,one,,,,,,,,,,,,44.0\n")
    with pytest.raises(SystemExit, match=r"a\.csv dataset=one: nothing measured there"):
        filled("<!-- table: a.csv dataset=one -->\n<!-- end -->\n", tmp_path)
