"""DD-Ranking's scores: formulas, the cells that they read, the columns of a table with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distillery.errors import PlanError
from distillery.plan.cell import TableCell
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.settings import merge, read_yaml
from distillery.plan.stage_plans.teacher import plan_teacher
from distillery.table.assemble import assemble
from distillery.table.document import TableDocument
from distillery.table.scores import (
    ACCURACIES,
    SCORES,
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    robustness,
)
from distillery.table.tidy import COLUMNS
from helpers.tables import cell, document, grid, made, put

NAMES = ("real_hard", "syn_hard", "rdm_any", "syn_noaug", "rdm_noaug")


# --- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hlr", "ior", "score"),
    [(0.30, 0.05, 0.218949), (0.25, -0.02, 0.215213), (0.10, 0.20, 0.290755), (0.0, 0.0, 0.268941)],
)
def test_label_robust_score(hlr, ior, score):
    assert label_robust_score(ior, hlr) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(("alpha", "score"), [(-1, 0), (-0.5, 0.101536), (0.5, 0.544946), (1, 1)])
def test_normalisation(alpha, score):
    assert label_robust_score(alpha, -alpha) == pytest.approx(score, abs=1e-6)
    assert augmentation_robust_score(alpha, alpha) == pytest.approx(score, abs=1e-6)
    assert label_robust_score(alpha, 0.7, w=1) == pytest.approx(score, abs=1e-6)
    assert augmentation_robust_score(0.7, alpha, gamma=0) == pytest.approx(score, abs=1e-6)


def test_augmentation_robust_score():
    assert augmentation_robust_score(0.05, -0.02) == pytest.approx(0.275371, abs=1e-6)


def test_percent_becomes_fractions():
    assert hard_label_recovery(real_hard=90.0, syn_hard=60.0) == pytest.approx(0.30)
    assert improvement_over_random(syn_any=55.0, rdm_any=50.0) == pytest.approx(0.05)
    found = robustness(dict(zip(ACCURACIES, (90.0, 60.0, 55.0, 50.0, 40.0, 42.0), strict=True)))
    assert found == pytest.approx(
        dict(
            zip(
                (*ACCURACIES, *SCORES),
                (90, 60, 55, 50, 40, 42, 0.30, 0.05, 0.218949, 0.275371),
                strict=True,
            )
        ),
        abs=1e-6,
    )


# --- the plan -------------------------------------------------------------------------------------

TABLE = """
title: "a small table with scores"
columns: [student, ipc]
scores: true
rows:
  - {row: Random, method: random, labels: hard}
  - row: INFER
    method: infer
    labels: static
    override: {evaluate: {loss: {temperature: 2.0}}, distill: {iterations: 4}}
  - {row: INFER+Dyn, method: infer, labels: dynamic}
"""


def scored(project: Path, table: str = TABLE, student: str = "net-a", **params: dict) -> Plan:
    (project / "workflow/tables/infer/table1.yaml").write_text(table)
    axes = {"infer/table1": {"dataset": ["digits"], "student": [student], "ipc": [5]}}
    return Plan(project, merge(read_yaml(project / "params.yaml"), {"grid": axes}, params))


@pytest.fixture
def scales(project, edit):
    """The tiny project with axes for a second table, and a base recipe that augments."""
    edit(
        project / "workflow/scales/tiny.yaml",
        "  infer/table2:",
        "  infer/table1: {}\n  infer/table2:",
    )
    edit(
        project / "workflow/scales/tiny.yaml",
        "training: &training {epochs: 2, batch: 32, augment: []",
        'training: &training {epochs: 2, batch: 32, augment: ["crop:1"]',
    )
    return project


def rows(plan: Plan, table: str = "table1") -> dict[str, TableCell]:
    return {p.row.row: p for p in plan.cells(table)}


def recipe(node: Node, *changed: str) -> dict:
    return {key: value for key, value in node.spec.recipe.items() if key not in changed}


def test_scores_compare_with_the_right_cells(scales):
    plan = scored(scales)
    found, infer = rows(plan), rows(plan)["INFER"]
    own, compared = infer.students, infer.scores
    assert tuple(compared) == NAMES and {name: len(nodes) for name, nodes in compared.items()} == {
        name: 1 if name == "real_hard" else 2 for name in NAMES
    }
    assert compared["real_hard"] == (plan_teacher("net-a", "digits", plan.context),)
    for i in range(2):
        hard, drawn, plain, drawn_plain = (compared[name][i] for name in NAMES[1:])
        assert (
            hard.inputs["distilled"] is plain.inputs["distilled"] is infer.distilled[0]
            and "label" not in hard.inputs
        )
        random = found["Random"].students[i]
        assert hard.spec.recipe == random.spec.recipe and hard.spec.recipe["labels"] == {
            "name": "hard"
        }
        assert (
            drawn.inputs["distilled"]
            is drawn_plain.inputs["distilled"]
            is found["Random"].distilled[0]
        )
        assert (
            drawn.spec.recipe == own[i].spec.recipe
            and drawn.spec.recipe["loss"]["temperature"] == 2.0
        )
        assert drawn.inputs["label"].inputs["distilled"] is found["Random"].distilled[0]
        assert plain.spec.recipe == drawn_plain.spec.recipe and plain.inputs == own[i].inputs
        assert recipe(plain, "training") == recipe(own[i], "training")
        assert (
            own[i].spec.recipe["training"] | {"augment": []}
            == plain.spec.recipe["training"]
            != own[i].spec.recipe["training"]
        )


def test_equal_cells_are_one_artefact(scales):
    plan = scored(scales)
    found = rows(plan)
    random, dynamic = found["Random"], found["INFER+Dyn"]
    assert random.scores["syn_hard"] == random.scores["rdm_any"] == (*random.students,)
    assert random.scores["syn_noaug"] == random.scores["rdm_noaug"] != (*random.students,)
    assert rows(plan, "table2")["Random"].evaluations == random.evaluations, "the other table's"
    assert dynamic.scores["syn_hard"] != found["INFER"].scores["syn_hard"], "other distilled sets"
    unaugmented = scored(scales, evaluate={"dynamic": {"training": {"augment": []}}})
    dynamic = rows(unaugmented)["INFER+Dyn"]
    assert dynamic.scores["syn_noaug"] == (*dynamic.students,)


def test_params_cannot_augment_what_has_no_augmentation(scales):
    plan = scored(scales, evaluate={"static": {"training": {"augment": ["flip"]}}})
    infer = rows(plan)["INFER"]
    assert infer.students[0].spec.recipe["training"]["augment"] == ["flip"]
    assert infer.scores["rdm_noaug"][0].spec.recipe["training"]["augment"] == []


def test_the_document_names_them_and_the_table_waits_for_them(scales):
    plan = scored(scales)
    document, positions = plan.document("table1"), plan.cells("table1")
    assert document.scores
    for written, planned in zip(document.cells, positions, strict=True):
        assert written.scores == {
            name: tuple(node.address for node in nodes) for name, nodes in planned.scores.items()
        }
        assert {node for nodes in planned.scores.values() for node in nodes} <= set(
            plan.table_inputs("table1")
        )
    assert {node for p in positions for nodes in p.scores.values() for node in nodes} <= set(
        plan.missing(["table1"])
    )
    measured = rows(scored(scales, grid={"infer/table1": {"rows": ["INFER"]}}))
    assert "Random" not in measured and measured["INFER"].scores.keys() == set(NAMES)


def test_a_table_without_scores_plans_as_before(scales):
    plain = scored(scales, TABLE.replace("scores: true\n", ""))
    document = plain.document("table1")
    assert not document.scores and not any(cell.scores for cell in document.cells)
    assert {n.spec.stage for n in plain.table_inputs("table1")} == {"evaluate"}
    with_scores = scored(scales).document("table1")
    bare = tuple(replace(cell, scores={}) for cell in with_scores.cells)
    assert replace(with_scores, scores=False, cells=bare) == document


def test_what_scores_refuse(scales, edit):
    edit(
        scales / "workflow/scales/tiny.yaml",
        "datasets:\n",
        "  net-c: {name: convnet, width: 5, norm: batch}\ndatasets:\n",
    )
    message = (
        r"accuracy of student 'net-c' on the real data: "
        r"params.yaml.grid.infer/table1.student: "
        r"workflow/scales/tiny.yaml.teacher.net-c: no such block"
    )
    with pytest.raises(PlanError, match=message):
        scored(scales, student="net-c").cells("table1")
    with pytest.raises(
        PlanError,
        match=r"table1.yaml.scores: are of accuracies, analysis 'difficulty' measures none",
    ):
        scored(scales, TABLE.replace("scores: true", "scores: true\nanalysis: difficulty")).cells(
            "table1"
        )


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path) -> Path:
    store = tmp_path / "store"
    data = {
        "counts": {"train": 1400, "test": 397},
        "raw_bytes": 89_600,
        "classes": [str(digit) for digit in range(10)],
    }
    put(store, "data/d", data)
    put(store, "distill/s", {"bytes": {"images": 4480}})
    accuracies = {"own": (54.0, 56.0), "syn_hard": (59.0, 61.0), "rdm_any": (48.0, 52.0)}
    accuracies |= {"syn_noaug": (40.0, 40.0), "rdm_noaug": (41.0, 43.0)}
    for name, found in accuracies.items():
        for repeat, last in enumerate(found):
            put(store, f"evaluate/{name}-r{repeat}", {"accuracy": {"last": last, "best": last + 1}})
    put(store, "teacher/t", {"accuracy": {"last": 90.0, "best": 95.0}})
    return store


@pytest.fixture
def plan() -> TableDocument:
    compared = {name: tuple(f"evaluate/{name}-r{i}" for i in range(2)) for name in NAMES[1:]} | {
        "real_hard": ("teacher/t",)
    }
    own = {
        "evaluations": (("evaluate/own-r0", "evaluate/own-r1"),),
        "distilled": ("distill/s",),
        "data": "data/d",
    }
    cells = [
        cell("Random", "random", "hard"),
        cell("INFER", "infer", "static", scores=compared, **own),
    ]
    return document(cells, scores=True)


def test_columns_by_hand(plan, store, tmp_path):
    unmeasured, infer = made(plan, store, tmp_path / "table2")
    assert list(infer) == [*COLUMNS, *ACCURACIES, *SCORES]
    # HLR 90 - 60, IOR 55 - 50, without augmentation 40 - 42: the oracles 0.218949 and 0.275371
    expected = (
        "90.0000",
        "60.0000",
        "55.0000",
        "50.0000",
        "40.0000",
        "42.0000",
        "0.3000",
        "0.0500",
        "0.2189",
        "0.2754",
    )
    assert tuple(infer[name] for name in (*ACCURACIES, *SCORES)) == expected
    assert {unmeasured[name] for name in (*ACCURACIES, *SCORES)} == {""}
    assert assemble(plan, store)[0].scores == {}


def test_the_block_and_the_note(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    text = (tmp_path / "table2.md").read_text()
    title = "Robustness (DD-Ranking's definitions, fractions; not comparable with its leaderboard)"
    assert grid(text, title) == [
        ["", "student", "ipc", "HLR", "IOR", "LRS", "ARS"],
        ["INFER", "convnet-w32", "7", "0.300", "0.050", "0.219", "0.275"],
    ]
    assert "(0.5 each)" in text and "acc_... of table2.csv" in text
    assert "Robustness" in (tmp_path / "table2.tex").read_text()


def test_without_scores_nothing_of_them_is_written(plan, store, tmp_path):
    cells = tuple(replace(one, scores={}) for one in plan.cells)
    bare = replace(plan, scores=False, cells=cells)
    (tmp_path / "bare").mkdir()
    row = made(bare, store, tmp_path / "bare/table2")[1]
    (tmp_path / "full").mkdir()
    full = made(plan, store, tmp_path / "full/table2")[1]
    assert list(row) == list(COLUMNS) and row == {name: full[name] for name in COLUMNS}
    assert "Robustness" not in (tmp_path / "bare/table2.md").read_text()
    assert "HLR" not in (tmp_path / "bare/table2.md").read_text()
    one, two = (
        json.loads((tmp_path / f"{place}/table2.metrics.json").read_text())
        for place in ("bare", "full")
    )
    assert one == two
