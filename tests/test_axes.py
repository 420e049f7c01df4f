"""What a recipe's identity holds, batches by the size of the set, and axes of a table's own."""

import dataclasses
import typing

import pytest
import yaml

from distillery.components.fields import read
from distillery.errors import PlanError
from distillery.plan import memory
from distillery.plan.cell import Experiment
from distillery.plan.cost import Estimator
from distillery.plan.plan import Plan
from distillery.plan.types import torch_free_part, validated
from distillery.training.recipe import Training
from helpers.planning import at, settings_with
from helpers.project import ROOT
from helpers.recipes import RECIPES

# --- identities -----------------------------------------------------------------------------------


def optional_fields(recipe: type) -> list[dataclasses.Field]:
    hints = typing.get_type_hints(recipe)
    return [
        field
        for field in dataclasses.fields(recipe)
        if type(None) in typing.get_args(hints[field.name])
    ]


def test_none_is_the_default_wherever_it_is_allowed():
    # None is left out of identities, so it must mean the same as saying nothing.
    recipes = [getattr(torch_free_part(module), name) for module, name in RECIPES]
    found = [
        (recipe, field) for recipe in (*recipes, Training) for field in optional_fields(recipe)
    ]
    assert len(found) > 5
    assert [(recipe, field.name) for recipe, field in found if field.default is not None] == []


def test_an_optional_setting_that_is_none_changes_no_identity():
    training = {"epochs": 1, "batch": 8}
    assert validated(Training, training, "here") == validated(
        Training, training | {"micro_batch": None}, "here"
    )
    assert validated(Training, training | {"micro_batch": 4}, "here")["micro_batch"] == 4
    assert "batch_up_to" not in validated(Training, training | {"batch_up_to": None}, "here")


# --- axes of a table's own ------------------------------------------------------------------------

OWN_AXES = """
title: "own axes"
columns: [student, ipc, optimizer, lr]
axes:
  optimizer:
    values:
      plain: {evaluate: {training: {optimizer: {name: sgd}}}}
      adam: {evaluate: {training: {optimizer: {name: adam}}}}
  lr: {sets: evaluate.training.optimizer.lr}
rows:
  - {row: Random, method: random, labels: hard}
  - {row: again, method: random, labels: hard, against: Random}
"""


def test_a_tables_own_axes_change_recipes(project, edit):
    (project / "workflow/tables/infer/table9.yaml").write_text(OWN_AXES)
    grid = (
        "{dataset: [digits], student: [net-a], ipc: [5], optimizer: [plain, adam], lr: [0.1, 0.2]}"
    )
    edit(project / "workflow/scales/tiny.yaml", "tables:\n", f"tables:\n  infer/table9: {grid}\n")
    plan = Plan(project)
    found = [
        p.students[0].spec.recipe["training"]["optimizer"]
        for p in plan.cells("table9")
        if p.row.row == "Random"
    ]
    assert [(o["name"], o["lr"]) for o in found] == [
        ("sgd", 0.1),
        ("sgd", 0.2),
        ("adam", 0.1),
        ("adam", 0.2),
    ]
    assert [
        (c.place.at("optimizer"), c.place.at("lr")) for c in plan.document("table9").cells[:2]
    ] == [
        ("plain", 0.1),
        ("plain", 0.2),
    ]
    edit(
        project / "workflow/scales/tiny.yaml", "optimizer: [plain, adam]", "optimizer: [plain, adm]"
    )
    with pytest.raises(
        PlanError,
        match=r"^workflow/scales/tiny.yaml.tables.infer/table9.optimizer: 'adm' means nothing to "
        r"workflow/tables/infer/table9.yaml.axes.optimizer: did you mean 'adam'",
    ):
        Plan(project).cells("table9")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "against: Random",
            "against: Randm",
            r"row 'again': against 'Randm': no such row: did you mean 'Random'",
        ),
        ("against: Random", "against: again", r"row 'again': against 'again': is the row itself"),
        (
            "Random, method: random, labels: hard}",
            "Random, method: random, labels: hard, measured: false}",
            r"row 'again': against 'Random': that row is not measured; compare with one that is",
        ),
        (
            "  lr: {sets: evaluate.training.optimizer.lr}\n",
            "",
            r"axes.lr: is required: say what its values change",
        ),
    ],
)
def test_a_wrong_axis_or_comparison_is_one_line(project, old, new, message):
    (project / "workflow/tables/infer/table9.yaml").write_text(OWN_AXES.replace(old, new))
    scale = project / "workflow/scales/tiny.yaml"
    grid = "{dataset: [digits], student: [net-a], ipc: [5], optimizer: [plain], lr: [0.1]}"
    scale.write_text(scale.read_text().replace("tables:\n", f"tables:\n  infer/table9: {grid}\n"))
    with pytest.raises(PlanError, match=message):
        Plan(project).cells("table9")


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        ("ipc: [5]", "ipc: [7]", False),
        ("ipc: [5, 7]", "ipc: [7]", True),
        ("ipc: [5]", "student: [net-a]", True),
        ("ipc: [5], student: [net-b]", "ipc: [5], student: [net-a]", False),
    ],
)
def test_a_row_is_compared_with_one_that_can_stand_beside_it(theirs, ours, fits, project):
    text = OWN_AXES.replace("hard}", f"hard, only: {{{theirs}}}}}")
    text = text.replace("against: Random", f"against: Random, only: {{{ours}}}")
    (project / "workflow/tables/infer/table9.yaml").write_text(text)
    scale = project / "workflow/scales/tiny.yaml"
    grid = "{dataset: [digits], student: [net-a], ipc: [5, 7], optimizer: [plain], lr: [0.1]}"
    scale.write_text(scale.read_text().replace("tables:\n", f"tables:\n  infer/table9: {grid}\n"))
    if fits:
        assert Plan(project).cells("table9")
    else:
        with pytest.raises(PlanError, match=r"row 'again': against 'Random': that row stands at"):
            Plan(project).cells("table9")


def test_a_row_that_is_printed_only_may_name_another_such_row(project):
    text = OWN_AXES.replace("hard}", "hard, measured: false}")
    text = text.replace("against: Random", "measured: false, against: Random")
    (project / "workflow/tables/infer/table9.yaml").write_text(text)
    scale = project / "workflow/scales/tiny.yaml"
    grid = "{dataset: [digits], student: [net-a], ipc: [5], optimizer: [plain], lr: [0.1]}"
    scale.write_text(scale.read_text().replace("tables:\n", f"tables:\n  infer/table9: {grid}\n"))
    assert [cell.evaluations for cell in Plan(project).cells("table9")] == [(), ()]


def test_the_student_may_be_the_teacher(tmp_path):
    settings = settings_with(tmp_path, {"label": {"own": {"teachers": "student"}}})
    experiment = Experiment("one", 10, "net", None)
    assert settings.recipe("label", "own", "one", {}, experiment)["teachers"] == ["net"]


def test_pairs_from_a_yaml_list_are_checked_and_become_tuples():
    training = yaml.safe_load("{epochs: 1, batch: 200, batch_up_to: [[10, 10], [500, 50]]}")
    checked = validated(Training, training, "here")
    assert checked["batch_up_to"] == [[10, 10], [500, 50]]
    assert read(Training, checked).batch_up_to == ((10, 10), (500, 50))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([[10]], r"here\.batch_up_to\.0"),
        ([[10, 0]], r"here\.batch_up_to\.0\.1 = 0"),
        ([10, 10], r"here\.batch_up_to\.0 = 10"),
    ],
)
def test_pairs_that_are_none_are_a_plan_error(pairs, message):
    with pytest.raises(PlanError, match=message):
        validated(Training, {"epochs": 1, "batch": 200, "batch_up_to": pairs}, "here")


def test_memory_is_estimated_for_the_batch_that_the_set_gives(monkeypatch):
    batches = []
    monkeypatch.setattr(
        memory, "training", lambda network, batch, *others: batches.append(batch) or 0.0
    )

    def estimated(**training):
        plan = at("paper", evaluate={"dynamic": {"training": {"batch": 200} | training}})
        stored = next(p for p in plan.cells("table1") if p.row.labels.kind == "fkd")
        assert Estimator(plan.settings, ROOT / "results/store").cost(stored.students[0])
        return stored.students[0].spec.recipe["training"]["batch"]

    assert estimated() == estimated(batch_up_to=[[10**6, 50]]) == 200
    estimated(batch_up_to=[[1, 50]])
    assert batches == [200, 50, 200]
