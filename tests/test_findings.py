"""What stands under a table: steps that differ, trainings cut short, accuracy that falls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distillery.table.assemble import AssembledCell, assemble
from distillery.table.document import DocumentCell, PrintedTeacher
from distillery.table.findings import findings
from distillery.table.metadata import Effort, StoreMetadata
from distillery.table.stats import summarize
from helpers.tables import cell, document, evaluation, grid, made, put

ADDRESS = "evaluate/a-s0"


def effort(store: Path, **changes: Any) -> Effort:
    put(store, ADDRESS, evaluation(47.0, 48.0) | changes)
    found = StoreMetadata(store).measurement(ADDRESS).effort
    assert found is not None
    return found


def measured(
    row: str, *draws: list[float], rise: float | None = 0.0, steps: int = 40, **place: Any
) -> AssembledCell:
    efforts = tuple(Effort(70, 20, steps, rise) for draw in draws for _ in draw)
    method = place.pop("method", "infer")
    planned = cell(row, method, place.pop("labels", "static"), **place)
    return AssembledCell(planned, summarize(draws) if draws else None, efforts=efforts)


def said(*cells: AssembledCell, **changes: Any) -> list[str]:
    planned: list[DocumentCell] = [one.planned for one in cells]
    return findings(document(planned, **changes), cells)


# --- how a training ended -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "rise"),
    [
        ([[5, 10.0], [10, 44.0], [15, 46.0], [20, 47.0]], 1.0),  # from the 15th of 20 epochs on
        ([[5, 10.0], [10, 44.0], [16, 46.0], [20, 47.0]], 1.5),  # 3 points in 10 epochs, 5 of them
        ([[10, 50.0], [20, 47.0]], -1.5),
        ([[5, 44.0], [20, 47.0]], 1.0),
        ([[4, 10.0], [16, 46.0], [20, 47.0]], None),  # none of the two quarters between
        ([[20, 47.0]], None),
    ],
)
def test_the_rise_of_the_last_quarter_by_hand(curve, rise, tmp_path):
    found = effort(tmp_path, accuracy={"last": 47.0, "best": 50.0, "curve": curve})
    assert found == Effort(instances=70, epochs=20, steps=40, rise=rise)


def test_a_quarter_of_an_odd_number_of_epochs_is_no_whole_number(tmp_path):
    curve = [[3, 1.0], [11, 46.0], [12, 46.9], [15, 47.0]]
    accuracy = {"last": 47.0, "best": 47.0, "curve": curve}
    # up to 11.25 epochs; one point in four of them, of which a quarter is 3.75
    assert effort(tmp_path, epochs=15, accuracy=accuracy).rise == 0.9375


def test_an_evaluation_from_before_the_count_of_steps_says_nothing(tmp_path):
    stated = evaluation(47.0, 48.0)
    del stated["steps"]
    put(tmp_path, ADDRESS, stated)
    assert StoreMetadata(tmp_path).measurement(ADDRESS).effort is None


@pytest.mark.parametrize(
    ("rises", "rise", "level"),
    [
        ((0.5, 1.5), 1.0, True),  # at the bound, not above it
        ((0.5, 1.6), 1.05, False),
        ((-9.0,), -9.0, True),
        ((1.0, None), None, None),  # not known of all
        ((), None, None),
    ],
)
def test_a_training_has_levelled_off_where_accuracy_rose_by_a_point_at_most(rises, rise, level):
    efforts = tuple(Effort(70, 20, 40, one) for one in rises)
    found = AssembledCell(cell("a", "infer", "static"), efforts=efforts)
    assert found.rise == (None if rise is None else pytest.approx(rise))
    assert found.levelled_off is level


def table(folder: Path, half: float | None, **changes: Any) -> tuple[dict[str, str], str, str]:
    """The row, the Markdown and the LaTeX of one student that was at `half` and ended at 47."""
    put(folder / "store", ADDRESS, evaluation(47.0, 48.0, half=half, **changes))
    one = cell("a", "infer", "static", evaluations=((ADDRESS,),), distilled=("distill/a",))
    (row,) = made(document([one]), folder / "store", folder / "t")
    return row, (folder / "t.md").read_text(), (folder / "t.tex").read_text()


def test_a_dagger_marks_the_number_and_its_note_says_how(tmp_path):
    row, text, latex = table(tmp_path, 44.0)
    assert row["rise"] == "1.50"  # three points over half of the training
    title = "Measured (scale demo, dataset digits, 1 student of one set, last epoch)"
    assert grid(text, title)[1][-1] == "47.0†"
    assert "†: the training had not levelled off (1 of 1 cells: a)" in text
    assert "rose by more than 1 point (column rise; " in text
    assert r"47.0$^\dagger$" in latex and "†" not in latex.partition("\n")[2].replace("% ", "")


def test_a_training_that_levelled_off_has_no_dagger(tmp_path):
    row, text, latex = table(tmp_path, 45.5)
    assert row["rise"] == "0.75"
    assert "†" not in text and "levelled off" not in text and "dagger" not in latex


def test_what_nobody_can_tell_is_said(tmp_path):
    row, text, _ = table(tmp_path, None)
    assert row["rise"] == "" and "†" not in text
    assert "Whether training had levelled off is not known of 1 of 1 cells" in text


# --- steps ----------------------------------------------------------------------------------------


def test_the_columns_say_what_each_student_took(tmp_path):
    row, *_ = table(tmp_path, 45.5, steps=60)
    assert (row["steps"], row["instances"], row["epochs"]) == ("60", "70", "20")


def test_students_of_different_steps_show_each_number_once(tmp_path):
    for i, steps in enumerate((40, 60, 40)):
        put(tmp_path / "store", f"evaluate/a-s{i}", evaluation(47.0, 48.0, steps=steps))
    addresses = tuple(f"evaluate/a-s{i}" for i in range(3))
    one = cell("a", "infer", "static", evaluations=(addresses,), distilled=("distill/a",))
    (row,) = made(document([one]), tmp_path / "store", tmp_path / "t")
    assert row["steps"] == "40;60"
    assert [one.steps for one in assemble(document([one]), tmp_path / "store")[0].efforts] == [
        *(40, 60, 40)
    ]


def test_rows_of_different_steps_are_named():
    (line,) = said(measured("a", [40.0], steps=40), measured("b", [40.0], steps=160))
    assert line.startswith("Rows at one place were trained for different numbers of steps")
    assert line.endswith("Steps of the optimiser: a 40; b 160.")


def test_a_row_of_several_steps_has_a_span():
    cells = [
        measured("a", [40.0], steps=40, ipc=5),
        measured("a", [41.0], steps=80, ipc=10),
        measured("b", [40.0], steps=40, ipc=5),
        measured("b", [41.0], steps=90, ipc=10),
        measured("printed only"),
    ]
    (line,) = said(*cells)
    assert line.endswith("Steps of the optimiser: a 40 to 80; b 40 to 90.")


def test_steps_that_differ_between_places_alone_are_not_said():
    assert not said(measured("a", [40.0], steps=40, ipc=5), measured("a", [41.0], steps=80, ipc=10))
    assert not said(measured("a", [40.0]), measured("b", [40.0]))


# --- accuracy -------------------------------------------------------------------------------------


def test_accuracy_that_falls_with_ipc_beyond_the_spread_is_said():
    # sd of both 1: from 43 to 40.9 are 2.1, more than 1 + 1
    few, many = [[42.0, 43.0, 44.0]], [[39.9, 40.9, 41.9]]
    (line,) = said(measured("a", *many, ipc=10), measured("a", *few, ipc=5))
    assert line == (
        "a (digits, convnet-w32): accuracy falls from 43.0 at ipc 5 to 40.9 at ipc 10, "
        "beyond the spread."
    )


@pytest.mark.parametrize("shift", [0.0, 1.9])
def test_a_fall_within_the_spread_is_not_said(shift):
    few, many = [42.0, 43.0, 44.0], [42.0 - shift, 43.0 - shift, 44.0 - shift]
    assert not said(measured("a", few, ipc=5), measured("a", many, ipc=10))


def test_each_student_and_row_falls_by_itself():
    assert not said(measured("a", [43.0], ipc=5), measured("b", [10.0], ipc=10))
    assert not said(
        measured("a", [43.0], ipc=5, student="x"), measured("a", [10.0], ipc=10, student="y")
    )


def test_a_method_below_random_with_the_same_labels_is_said():
    random = measured("Random", [42.0, 43.0, 44.0], method="random")
    ours = measured("a", [39.9, 40.9, 41.9])
    (line,) = said(random, ours)
    assert line == (
        "a is below random real images with the same labels and protocol, beyond the spread, at: "
        "digits, convnet-w32, 7."
    )


@pytest.mark.parametrize(
    ("values", "random"),
    [
        ([41.1, 42.1, 43.1], {}),  # within the spread
        ([80.0, 81.0, 82.0], {}),
        ([30.0, 31.0, 32.0], {"labels": "hard"}),  # other labels
        ([30.0, 31.0, 32.0], {"ipc": 9}),  # another place
        ([30.0, 31.0, 32.0], {"protocol": "short"}),
        ([30.0, 31.0, 32.0], {"variant": "an ablation"}),
    ],
)
def test_a_method_is_compared_with_its_own_random_alone(values, random):
    drawn = measured("Random", [42.0, 43.0, 44.0], method="random", **random)
    assert not said(drawn, measured("a", values))


def test_analyses_measure_no_accuracy_to_doubt():
    cells = [measured("a", [43.0], ipc=5), measured("a", [10.0], ipc=10)]
    assert not said(*cells, analysis="continual") and said(*cells)


# --- teachers -------------------------------------------------------------------------------------


def test_a_teacher_below_its_printed_accuracy_is_told_once(tmp_path):
    teachers = tuple(
        PrintedTeacher(f"{name} on cifar10", f"cifar10-{name}", 93.86)
        for name in ("weak", "just", "absent")
    )
    behind = {"cifar10-weak": 91.85, "cifar10-just": 91.87}  # 93.86 - 2 = 91.86
    put(tmp_path, "evaluate/a", evaluation(47.0, 48.0) | {"teachers_behind": behind})
    one = cell("A", "infer", "static", evaluations=(("evaluate/a",),), teachers=teachers)
    plan = document([one, replace(one, row="B")])
    told = [text for text in findings(plan, assemble(plan, tmp_path)) if "teacher" in text]
    assert len(told) == 1
    assert told[0].startswith(
        "The teacher weak on cifar10 has 91.8 %, more than 2 points below the printed 93.86 %"
    )
