"""Verdicts beside printed numbers, what makes a cell comparable, and compression ratios."""

from dataclasses import replace

import pytest

from distillery.errors import PlanError
from distillery.plan.models import checked
from distillery.plan.table_models import Row
from distillery.table.assemble import AssembledCell
from distillery.table.stats import summarize
from distillery.table.verdict import tolerance, verdict
from helpers.planning import at
from helpers.tables import cell, made, make_plan, make_store, printed

STATIC = {"static": {"training": {"epochs": 3}}}


def judged(values, std, mean=50.0, **changes):
    planned = cell("INFER", "infer", "static", published=printed(mean, std, 1.0), **changes)
    return verdict(AssembledCell(planned, measured=summarize([values])))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(3.0, 4.0, 10.0), (None, 4.0, 8.0), (3.0, None, 6.0), (None, None, 0.5), (0.1, 0.1, 0.5)],
)
def test_tolerance_is_twice_the_combined_deviation_and_half_a_point_at_least(
    ours, theirs, expected
):
    assert tolerance(ours, theirs) == pytest.approx(expected)


# 49, 51, 53: mean 51, sd 2; with the printed sd 1.5 the tolerance is 2 * 2.5 = 5
@pytest.mark.parametrize(
    ("mean", "expected"),
    [(51.0, "within"), (46.0, "within"), (56.0, "within"), (45.9, "above"), (56.1, "below")],
)
def test_verdict_by_hand(mean, expected):
    assert judged([49.0, 51.0, 53.0], 1.5, mean, comparable=True) == expected


def test_no_verdict_without_both_numbers_and_a_reason_where_they_differ():
    assert judged([50.0], 1.0, reason="another ipc (5, not 10)") == (
        "not comparable: another ipc (5, not 10)"
    )
    planned = cell("INFER", "infer", "static", published=printed(50, 1, 1), comparable=True)
    assert verdict(AssembledCell(planned)) is None
    unprinted = replace(planned, published=None)
    assert verdict(AssembledCell(unprinted, measured=summarize([[50.0]]))) is None


def cells(scale="paper", table="infer/table1", **changes):
    """By row: the cells of CIFAR-10, ConvNet, ipc 10."""
    place = ("cifar10", "convnet128", 10)
    found = at(scale, **changes).cells(table)
    return {c.row.row: c for c in found if (c.dataset, c.student, c.ipc) == place}


@pytest.fixture(scope="module")
def overridden():
    return cells(
        evaluate=STATIC,
        grid={"infer/table1": {"rows": ["Random", "Random*", "INFER"], "dataset": ["cifar10"]}},
    )


def test_a_recipe_of_params_yaml_is_not_the_papers_and_is_named(overridden):
    assert not overridden["INFER"].comparable
    assert overridden["INFER"].reason == (
        "another protocol: evaluate training.epochs = 3, the paper's 400 "
        "(params.yaml.evaluate.static.training.epochs)"
    )
    assert overridden["Random"].comparable and overridden["Random"].reason == ""


def test_the_key_that_is_named_is_of_the_block_that_the_row_reads():
    both = {"hard": {"training": {"epochs": 3}}} | STATIC
    rows = {"infer/table1": {"rows": ["Random", "INFER"], "dataset": ["cifar10"]}}
    found = cells(evaluate=both, grid=rows)
    for row, block in (("Random", "hard"), ("INFER", "static")):
        assert f"(params.yaml.evaluate.{block}.training.epochs)" in found[row].reason


def test_how_often_a_student_is_tested_changes_no_number_of_the_last_epoch():
    rarely = {"static": {"training": {"test_every": 200}}}
    found = cells(evaluate=rarely, grid={"infer/table1": {"rows": ["INFER"]}})
    assert found["INFER"].comparable


def test_a_network_is_not_taken_for_the_papers_by_its_name():
    """Our "convnet" has batch norm, the network that PoDD prints as such instance norm."""
    axes = {"dataset": ["cifar10"], "ipc": [1.0], "rows": ["PoDD"]}
    for student, comparable in (("convnet-in", True), ("convnet", False)):
        grid = {"podd/table1": axes | {"student": [student]}}
        (found,) = at("paper", grid=grid).cells("podd/table1")
        assert found.published is not None and found.published.mean == 59.1
        assert found.comparable is comparable
    assert found.reason.startswith("another network: evaluate student.norm = 'batch'")


def test_all_training_images_are_compared_at_the_papers_place():
    axes = {"dataset": ["cifar10"], "ipc": [1.0], "rows": ["Full data"]}
    (found,) = at("paper", grid={"podd/table1": axes}, evaluate=STATIC).cells("podd/table1")
    assert found.comparable or found.reason == "the paper does not name the network"


def test_rows_left_out_stand_nowhere(overridden):
    assert set(overridden) == {"Random", "Random*", "INFER"}


def test_the_value_that_the_scale_has_changes_nothing():
    same = {"static": {"training": {"epochs": 400}}}
    found = cells(evaluate=same, grid={"infer/table1": {"rows": ["INFER"]}})
    assert found["INFER"].comparable


def test_another_scale_is_told_by_what_it_resolves():
    found = cells("mini", grid={"infer/table1": {"rows": ["INFER"]}})["INFER"]
    assert not found.comparable
    assert found.reason.startswith("another ") and "the paper's" in found.reason
    assert "scale mini" in found.reason


def test_a_users_own_data_set_has_no_printed_numbers():
    rows = {"infer/table1": {"rows": ["Random"], "dataset": ["cifar10"]}}
    assert cells(grid=rows)["Random"].published.mean == 31.0
    own = {"cifar10": {"size": 16, "expected": {"shape": [3, 16, 16]}}}
    assert cells(grid=rows, datasets=own)["Random"].published is None
    moved = {"cifar10": {"source": "parquet:data/cifar10"}}  # the same data in another place
    assert cells(grid=rows, datasets=moved)["Random"].comparable


def test_a_row_that_is_not_comparable_says_why():
    row = {"row": "A", "method": "random", "labels": "hard", "comparable": False}
    with pytest.raises(PlanError, match="because"):
        checked(Row, row, "t.yaml")
    rows = {"infer/table1": {"rows": ["G-VBSM"], "dataset": ["cifar10"]}}
    assert cells(grid=rows)["G-VBSM"].reason == "printed with instance norm"


def test_compression_ratio_only_where_the_paper_counts_one(tmp_path):
    plan, store = make_plan(), make_store(tmp_path / "store")
    assert made(plan, store, tmp_path / "with")[2]["cr_paper"] == "8.12"
    without = made(replace(plan, compression_ratio=False), store, tmp_path / "without")[2]
    assert (without["cr_paper"], without["bytes"]) == ("", "6392")
    assert "CR:" not in (tmp_path / "without.md").read_text()
    papers = at("paper").settings.paper
    assert [papers(name).compression_ratio for name in ("infer", "gift", "podd")] == [
        True,
        False,
        False,
    ]
