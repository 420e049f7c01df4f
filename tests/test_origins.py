"""Where a value comes from: the order of layers, `distillery explain`, errors with the place."""

import itertools
from dataclasses import dataclass

import pytest
import yaml

from distillery.cli import main
from distillery.errors import PlanError
from distillery.plan.plan import Plan
from distillery.plan.settings import merge
from distillery.plan.types import component, validated
from distillery.training.recipe import Training
from helpers.planning import planned, settings_with
from helpers.project import ROOT


@dataclass
class Point:
    ipc: float
    student: str | None


POINT = Point(50, "net")
# What a user may write below a block, the weakest first.
WITHIN = ("general", "ipc", "student")
LAYERS = [
    (layer, within) for layer in ("scale", "data set", "params.yaml", "row") for within in WITHIN
]


def block(within: str, value: str) -> dict:
    return {
        "general": {"a": value},
        "ipc": {"per_ipc": {50: {"a": value}, 10: {"a": "of another ipc"}}},
        "student": {"per_student": {"net": {"a": value}, "other": {"a": "of another student"}}},
    }[within]


def resolved(tmp_path, *chosen: tuple[str, str], point: Point | None = POINT):
    """The recipe `evaluate.own` when each of these layers sets `a` to its own name."""
    said: dict = {layer: {} for layer, _ in LAYERS}
    for layer, within in chosen:
        said[layer] = merge(said[layer], block(within, f"{layer} {within}"))
    scale = {
        "evaluate": {"own": said["scale"]},
        "datasets": {"one": {"evaluate": {"own": said["data set"]}}},
    }
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    settings = settings_with(folder, scale, {"evaluate": {"own": said["params.yaml"]}})
    return settings.recipe("evaluate", "own", "one", {"evaluate": said["row"]}, point)


@pytest.mark.parametrize(
    ("low", "high"),
    list(itertools.combinations(LAYERS, 2)),
    ids=lambda layer: "-".join(layer).replace(" ", ""),
)
def test_of_two_layers_the_later_one_wins(tmp_path, low, high):
    assert resolved(tmp_path, low, high)["a"] == " ".join(high)


def test_overrides_are_of_their_own_ipc_and_student(tmp_path):
    everywhere = resolved(tmp_path, *LAYERS, point=Point(20, "third"))
    assert everywhere["a"] == "row general"
    special = [layer for layer in LAYERS if layer[1] != "general"]
    assert "a" not in resolved(tmp_path, *special, point=Point(20, None))
    assert "a" not in resolved(tmp_path, *special, point=None)


def test_a_students_override_may_stand_in_one_of_an_ipc(tmp_path):
    both = {"per_ipc": {50: {"a": 2, "per_student": {"net": {"a": 3}}}}, "a": 1}
    settings = settings_with(tmp_path, {"evaluate": {"own": both}})
    found = [
        settings.recipe("evaluate", "own", "one", {}, point)["a"]
        for point in (Point(10, "net"), Point(50, None), POINT)
    ]
    assert found == [1, 2, 3]


def test_another_component_takes_no_fields_of_the_earlier_one(tmp_path):
    scale = {"evaluate": {"own": {"loss": {"name": "one", "a": 1}, "kept": {"b": 2}}}}
    params = {"evaluate": {"own": {"loss": {"name": "two"}, "kept": {"c": 3}}}}
    settings = settings_with(tmp_path, scale, params)
    recipe = settings.recipe("evaluate", "own", "one", {})
    assert recipe == {"loss": {"name": "two"}, "kept": {"b": 2, "c": 3}}
    assert str(recipe.where / "loss" / "missing") == "params.yaml.evaluate.own.loss.missing"
    place = "workflow/scales/small.yaml.evaluate.own.kept"
    assert [str(recipe.where / "kept" / key) for key in "bcd"] == [
        f"{place}.b",
        "params.yaml.evaluate.own.kept.c",
        f"{place}.d",
    ]


# --- distillery explain

TABLE9 = """
title: "own axes"
panel: dataset
columns: [student, ipc, optimizer, lr]
axes:
  optimizer: {values: {plain: {evaluate: {training: {optimizer: {name: sgd}}}}}}
  lr: {sets: evaluate.training.optimizer.lr}
rows:
  - {row: plain, method: random, labels: hard}
  - {row: long, method: random, labels: hard, override: {evaluate: {training: {epochs: 7}}}}
"""
GRID9 = "{dataset: [digits], student: [net-a], ipc: [5], optimizer: [plain], lr: [0.5]}"
TINY = "workflow/scales/tiny.yaml"
EPOCHS = "evaluate.hard.training.epochs"


@pytest.fixture
def layered(project, edit):
    """The tiny project with a table of its own axes, and one value set in every layer."""
    (project / "workflow/tables/infer/table9.yaml").write_text(TABLE9)
    special = "evaluate: {hard: {per_ipc: {5: {training: {epochs: 4}}}, training: {epochs: 3}}}"
    edit(project / TINY, "source: sklearn:digits", f"source: sklearn:digits\n    {special}")
    edit(project / TINY, "tables:\n", f"tables:\n  infer/table9: {GRID9}\n")
    (project / "params.yaml").write_text(
        (project / "params.yaml")
        .read_text()
        .replace(
            "evaluate: {}", "evaluate: {hard: {per_student: {net-a: {training: {epochs: 6}}}}}"
        )
    )
    return project


def explain(capsys, root, *arguments: str) -> str:
    assert main(["explain", *arguments, "--root", str(root)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refusal(capsys, root, *arguments: str) -> str:
    assert main(["explain", *arguments, "--root", str(root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_value_its_layer_and_the_layers_it_beat(layered, capsys):
    of_dataset = f"{TINY}.datasets.digits.evaluate.hard"
    lines = [
        "  over 3, set by the data set: {of_dataset}.training.epochs",
        f"  over 2, set by the scale: {TINY}.{EPOCHS}",
    ]
    lines[0] = lines[0].format(of_dataset=of_dataset)
    assert explain(capsys, layered, EPOCHS).splitlines() == [
        f"{EPOCHS} = 3",
        lines[0].replace("over 3, ", ""),
        lines[1],
    ]
    ipc = f"set by the data set: {of_dataset}.per_ipc.5.training.epochs"
    assert explain(capsys, layered, EPOCHS, "--dataset", "digits", "--ipc", "5").splitlines() == [
        f"{EPOCHS} = 4",
        f"  {ipc}",
        *lines,
    ]
    params = "set by params.yaml: params.yaml.evaluate.hard.per_student.net-a.training.epochs"
    at = ("--ipc", "5", "--student", "net-a")
    assert explain(capsys, layered, EPOCHS, *at).splitlines() == [
        f"{EPOCHS} = 6",
        f"  {params}",
        f"  over 4, {ipc}",
        *lines,
    ]
    row = "workflow/tables/infer/table9.yaml: row 'long': override.evaluate.training.epochs"
    of_row = explain(capsys, layered, EPOCHS, *at, "--table", "table9", "--row", "long")
    assert of_row.splitlines() == [
        f"{EPOCHS} = 7",
        f"  set by the row: {row}",
        f"  over 6, {params}",
        f"  over 4, {ipc}",
        *lines,
    ]


def test_a_layer_that_says_the_same_is_listed_too(layered, edit, capsys):
    edit(layered / "params.yaml", "evaluate: {", "evaluate: {dynamic: {training: {epochs: 2}}, ")
    assert explain(capsys, layered, "evaluate.dynamic.training.epochs").splitlines() == [
        "evaluate.dynamic.training.epochs = 2",
        "  set by params.yaml: params.yaml.evaluate.dynamic.training.epochs",
        f"  over 2, set by the scale: {TINY}.evaluate.dynamic.training.epochs",
    ]


def test_what_the_axes_of_a_table_set(layered, capsys):
    row = ("--table", "table9", "--row", "plain")
    axes = ("--axis", "optimizer=plain", "--axis", "lr=0.5")
    found = explain(capsys, layered, "evaluate.hard.training.optimizer", *row, *axes).splitlines()
    start, file = "evaluate.hard.training.optimizer", "workflow/tables/infer/table9.yaml"
    assert found[:4] == [
        f"{start}.name = sgd",
        f"  set by the axis optimizer: {file}.axes.optimizer.values.plain."
        "evaluate.training.optimizer.name",
        f"{start}.lr = 0.5",
        f"  set by the axis lr: {TINY}.tables.infer/table9.lr",
    ]
    plain = explain(capsys, layered, f"{start}.lr", *row).splitlines()
    assert plain == [
        f"{start}.lr = 0.001",
        "  default of Optimizer.lr (distillery/training/recipe.py)",
    ]


def test_rows_and_axes_beat_all_files_and_axes_beat_rows(layered, edit, capsys):
    key, file = "evaluate.hard.training.optimizer.lr", "workflow/tables/infer/table9.yaml"
    optimizer = "optimizer: {name: adamw, lr: 0.3}"
    edit(layered / file, "epochs: 7", f"epochs: 7, {optimizer}")
    own = "{hard: {training: {optimizer: {lr: 0.2}}}}"
    edit(layered / "params.yaml", "{hard: {per_student: {net-a: {training: {epochs: 6}}}}}", own)
    row = ("--table", "table9", "--row", "long", "--axis", "lr=0.5")
    assert explain(capsys, layered, key, *row).splitlines() == [
        f"{key} = 0.5",
        f"  set by the axis lr: {TINY}.tables.infer/table9.lr",
        f"  over 0.3, set by the row: {file}: row 'long': override.evaluate.training.optimizer.lr",
        f"  over 0.2, set by params.yaml: params.yaml.{key}",
    ]


def test_a_row_changes_no_teacher(layered, edit, capsys):
    file = layered / "workflow/tables/infer/table9.yaml"
    edit(file, "{evaluate: {training: {epochs: 7}}}", "{teacher: {training: {epochs: 7}}}")
    row = ("--table", "table9", "--row", "long")
    found = explain(capsys, layered, "teacher.net-a.training.epochs", *row)
    assert found.splitlines()[0] == "teacher.net-a.training.epochs = 2"
    teachers = [node for node in Plan(layered).missing(["table2"]) if node.spec.stage == "teacher"]
    assert {node.spec.recipe["training"]["epochs"] for node in teachers} == {2}


def test_a_block_whose_name_holds_a_dot(layered, edit, capsys):
    edit(
        layered / TINY,
        "  dynamic: {loss",
        "  static.long: {training: {epochs: 9, batch: 1}}\n  dynamic: {loss",
    )
    for block, epochs in (("static", 2), ("static.long", 9)):
        key = f"evaluate.{block}.training.epochs"
        assert explain(capsys, layered, key).splitlines()[0] == f"{key} = {epochs}"


def test_a_default_names_the_class_that_has_it(layered, capsys):
    assert explain(capsys, layered, "evaluate.hard.training.micro_batch") == (
        "evaluate.hard.training.micro_batch = null\n"
        "  default of Training.micro_batch (distillery/training/recipe.py)\n"
    )
    inherited = explain(capsys, ROOT, "distill.rat-bptt.clip", "--scale", "demo")
    assert "default of Unrolled.clip (distillery/methods/shared/recipes.py)" in inherited
    own = explain(capsys, ROOT, "distill.bptt.inner_lr", "--scale", "demo")  # a default of its own
    assert "default of Recipe.inner_lr (distillery/methods/bptt.py)" in own
    assert "default of Recipe.natural_instances (distillery/methods/infer.py)" in explain(
        capsys, layered, "distill.infer.natural_instances"
    )
    assert explain(capsys, layered, "environment") == (
        "environment = 1\n  default of Params.environment (distillery/plan/models.py)\n"
    )


def test_the_beginning_of_a_key_gives_all_values_below(layered, capsys):
    keys = [
        line.split(" = ")[0]
        for line in explain(capsys, layered, "evaluate.static").splitlines()
        if not line.startswith("  ")
    ]
    assert len(keys) == len(set(keys)) > 20
    assert all(key.startswith("evaluate.static.") for key in keys)
    for key in ("loss.name", "loss.temperature", "training.epochs", "training.schedule.gamma"):
        assert f"evaluate.static.{key}" in keys
    trained = explain(capsys, layered, "teacher.net-b.training.optimizer.lr")
    assert trained.splitlines()[0].endswith("= 0.1")


def test_keys_beside_recipes(layered, capsys):
    source = explain(capsys, layered, "datasets.digits.source")
    assert source.splitlines()[1] == f"  set by the scale: {TINY}.datasets.digits.source"
    params = layered / "params.yaml"
    changed = merge(
        yaml.safe_load(params.read_text()),
        {"networks": {"net-a": {"width": 8}}, "grid": {"table2": {"ipc": [7]}}},
    )
    params.write_text(yaml.safe_dump(changed))
    assert explain(capsys, layered, "networks.net-a.width").splitlines() == [
        "networks.net-a.width = 8",
        "  set by params.yaml: params.yaml.networks.net-a.width",
        f"  over 4, set by the scale: {TINY}.networks.net-a.width",
    ]
    assert explain(capsys, layered, "tables.infer/table2.ipc").splitlines() == [
        "tables.infer/table2.ipc = [7]",
        "  set by params.yaml: params.yaml.grid.table2.ipc",
        f"  over [5], set by the scale: {TINY}.tables.infer/table2.ipc",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate.statc.training"],
            "evaluate.statc.training: no such block: did you mean 'static'",
        ),
        (["evaluate"], "evaluate: no such block:"),
        (["evaluate.hard.training.epoch"], "did you mean 'evaluate.hard.training.epochs'?"),
        (["student"], "student: is set nowhere and has no default: did you mean 'students'?"),
        ([EPOCHS, "--dataset", "digit"], "dataset 'digit' does not exist: did you mean 'digits'?"),
        ([EPOCHS, "--table", "table9"], "--table and --row: give both, or none"),
        ([EPOCHS, "--table", "table9", "--row", "lng"], "has no row 'lng': did you mean 'long'?"),
        (
            ["evaluate.static.loss", "--table", "table9", "--row", "long"],
            "evaluate.static: row 'long' reads evaluate.hard",
        ),
        (
            [EPOCHS, "--table", "table9", "--row", "long", "--axis", "ipc=5"],
            "--axis: table 'infer/table9' has no axis 'ipc' of its own",
        ),
        ([EPOCHS, "--axis", "lr"], "--axis 'lr': write axis=value"),
    ],
)
def test_a_question_without_an_answer_is_one_line(layered, capsys, arguments, message):
    assert message in refusal(capsys, layered, *arguments)


# --- errors


def broken(root, text: str) -> str:
    with pytest.raises(PlanError) as error:
        Plan(root).missing([text])
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (
            "evaluate: {hard: {per_ipc: {5: {training: {epochs: 4}}}",
            "evaluate: {hard: {per_ipc: {5: {training: {epochs: 0}}}",
            "datasets.digits.evaluate.hard.per_ipc.5.training.epochs = 0:",
        ),
        ("width: 4", "width: 0", "networks.net-a.width = 0:"),
        ("train: 1437", "train: 0", "datasets.digits.expected.train = 0:"),
        ("lr: [0.5]", "lr: [-0.5]", "tables.infer/table9.lr = -0.5:"),
        ("ipc: [5], optimizer", "ipc: [0], optimizer", "tables.infer/table9.ipc: ipc 0 on"),
        ("lr: [0.5]", "lr: {digits: [-0.5]}", "tables.infer/table9.lr.digits = -0.5:"),
        (
            "student: [net-a], ipc: [5], o",
            "student: [net-q], ipc: [5], o",
            "tables.infer/table9.student: network 'net-q' does not exist",
        ),
        (
            "dataset: [digits], student: [net-a], ipc: [5], o",
            "dataset: [digts], student: [net-a], ipc: [5], o",
            "tables.infer/table9.dataset: dataset 'digts' does not exist",
        ),
    ],
)
def test_an_error_in_the_scale_names_the_block_that_sets_the_value(layered, edit, old, new, place):
    edit(
        layered / "params.yaml",
        "evaluate: {hard: {per_student: {net-a: {training: {epochs: 6}}}}}",
        "",
    )
    edit(layered / TINY, old, new)
    assert broken(layered, "table9").startswith(f"{TINY}.{place}")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            {"evaluate": {"hard": {"per_student": {"net-a": {"training": {"epochs": 0}}}}}},
            "evaluate.hard.per_student.net-a.training.epochs = 0:",
        ),
        ({"datasets": {"digits": {"size": -1}}}, "datasets.digits.size = -1:"),
        ({"datasets": {"digits": {"chanels": 1}}}, "datasets.digits.chanels: unknown key"),
        ({"networks": {"net-a": {"width": 0}}}, "networks.net-a.width = 0:"),
        ({"grid": {"table2": {"ipc": [0]}}}, "grid.table2.ipc: ipc 0 on 'digits'"),
        (
            {"distill": {"infer": {"teachers": ["resnet19"]}}},
            "distill.infer.teachers: network 'resnet19' does not exist",
        ),
        (
            {"distill": {"infer": {"teachers": "ensemble:9"}}},
            "distill.infer.teachers = 'ensemble:9'",
        ),
        (
            {"evaluate": {"hard": {"per_ipc": {5: [1]}}}},
            "evaluate.hard.per_ipc = {5: [1]}: expected",
        ),
        (
            {
                "evaluate": {
                    "hard": {"training": {"mix": {"name": "mixup"}}, "loss": {"name": "kl"}}
                }
            },
            "evaluate.hard.loss = 'kl': needs soft labels",
        ),
        (
            {
                "evaluate": {
                    "static": {"training": {"mix": {"name": "mixup"}}, "loss": {"name": "nkd"}}
                }
            },
            "evaluate.static.training.mix.name = 'mixup': loss 'nkd' is not defined",
        ),
    ],
)
def test_an_error_in_params_names_params(project, change, place):
    with pytest.raises(PlanError) as error:
        planned(project, **change).missing(["table2"])
    assert str(error.value).startswith(f"params.yaml.{place}")


def test_an_error_in_a_row_names_the_row_and_one_of_an_axis_the_axis(layered, edit):
    file = layered / "workflow/tables/infer/table9.yaml"
    edit(file, "{name: sgd}", "{name: sgdd}")
    start = "workflow/tables/infer/table9.yaml"
    place = "axes.optimizer.values.plain.evaluate.training.optimizer.name = 'sgdd'"
    assert broken(layered, "table9").startswith(f"{start}.{place}")
    edit(file, "{name: sgdd}", "{name: sgd}")
    edit(file, "epochs: 7", "epochs: 0")
    place = "row 'long': override.evaluate.training.epochs = 0"
    assert broken(layered, "table9").startswith(f"{start}: {place}")


# --- keys of earlier versions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"evaluate": {"hard": {"at_ipc": {5: {}}}}},
            "evaluate.hard.at_ipc: is called 'per_ipc' now",
        ),
        (
            {"distill": {"infer": {"at_student": {}}}},
            "distill.infer.at_student: is called 'per_student' now",
        ),
        ({"teacher": {"net-a": {"at_ipc": {}}}}, "teacher.net-a.at_ipc: is called 'per_ipc' now"),
        (
            {"distill": {"infer": {"together": 2}}},
            "infer.together: is called 'parallel_groups' now",
        ),
        (
            {"datasets": {"digits": {"facts": {}}}},
            "datasets.digits.facts: is called 'expected' now",
        ),
    ],
)
def test_an_old_key_of_params_names_the_new_one(project, change, message):
    with pytest.raises(PlanError) as error:
        planned(project, **change).missing(["table2"])
    assert str(error.value).startswith("params.yaml.") and message in str(error.value)


def test_an_old_key_of_a_scale_or_a_row_names_the_new_one(layered, edit):
    edit(layered / TINY, "networks:", "stand_ins: {}\nnetworks:")
    assert broken(layered, "table9") == f"{TINY}.stand_ins: is called 'network_aliases' now"
    edit(layered / TINY, "stand_ins: {}\n", "")
    file = layered / "workflow/tables/infer/table9.yaml"
    edit(file, "training: {epochs: 7}", "at_ipc: {5: {training: {epochs: 7}}}")
    assert broken(layered, "table9") == (
        "workflow/tables/infer/table9.yaml: row 'long': override.evaluate.at_ipc: "
        "is called 'per_ipc' now"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("longest", "inner_steps"),
        ("offset", "window_start"),
        ("of_each", "step_ipc"),
        ("chosen", "step_classes"),
    ],
)
def test_old_fields_of_unrolled_methods(old, new):
    with pytest.raises(PlanError, match=rf"here\.{old}: is called '{new}' now"):
        component("method", {"name": "rat-bptt", old: 3}, "here")


def test_an_old_key_is_named_before_a_key_that_is_missing():
    with pytest.raises(PlanError, match=r"^here\.at_ipc: is called 'per_ipc' now$"):
        validated(Training, {"epochs": 1, "at_ipc": {10: {"batch": 5}}}, "here")
