"""Draws and students: what rows share, how numbers nest, how gains are tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats as scipy_stats

from distillery.errors import PlanError
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.sets.distilled import DistilledSet
from distillery.stages import evaluate
from distillery.store.artefact import open_artefact, read_meta
from distillery.store.canonical import digest
from distillery.store.job import run
from distillery.store.runtime import seed
from distillery.table.gains import Gain, gains
from distillery.table.stats import corrected, paired
from helpers.planning import planned
from helpers.tables import cell, document, evaluation, made, put

# Three rows of which two differ in a field of the recipe alone.
TABLE = """
title: "rows that share what they draw"
panel: dataset
columns: [student, ipc]
rows:
  - {row: Random, method: random, labels: hard}
  - {row: INFER, method: infer, labels: static}
  - {row: other, method: infer, labels: static, override: {distill: {alpha: 1.000001}}}
"""


def alike(project: Path, **changes: Any) -> Plan:
    (project / "workflow/tables/infer/table2.yaml").write_text(TABLE)
    return planned(project, **changes)


def cells(plan: Plan) -> dict[str, Any]:
    return {found.row.row: found for found in plan.cells("table2")}


# --- what the streams follow from -----------------------------------------------------------------


def test_rows_share_the_streams_of_their_sets_labels_and_students(project):
    found = cells(alike(project, draws=2))
    random, infer, other = (found[row] for row in ("Random", "INFER", "other"))
    data = infer.data.key
    for draw in range(2):
        for node in (random.distilled, infer.distilled, other.distilled, infer.label, other.label):
            assert node[draw].spec.streams == {"data": data, "ipc": 5, "draw": draw}
        for row in (random, infer, other):
            assert [node.spec.streams for node in row.evaluations[draw]] == [
                {"data": data, "ipc": 5, "draw": draw, "student": student} for student in range(2)
            ]
        assert infer.distilled[draw].key != other.distilled[draw].key, "yet other artefacts"
    keys = [node.key for row in found.values() for node in (*row.distilled, *row.students)]
    assert len(set(keys)) == len(keys) == 3 * (2 + 4)


def streams(node: Node) -> str:
    return digest(node.spec.streams)


def test_another_draw_budget_or_data_set_draws_anew(project, edit):
    edit(project / "workflow/scales/tiny.yaml", "ipc: [5]", "ipc: [5, 10]")
    small = {"small": {"source": "sklearn:digits", "size": 6}}
    grid = {"table2": {"dataset": ["digits", "small"]}}
    plan = alike(project, draws=2, datasets=small, grid=grid)
    rows = [found for found in plan.cells("table2") if found.row.row == "INFER"]
    assert len(rows) == 4
    sets = [node for found in rows for node in found.distilled]
    students = [node for found in rows for node in found.students]
    assert len({streams(node) for node in sets}) == 8  # 2 data sets x 2 ipc x 2 draws
    assert len({streams(node) for node in students}) == 16


def test_teachers_of_an_ensemble_start_apart_and_another_recipe_of_one_alike(project):
    def teachers(**changes: Any) -> list[Node]:
        infer = cells(alike(project, **changes))["INFER"]
        return infer.distilled[0].inputs_of("teachers")

    one, other = teachers()
    assert streams(one) != streams(other)
    longer = teachers(teacher={"net-a": {"training": {"epochs": 9}}})
    assert streams(longer[0]) == streams(one) and longer[0].key != one.key
    assert streams(longer[1]) == streams(other)


# --- what jobs really draw ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Any:
    """The sets and the students of the three rows, of two draws; how each student began."""
    from helpers.project import make_project

    plan = alike(make_project(tmp_path_factory.mktemp("drawn")), draws=2, students=2)
    began: dict[str, Any] = {}
    train: Callable[..., Any] = evaluate.train

    def record(model, samples, recipe, loss, job, **more):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        batches: list[list[int]] = []
        read = samples.read

        def note(indices):
            batches.append(indices.tolist())
            return read(indices)

        object.__setattr__(samples, "read", note)
        began[job.key] = (weights, batches)
        return train(model, samples, recipe, loss, job, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "train", record)
        for node in plan.missing(["table2"]):
            run(node.spec, plan.store)
    return plan, cells(plan), began


def natural(plan: Plan, node: Node) -> torch.Tensor:
    return DistilledSet.load(open_artefact(plan.store / node.address).path).tensors["natural"]


def test_rows_that_differ_in_a_field_alone_have_the_same_natural_images(drawn):
    plan, found, _ = drawn
    sets = {
        row: [natural(plan, node) for node in found[row].distilled] for row in ("INFER", "other")
    }
    for draw in range(2):
        assert torch.equal(sets["INFER"][draw], sets["other"][draw])
    assert not torch.equal(sets["INFER"][0], sets["INFER"][1]), "another draw, other images"


def test_the_subsets_of_infer_are_the_first_images_of_random(drawn):
    plan, found, _ = drawn
    for draw in range(2):
        subsets = natural(plan, found["INFER"].distilled[draw])  # (4, 10, 1, 8, 8)
        node = found["Random"].distilled[draw]
        images = DistilledSet.load(open_artefact(plan.store / node.address).path).expand("cpu")
        pixels = (images.images * 255).round().to(torch.uint8)
        for label in range(10):
            assert torch.equal(pixels[images.labels == label][: len(subsets)], subsets[:, label])


def began(node: Node, record: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    return record[node.key]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_rows_have_the_same_initial_weights_and_batches(drawn):
    _, found, record = drawn
    for one, other, random in zip(
        *(found[row].students for row in ("INFER", "other", "Random")), strict=True
    ):
        weights, batches = began(one, record)
        assert same(weights, began(other, record)[0]) and batches == began(other, record)[1] != []
        assert same(weights, began(random, record)[0]), "also of another method"
    starts = [began(node, record) for node in found["INFER"].students]
    for i, (weights, batches) in enumerate(starts):
        for others, other_batches in starts[:i]:
            assert not same(weights, others) and batches != other_batches, "students differ"


def test_an_evaluation_counts_its_steps(drawn):
    plan, found, record = drawn
    for row, instances in (("Random", 50), ("INFER", 3 * 4 * 10)):
        for node in found[row].students:
            stated = read_meta(plan.store / node.address)["metadata"]
            assert (stated["instances"], stated["epochs"]) == (instances, 2)
            assert stated["steps"] == 2 * -(-instances // 32)  # batches of 32, the last one smaller
            # The training reads a batch at each step, and nothing else.
            assert len(began(node, record)[1]) == stated["steps"]


def test_seeds_follow_from_the_streams_and_the_role_alone(drawn):
    plan, found, _ = drawn
    for node in found["INFER"].students:
        assert read_meta(plan.store / node.address)["spec"]["streams"] == node.spec.streams
    assert seed(digest({"draw": 0}, 16), "init") != seed(digest({"draw": 1}, 16), "init")
    assert seed(digest({"draw": 0}, 16), "init") != seed(digest({"draw": 0}, 16), "order")


# --- how often ------------------------------------------------------------------------------------


def counted(project: Path, **changes: Any) -> tuple[int, int]:
    found = cells(planned(project, **changes))["INFER"]
    (students,) = {len(draw) for draw in found.evaluations}
    assert len(found.evaluations) == len(found.distilled) == len(found.label)
    return len(found.distilled), students


def of_scale(project: Path, counts: str) -> None:
    scale = project / "workflow/scales/tiny.yaml"
    scale.write_text(scale.read_text() + counts)


def test_counts_of_a_table_win_over_the_general_ones(project):
    assert counted(project) == (1, 2)
    assert counted(project, draws=3) == (3, 2)
    assert counted(project, draws=3, counts={"table2": {"students": 1}}) == (3, 1)
    of_scale(project, "\ncounts:\n  infer/table2: {draws: 2, students: 3}\n")
    assert counted(project) == (2, 3), "the scale's over the general ones of params.yaml"
    assert counted(project, draws=4, students=4) == (2, 3)
    assert counted(project, counts={"infer/table2": {"draws": 4}}) == (4, 3)
    own = {"tiny": {"counts": {"table2": {"draws": 5}}}}
    assert counted(project, counts={"table2": {"draws": 4, "students": 1}}, scales=own) == (5, 1)


def test_counts_of_another_table_change_nothing(project):
    of_scale(project, "\n  infer/table1: {dataset: [digits], student: [net-a], ipc: [5]}\n")
    assert counted(project, counts={"table1": {"draws": 2, "students": 1}}) == (1, 2)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"table3": {"draws": 2}}, r"counts\.table3: no such table at this scale: did you mean"),
        ({"table2": {"draw": 2}}, r"counts\.table2\.draw: unknown key: did you mean 'draws'"),
        ({"table2": {"draws": 0}}, r"counts\.table2\.draws = 0"),
        ({"table2": {"students": 1.5}}, r"counts\.table2\.students = 1\.5"),
    ],
)
def test_wrong_counts_are_named(project, counts, message):
    with pytest.raises(PlanError, match=message) as error:
        planned(project, counts=counts)
    assert "\n" not in str(error.value)


def test_a_table_that_the_scale_counts_must_be_one_of_it(project):
    of_scale(project, "\ncounts:\n  infer/table7: {draws: 2}\n")
    message = r"tiny\.yaml\.counts\.infer/table7: no such table at this scale: did you mean"
    with pytest.raises(PlanError, match=message):
        planned(project)


# --- tests of gains -------------------------------------------------------------------------------

OURS = [[2.0, 4.0], [5.0, 5.0], [9.0, 11.0]]  # means 3, 5, 10
THEIRS = [[1.0, 1.0], [3.0, 5.0], [6.0, 6.0]]  # means 1, 4, 6


def compared(values: dict[str, list[list[float]]]) -> list[Gain | None]:
    rows = [cell(row, "random", "hard", against=None if row == "z" else "z") for row in values]
    return gains(document(rows), lambda one: values[one.row])


def test_gains_are_paired_over_draws():
    # Differences of draws 2, 1, 4: mean 7/3, variance (1/9 + 16/9 + 25/9) / 2 = 7/3, so
    # t = (7/3) / sqrt(7/9) = sqrt(7), of 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    p = 1 - 7**0.5 / 3
    found, _ = compared({"a": OURS, "z": THEIRS})
    assert found == Gain("z", pytest.approx(7 / 3), "paired t", pytest.approx(p), pytest.approx(p))
    assert found.p == pytest.approx(scipy_stats.ttest_rel([3, 5, 10], [1, 4, 6]).pvalue)
    assert found.p != pytest.approx(scipy_stats.ttest_ind([3, 5, 10], [1, 4, 6]).pvalue, abs=0.1)
    assert paired([3.0, 5.0, 10.0], [1.0, 4.0, 6.0]) == pytest.approx(p)


def test_equal_differences_have_no_test():
    constant = [[value + 1.5 for value in draw] for draw in THEIRS]
    assert compared({"a": constant, "z": THEIRS})[0] == Gain("z", pytest.approx(1.5))
    assert paired([0.1 + 0.2, 1.3], [0.3, 1.3]) is None, "but for rounding"
    for ours, theirs in (([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="two pairs or more"):
            paired(ours, theirs)


def test_one_draw_on_either_side_is_no_test():
    assert compared({"a": [[1.0, 2.0, 3.0]], "z": THEIRS})[0].p is None
    assert compared({"a": OURS, "z": [[1.0, 2.0, 3.0]]})[0].p is None


def test_correction_by_hand():
    # Sorted 0.01, 0.03, 0.04: times 3/1, 3/2, 3/3 are 0.03, 0.045, 0.04; from the largest down no
    # one is above the next.
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert corrected([]) == [] and corrected([0.2]) == [0.2]


def test_the_gains_of_a_table_are_corrected_together():
    values = {
        "a": [[10.0], [11.1], [12.0]],
        "b": [[10.0], [13.0], [10.5]],
        "alone": [[99.0]],
        "z": [[1.0], [2.0], [3.0]],
    }
    a, b, alone, none = compared(values)
    p = [scipy_stats.ttest_rel([v for (v,) in values[row]], [1, 2, 3]).pvalue for row in "ab"]
    assert (a.p, b.p) == pytest.approx(tuple(p)) and a.p < b.p
    # Of two: the smaller one twice, at most the larger; the larger one once.
    assert (a.q, b.q) == pytest.approx((min(2 * p[0], p[1]), p[1]))
    assert (alone.q, none) == (None, None)


# --- a table of draws -----------------------------------------------------------------------------


def table(folder: Path, values: dict[str, list[list[float]]]) -> tuple[list[dict[str, str]], str]:
    """The rows and the Markdown of a table over a store with these accuracies, by row and draw."""
    planned_cells = []
    for row, draws in values.items():
        addresses = [
            tuple(f"evaluate/{row}-d{i}-s{j}" for j in range(len(students)))
            for i, students in enumerate(draws)
        ]
        for names, accuracies in zip(addresses, draws, strict=True):
            for name, accuracy in zip(names, accuracies, strict=True):
                put(folder / "store", name, evaluation(accuracy, accuracy, half=accuracy))
        against = None if row == "z" else "z"
        found = {"evaluations": tuple(addresses), "against": against}
        found["distilled"] = tuple(f"distill/{row}-d{i}" for i in range(len(draws)))
        planned_cells.append(cell(row, "infer", "static", **found))
    rows = made(document(planned_cells), folder / "store", folder / "t")
    return rows, (folder / "t.md").read_text()


def test_a_table_states_draws_and_students_and_what_its_spread_is_over(tmp_path):
    (a, _), text = table(tmp_path, {"a": OURS, "z": THEIRS})
    assert [a[name] for name in ("measured", "n", "spread_over", "draws", "students")] == [
        *("6.0000", "3", "draws", "3", "2")
    ]
    # 3, 5, 10: variance (9 + 1 + 16) / 2; t_{0.975, 2} = 4.302653
    assert (a["std"], a["ci95"]) == ("3.6056", "8.9567")
    assert (a["gain"], a["gain_test"], a["gain_p"], a["gain_q"]) == (
        *("2.3333", "paired t"),
        *(f"{1 - 7**0.5 / 3:.4f}",) * 2,
    )
    assert a["distilled_id"] == "a-d0;a-d1;a-d2"
    assert a["ids"] == ";".join(f"a-d{i}-s{j}" for i in range(3) for j in range(2))
    assert "Measured (scale demo, dataset digits, 3 draws of 2 students, last epoch)" in text
    assert "over draws of the distilled set, each made with random numbers of its own" in text
    assert "*: q < 0.05. 1 of 1 gains were tested over draws (paired t)" in text


def test_one_draw_has_no_star_and_says_what_its_spread_covers(tmp_path):
    far = {"a": [[90.0, 90.1, 90.2]], "z": [[10.0, 10.1, 10.2]]}
    (a, _), text = table(tmp_path, far)
    assert (a["gain"], a["gain_test"], a["gain_p"], a["gain_q"]) == ("80.0000", "", "", "")
    assert "+80.0 |" in text and "+80.0*" not in text
    assert "Gains have no star: a test needs several draws of the sets that vary (`draws`" in text
    assert "over students of one distilled set: it says nothing of how much another draw" in text
    assert (a["spread_over"], a["draws"], a["students"]) == ("students", "1", "3")


def test_several_draws_far_apart_have_a_star(tmp_path):
    far = {"a": [[90.0], [90.1], [90.3]], "z": [[10.0], [10.2], [10.1]]}
    _, text = table(tmp_path, far)
    assert "+80.0* |" in text and "Gains have no star" not in text


def test_a_table_of_both_says_both(tmp_path):
    _, text = table(tmp_path, {"a": OURS, "z": [[1.0, 2.0]]})
    assert "where there is one draw, over students of one distilled set" in text
    assert "(scale demo, dataset digits, 3 draws of 2 students/2 students of one set" in text
    assert json.loads((tmp_path / "t.metrics.json").read_text())["a"] == {
        "digits": {"convnet-w32/7": 6.0}
    }
