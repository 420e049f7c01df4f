"""Changes in params.yaml that are meant for one scale: a layer of their own, and no other's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.errors import PlanError
from distillery.plan.explain_value import Question, explain_value
from distillery.plan.plan import Plan
from distillery.plan.settings import Settings
from distillery.plan.upkeep import every_plan, unreachable
from helpers.project import ROOT

TRAINING = "evaluate.static.training"


@pytest.fixture
def two(project: Path) -> Path:
    """The tiny project with a second scale, `wide`, of other networks and another ipc."""
    scales = project / "workflow/scales"
    text = (scales / "tiny.yaml").read_text()
    (scales / "wide.yaml").write_text(text.replace("net-", "wide-").replace("[5]", "[6]"))
    return project


def write(root: Path, **values: object) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text()) | values
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def plan_at(root: Path, scale: str) -> Plan:
    return Plan(root, yaml.safe_load((root / "params.yaml").read_text()) | {"scale": scale})


def trainings(plan: Plan, key: str) -> set:
    """The values of a field of the training of the students with static labels."""
    cells = [cell for cell in plan.cells("table2") if cell.row.row == "INFER"]
    return {node.spec.recipe["training"][key] for cell in cells for node in cell.students}


def epochs(number: int) -> dict:
    return {"static": {"training": {"epochs": number}}}


@pytest.mark.parametrize(("scale", "found"), [("tiny", 7), ("wide", 9)])
def test_a_scale_reads_its_own_block_above_the_general_changes(scale, found, two):
    write(two, evaluate=epochs(9), scales={"tiny": {"evaluate": epochs(7)}})
    assert trainings(plan_at(two, scale), "epochs") == {found}


def test_what_the_block_does_not_say_the_general_changes_say(two):
    general = {"static": {"training": {"epochs": 9, "batch": 16}}}
    write(two, evaluate=general, scales={"tiny": {"evaluate": epochs(7)}})
    plan = plan_at(two, "tiny")
    assert (trainings(plan, "epochs"), trainings(plan, "batch")) == ({7}, {16})


def test_the_block_is_a_layer_so_that_its_plain_value_beats_a_general_one_per_ipc(two):
    general = {"static": {"per_ipc": {5: {"training": {"epochs": 9}}}}}
    write(two, evaluate=general, scales={"tiny": {"evaluate": epochs(7)}})
    assert trainings(plan_at(two, "tiny"), "epochs") == {7}


def test_every_kind_of_key_may_stand_in_a_block(two):
    source = {"source": "sklearn:digits", "mean": [0.4], "std": [0.3]}
    block = {
        "students": 1,
        "device": "cpu",
        "tables": ["infer/table2"],
        "environment": 3,
        "networks": {"net-a": {"width": 8}},
        "datasets": {"other": source},
        "grid": {"table2": {"dataset": ["other"], "rows": ["INFER"]}},
        "ensemble": ["net-b"],
        "distill": {"infer": {"teachers": "ensemble"}},
    }
    write(two, scales={"tiny": block})
    plan, other = plan_at(two, "tiny"), plan_at(two, "wide")
    params = plan.settings.params
    assert (params.students, params.device, params.tables) == (1, "cpu", ["infer/table2"])
    nodes = plan.missing(["table2"])
    assert {node.dataset for node in nodes} == {"other"}
    assert {node.spec.environment for node in nodes} == {3}
    (student,) = [n.spec.recipe["student"] for n in nodes if n.spec.stage == "evaluate"]
    assert student["width"] == 8
    (made,) = [node for node in nodes if node.spec.stage == "distill"]
    assert made.spec.recipe["method"]["teachers"] == ["net-b"]
    assert other.settings.params.students == 2
    assert {node.dataset for node in other.missing(["table2"])} == {"digits"}


def test_a_block_of_another_scale_moves_no_artefact(two):
    before = {node.address for node in plan_at(two, "tiny").missing(["table2"])}
    changes = {"evaluate": epochs(7), "teacher": {"wide-a": {"loss": "mse"}}}
    write(two, scales={"wide": changes})
    assert {node.address for node in plan_at(two, "tiny").missing(["table2"])} == before


# What fits scale `wide` alone, and the message where it stands in general.
FOREIGN = {
    "a teacher": ({"teacher": {"wide-a": {"training": {"epochs": 3}}}}, "teacher.wide-a"),
    "a table": ({"grid": {"wide/table": {"ipc": [3]}}}, "grid.wide/table"),
    "a data set": ({"datasets": {"wider": {"size": 8}}}, "datasets.wider"),
    "a label": ({"label": {"widest": {"teachers": ["wide-a"]}}}, "label.widest"),
}


@pytest.mark.parametrize(("changes", "place"), FOREIGN.values(), ids=FOREIGN)
def test_a_change_that_fits_another_scale_only_is_told_where_it_belongs(changes, place, two):
    file = two / "workflow/scales/wide.yaml"
    scale = yaml.safe_load(file.read_text())
    scale["tables"]["wide/table"] = scale["tables"]["infer/table2"]
    scale["datasets"]["wider"] = scale["datasets"]["digits"]
    scale["label"]["widest"] = scale["label"]["static"]
    file.write_text(yaml.safe_dump(scale))
    tables = two / "workflow/tables"
    (tables / "wide").mkdir()
    shutil.copy(tables / "infer/table2.yaml", tables / "wide/table.yaml")
    write(two, **changes)
    with pytest.raises(PlanError) as error:
        plan_at(two, "tiny")
    message = str(error.value)
    assert message.startswith(f"params.yaml.{place}: ")
    assert message.endswith(f"; scale 'wide' has it: move it to `scales.wide.{place}`")
    plan_at(two, "wide").missing(["table2"])
    write(two, **{key: {} for key in changes}, scales={"wide": changes})
    for scale in ("tiny", "wide"):
        plan_at(two, scale).missing(["table2"])


def test_a_change_that_fits_no_scale_has_no_such_advice(two):
    write(two, teacher={"nett": {}})
    with pytest.raises(PlanError, match=r"^params.yaml.teacher.nett: no such block") as error:
        plan_at(two, "tiny")
    assert "scales" not in str(error.value)


def test_an_ipc_of_another_scale_is_told_where_it_belongs(two):
    override = {"static": {"per_ipc": {6: {"training": {"epochs": 3}}}}}
    write(two, evaluate=override)
    with pytest.raises(PlanError, match=r"static\.per_ipc\.6: matches nothing.*in `scales`$"):
        plan_at(two, "tiny")
    write(two, evaluate={}, scales={"wide": {"evaluate": override}})
    assert trainings(plan_at(two, "tiny"), "epochs") == {2}
    assert trainings(plan_at(two, "wide"), "epochs") == {3}
    write(two, evaluate={}, scales={"tiny": {"evaluate": override}})
    with pytest.raises(PlanError, match=r"^params.yaml.scales.tiny.evaluate.*nothing") as error:
        plan_at(two, "tiny")
    assert "`scales`" not in str(error.value)


# --- mistakes in a block, at the scale it is for and at the other one

WRONG = {
    "a scale that does not exist": (
        {"tniy": {}},
        "scales.tniy: no such scale: did you mean 'tiny'",
    ),
    "a misspelt key": (
        {"wide": {"studentz": 3}},
        "scales.wide.studentz: unknown key: did you mean",
    ),
    "a value of a wrong type": ({"wide": {"students": "3"}}, "scales.wide.students = '3'"),
    "no block": ({"wide": None}, "scales.wide = None"),
    "a scale within": ({"wide": {"scale": "tiny"}}, "scales.wide.scale: stands beside `scales`"),
    "scales within": ({"wide": {"scales": {}}}, "scales.wide.scales: stands beside `scales`"),
    "no tables": ({"wide": {"tables": []}}, "scales.wide.tables"),
}


@pytest.mark.parametrize("scale", ["tiny", "wide"])
@pytest.mark.parametrize(("scales", "start"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_the_shape_of_a_block_is_said_at_every_scale(scales, start, scale, two):
    write(two, scales=scales)
    with pytest.raises(PlanError) as error:
        plan_at(two, scale)
    assert str(error.value).startswith(f"params.yaml.{start}")


CONTENT = {
    "a network": {"teacher": {"nett": {}}},
    "a field": {"evaluate": {"static": {"training": {"epocs": 3}}}},
    "a table of the grid": {"grid": {"table9": {"ipc": [3]}}},
    "a table": {"tables": ["table99"]},
    "a row": {"grid": {"table2": {"rows": ["Randm"]}}},
    "a data set": {"datasets": {"digit": {"size": 3}}},
}


@pytest.mark.parametrize("changes", CONTENT.values(), ids=CONTENT)
def test_a_name_that_is_wrong_in_a_block_stops_its_scale_alone_and_names_the_block(changes, two):
    write(two, scales={"wide": changes})
    plan_at(two, "tiny").missing(["table2"])
    with pytest.raises(PlanError, match=r"^params\.yaml\.scales\.wide\."):
        plan_at(two, "wide").missing(["table2"])


# --- explain, prune, the command line, the engines


def test_explain_names_the_block_and_what_it_beat(two):
    write(two, evaluate=epochs(9), scales={"tiny": {"evaluate": epochs(7), "students": 1}})
    settings = Settings(two)
    assert list(explain_value(settings, Question(f"{TRAINING}.epochs"))) == [
        f"{TRAINING}.epochs = 7",
        f"  set by params.yaml for this scale: params.yaml.scales.tiny.{TRAINING}.epochs",
        f"  over 9, set by params.yaml: params.yaml.{TRAINING}.epochs",
        f"  over 2, set by the scale: workflow/scales/tiny.yaml.{TRAINING}.epochs",
    ]
    assert list(explain_value(settings, Question("students"))) == [
        "students = 1",
        "  set by params.yaml for this scale: params.yaml.scales.tiny.students",
        "  over 2, set by params.yaml: params.yaml.students",
    ]


def test_what_a_block_reaches_is_kept_whatever_the_scale(two):
    write(two, scales={"wide": {"evaluate": epochs(7)}, "tiny": {"grid": {"table2": {"ipc": [4]}}}})
    changed = plan_at(two, "wide").missing(["table2"])
    cut, unknown = plan_at(two, "tiny").missing(["table2"]), "evaluate/nothing-0"
    full = Plan(two, {"scale": "tiny", "tables": ["table2"], "students": 2}).missing(["table2"])
    assert {n.address for n in full} - {n.address for n in cut}
    for address in [*(node.address for node in [*changed, *cut, *full]), unknown]:
        folder = two / "results/store" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "meta.json").write_text("{}")
    assert unreachable(every_plan(two)) == [two / "results/store" / unknown]


def test_the_command_line_wins_over_a_block(two):
    write(two, scales={"tiny": {"students": 5, "evaluate": epochs(7)}})
    said = {"students": 1, "evaluate": epochs(8)}
    params = yaml.safe_load((two / "params.yaml").read_text())
    plan = Plan(two, params | said, said)
    assert (plan.settings.params.students, trainings(plan, "epochs")) == (1, {8})
    assert trainings(Plan(two, params), "epochs") == {7}


def test_snakemake_reads_the_block_and_its_command_line_wins(two):
    write(two, scales={"tiny": {"students": 4}, "wide": {"teacher": {"wide-a": {}}}})

    def planned(*words: str) -> int:
        text = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", *words],
            cwd=two,
            capture_output=True,
            text=True,
            check=True,
        )
        (line,) = {
            line
            for line in (text.stdout + text.stderr).splitlines()
            if line.startswith("evaluate ")
        }
        return int(line.split()[1])

    assert planned("results/table2.csv") == 8
    assert planned("results/table2.csv", "--config", "students=1") == 2


def test_the_projects_own_params_have_an_empty_block_and_dvc_watches_the_whole_file():
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["scales"] == {}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages["plan"]["params"] == [{"params.yaml": None}]
