"""Which layer of settings wins, and what the plan keeps apart: data sets, and the table's code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.errors import PlanError
from distillery.plan.plan import Plan
from helpers.planning import planned
from helpers.rewording import add_unused, reword

# --- layers ---------------------------------------------------------------------------------------

LAYERS = ("scale", "data set", "params.yaml", "row")  # a later one wins


def write_layers(project: Path, blocks: dict[str, dict]) -> Plan:
    """The plan of a project where each layer of `blocks` says this of evaluate.static."""
    scale_file = project / "workflow/scales/tiny.yaml"
    scale = yaml.safe_load(scale_file.read_text())
    loss = {"name": "kl", "temperature": 4.0}
    scale["evaluate"]["static"] = {"loss": loss, **training(9), **blocks.get("scale", {})}
    scale["datasets"]["digits"]["evaluate"] = {"static": blocks.get("data set", {})}
    # a second budget and student at this scale, for overrides that must not apply
    scale["tables"]["infer/table1"] = {"dataset": ["digits"], "student": ["net-b"], "ipc": [7]}
    scale_file.write_text(yaml.safe_dump(scale))
    table_file = project / "workflow/tables/infer/table2.yaml"
    table = yaml.safe_load(table_file.read_text())
    table["rows"][1]["override"] = {"evaluate": blocks.get("row", {})}
    table_file.write_text(yaml.safe_dump(table))
    return planned(project, evaluate={"static": blocks.get("params.yaml", {})})


def epochs(plan: Plan) -> int:
    """Of the students of the row INFER, whose protocol is evaluate.static."""
    found = {
        node.spec.recipe["training"]["epochs"]
        for node in plan.missing(["table2"])
        if node.spec.stage == "evaluate" and node.spec.recipe["labels"]["name"] == "static"
    }
    (only,) = found
    return only


def training(number: int) -> dict:
    return {"training": {"epochs": number, "batch": 32, "augment": [], "test_every": 2}}


@pytest.mark.parametrize("last", range(len(LAYERS)))
def test_the_last_layer_that_says_a_value_wins(project, last):
    blocks = {layer: training(10 + number) for number, layer in enumerate(LAYERS[: last + 1])}
    assert epochs(write_layers(project, blocks)) == 10 + last


@pytest.mark.parametrize("layer", LAYERS)
def test_in_every_layer_an_override_per_student_wins_over_one_per_ipc(project, layer):
    plain = training(10)
    per_ipc = {"per_ipc": {5: training(11), 7: training(12)}}
    per_student = {"per_student": {"net-a": training(13), "net-b": training(14)}}
    assert epochs(write_layers(project, {layer: plain | per_ipc})) == 11
    assert epochs(write_layers(project, {layer: plain | per_student})) == 13
    assert epochs(write_layers(project, {layer: plain | per_student | per_ipc})) == 13


@pytest.mark.parametrize("layer", LAYERS)
def test_in_every_layer_an_override_per_ipc_wins_over_one_per_dataset(project, layer):
    plain, per_ipc = training(10), {"per_ipc": {5: training(11)}}
    per_dataset = {"per_dataset": {"digits": training(12)}}
    assert epochs(write_layers(project, {layer: plain | per_dataset})) == 12
    assert epochs(write_layers(project, {layer: plain | per_dataset | per_ipc})) == 11
    within = {"per_dataset": {"digits": training(12) | {"per_ipc": {5: training(13)}}}}
    assert epochs(write_layers(project, {layer: plain | within})) == 13


@pytest.mark.parametrize("override", [{"per_ipc": {5: {}}}, {"per_student": {"net-a": {}}}])
@pytest.mark.parametrize("lower", range(len(LAYERS) - 1))
def test_a_plain_value_wins_over_the_overrides_of_the_layers_below_it(project, lower, override):
    special = {axis: {key: training(11) for key in keys} for axis, keys in override.items()}
    blocks = {LAYERS[lower]: special, LAYERS[lower + 1]: training(12)}
    assert epochs(write_layers(project, blocks)) == 12


def test_a_value_of_an_axis_wins_over_the_row(project):
    write_layers(project, {"row": training(11)})
    table_file = project / "workflow/tables/infer/table2.yaml"
    table = yaml.safe_load(table_file.read_text())
    table |= {"columns": ["student", "ipc", "epochs"], "paper": {}}
    table["axes"] = {"epochs": {"sets": "evaluate.training.epochs"}}
    table_file.write_text(yaml.safe_dump(table))
    assert epochs(planned(project, grid={"table2": {"epochs": [12]}})) == 12


# --- data sets ------------------------------------------------------------------------------------


def test_each_data_set_has_teachers_of_its_own(project):
    other = {"source": "sklearn:digits", "mean": [0.4], "std": [0.3]}
    expected = {"classes": 10, "train": 1437, "test": 360, "shape": [1, 8, 8]}
    plan = planned(
        project,
        datasets={"other": other | {"expected": expected}},
        grid={"table2": {"dataset": ["digits", "other"]}},
    )
    nodes = plan.missing(["table2"])
    data = {node.dataset: node.address for node in nodes if node.spec.stage == "data"}
    assert data.keys() == {"digits", "other"} and data["digits"] != data["other"]
    teachers = {n.spec.label: n.spec.inputs["data"] for n in nodes if n.spec.stage == "teacher"}
    assert teachers == {
        f"{dataset}-{network}": data[dataset]
        for dataset in ("digits", "other")
        for network in ("net-a", "net-b")
    }


# --- code of the table ----------------------------------------------------------------------------


def document(project: Path) -> str:
    """What `distillery plan --write` says of table2, with the code of the project's own folder."""
    command = [sys.executable, "-m", "distillery", "plan", "--write", "table2"]
    environment = {"PYTHONPATH": str(project / "src")}
    subprocess.run(command, cwd=project, check=True, capture_output=True, env=environment)
    return (project / "results/plan/table2.json").read_text()


def test_an_edit_of_the_tables_code_is_another_plan_and_a_comment_is_none(project):
    before = document(project)
    code = project / "src/distillery/stages/table.py"
    code.write_text(f"{code.read_text()}\n# a comment\n")
    assert document(project) == before
    add_unused(code)
    assert document(project) == before
    reword(code)
    after = document(project)
    assert after != before
    told_apart = {k for k, v in json.loads(after).items() if json.loads(before)[k] != v}
    assert told_apart == {"code"}


UNMATCHED = {
    "a student": ("per_student: {net-z: {training: {epochs: 3}}}", "net-z", "did you mean 'net-"),
    "an ipc": ("per_ipc: {8: {training: {epochs: 3}}}", "per_ipc.8", "(valid: 5)"),
    "a data set": (
        "per_dataset: {digit: {training: {epochs: 3}}}",
        "per_dataset.digit",
        "did you mean 'digits'",
    ),
    "a student of an ipc": (
        "per_ipc: {5: {per_student: {net-z: {training: {epochs: 3}}}}}",
        "per_ipc.5.per_student.net-z",
        "did you mean 'net-",
    ),
}


@pytest.mark.parametrize("file", ["params.yaml", "workflow/scales/tiny.yaml"])
@pytest.mark.parametrize(("block", "place", "hint"), UNMATCHED.values(), ids=UNMATCHED)
def test_an_override_that_matches_nothing_is_an_error(file, block, place, hint, project, edit):
    if file == "params.yaml":
        edit(project / file, "evaluate: {}", f"evaluate: {{static: {{{block}}}}}")
    else:
        edit(project / file, "  static: {loss", f"  static: {{{block}, loss")
    with pytest.raises(PlanError) as error:
        Plan(project)
    message = str(error.value)
    assert message.startswith(f"{file}.evaluate.static.") and place in message
    assert "matches nothing" in message and hint in message


def test_an_override_of_a_student_or_ipc_that_there_is_counts(project, edit):
    block = "per_ipc: {5: {training: {epochs: 3}}}, per_student: {net-a: {training: {batch: 16}}}"
    edit(project / "params.yaml", "evaluate: {}", f"evaluate: {{static: {{{block}}}}}")
    (cell,) = [c for c in Plan(project).cells("table2") if c.row.row == "INFER"]
    training = cell.students[0].spec.recipe["training"]
    assert (training["epochs"], training["batch"]) == (3, 16)
