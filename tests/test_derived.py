"""What tables derive from their numbers: gains from another place, relative drops, averages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distillery.errors import PlanError
from distillery.plan.table_files import check_table, read_table
from distillery.table.assemble import AssembledCell, assemble
from distillery.table.document import DocumentCell, TableDocument
from distillery.table.layout import TextGrid, layout
from distillery.table.notes import notes
from helpers.project import ROOT
from helpers.tables import cell, document, evaluation, printed, put

ACCURACY = {("ours", 1.0): 50.0, ("ours", 0.3): 40.0, ("images", 1.0): 45.0}
PRINTED = {("ours", 1.0): 60.0, ("ours", 0.3): 42.0}


def poster_table(store: Path, dataset: str = "digits", shift: float = 0.0) -> list[DocumentCell]:
    """Posters at two sizes beside images at one, whose accuracy lies in `store`."""
    cells = []
    for (row, ipc), accuracy in ACCURACY.items():
        address = f"evaluate/{dataset}-{row}-{ipc}"
        put(store, address, evaluation(accuracy + shift, accuracy + shift))
        number = PRINTED.get((row, ipc))
        beside = {"against": "images", "against_at": {"ipc": 1.0}} if row == "ours" else {}
        published = {"published": printed(number, 0.5, 0.1), "comparable": True} if number else {}
        place = {"dataset": dataset, "ipc": ipc, "evaluations": ((address,),)}
        cells.append(cell(row, "podd", "static", **place, **beside, **published))
    return cells


def grid_of(cells: list[AssembledCell], plan: TableDocument, panel: str, title: str) -> TextGrid:
    (found,) = (grid for grid in layout(plan, cells)[panel] if grid.title.startswith(title))
    return found


def test_a_gain_may_be_from_a_row_at_another_place(tmp_path: Path) -> None:
    """Both posters against the images at ipc 1: 50 - 45 and 40 - 45."""
    plan = document(poster_table(tmp_path))
    cells = assemble(plan, tmp_path)
    assert [c.gain and c.gain.difference for c in cells] == [5.0, -5.0, None]
    said = "Gains of ours are over images at ipc 1.0, wherever ours stands."
    assert said in notes(plan, cells, "x.csv")
    own = replace(plan, cells=tuple(replace(c, against_at={}) for c in plan.cells))
    assert [c.gain and c.gain.difference for c in assemble(own, tmp_path)] == [5.0, None, None]
    assert not any("wherever" in note for note in notes(own, assemble(own, tmp_path), "x.csv"))


def test_drops_are_relative_to_the_same_row_measured_and_printed_apart(tmp_path: Path) -> None:
    """40 is a fifth below 50; 42 three tenths below 60."""
    plan = document(poster_table(tmp_path), drop_from={"ipc": 1.0})
    cells = assemble(plan, tmp_path)
    start = "Drop from ipc 1, percent of the row's own number there"
    for kind, rows in (
        ("measured", [("ours", ["0.0", "20.0"]), ("images", ["0.0", "–"])]),
        ("published", [("ours", ["0.0", "30.0"]), ("images", ["–", "–"])]),
    ):
        assert grid_of(cells, plan, "digits", f"{start} ({kind})").rows == rows
    without = replace(plan, drop_from={})
    titles = [grid.title for grid in layout(without, cells)["digits"]]
    assert not any(title.startswith("Drop") for title in titles)


def test_averages_are_over_the_measured_panels(tmp_path: Path) -> None:
    """Two data sets, of which the second lacks the images: their row has no average."""
    first = poster_table(tmp_path)
    second = poster_table(tmp_path, "letters", shift=10.0)[:2]
    nothing: dict = {"evaluations": (), "dataset": "average"}
    printed_only = [cell(row, "podd", "static", ipc=ipc, **nothing) for row, ipc in ACCURACY]
    plan = document([*first, *second, *printed_only], averages=("average",))
    cells = assemble(plan, tmp_path)
    found = grid_of(cells, plan, "average", "Measured, mean of digits, letters")
    assert found.rows == [("ours", ["55.0", "45.0"]), ("images", ["–", "–"])]
    titles = [grid.title for grid in layout(replace(plan, averages=()), cells)["average"]]
    assert not any("mean of" in title for title in titles)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_from": {"ipcs": 1.0}}, "drop_from.ipcs: is no axis: did you mean 'ipc'"),
        ({"averages": ["mean"]}, "averages: 'mean' is not unmeasured"),
    ],
)
def test_a_wrong_place_is_one_line(changes: dict, message: str) -> None:
    table = read_table(ROOT, "podd/table1").model_copy(update=changes)
    with pytest.raises(PlanError, match=message):
        check_table(table, ROOT, "podd/table1.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"against_at": {"ipcs": 1.0}}, r"against_at.ipcs: no such axis: did you mean 'ipc'"),
        ({"against": None}, "against_at: needs against"),
    ],
)
def test_a_row_that_is_compared_nowhere_is_one_line(changes: dict, message: str) -> None:
    table = read_table(ROOT, "podd/table1")
    rows = [row.model_copy(update=changes) if row.row == "PoDD" else row for row in table.rows]
    with pytest.raises(PlanError, match=message):
        check_table(table.model_copy(update={"rows": rows}), ROOT, "podd/table1.yaml")


def test_podd_compares_every_poster_with_images_at_one_per_class() -> None:
    """Its Table 1: the relative drop from 1.0, and what RaT-BPTT has at 1."""
    table = read_table(ROOT, "podd/table1")
    podd = next(row for row in table.rows if row.row == "PoDD")
    assert (podd.against, podd.against_at) == ("RaT-BPTT", {"ipc": 1.0})
    assert table.drop_from == {"ipc": 1.0}
    assert read_table(ROOT, "podd/table2").averages == ["average"]
