"""Grids of tables: axes, ensembles, recipes by ipc, published counterparts, numbers of jobs."""

from collections import Counter

import pytest

from distillery.errors import PlanError
from distillery.plan.axes import counterpart, grid
from distillery.plan.cell import Experiment
from distillery.plan.cost import Estimator
from distillery.plan.plan import Plan
from distillery.plan.types import validated
from distillery.training.recipe import Training
from helpers.planning import at, settings_with
from helpers.project import ROOT

# --- axes -----------------------------------------------------------------------------------------


def test_an_axis_may_differ_from_panel_to_panel():
    axes = {"dataset": ["a", "b"], "ipc": {"a": [10, 50], "b": [10]}}
    places = grid(axes, ["dataset", "ipc"], "here")
    assert [tuple(place.values()) for place in places] == [("a", 10), ("a", 50), ("b", 10)]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"dataset": ["a"], "ipc": {"b": [10]}}, "here.ipc: has no values for 'a'"),
        ({"dataset": ["a"], "ipc": {"a": []}}, r"here.ipc.a = \[\]: needs at least one value"),
        ({"dataset": ["a", "a"], "ipc": [10]}, "here.dataset"),
        ({"dataset": ["a"], "ipc": {"a": ["ten"]}}, "'ten' is no number"),
    ],
)
def test_a_wrong_axis_is_named(axes, message):
    with pytest.raises(PlanError, match=message):
        grid(axes, ["dataset", "ipc"], "here")


def test_a_place_stands_for_itself_or_for_the_papers_place_with_the_same_index():
    paper = {
        "dataset": ["cifar10", "cifar100"],
        "ipc": {"cifar10": [10, 50], "cifar100": [10, 50, 100]},
    }
    order = ["dataset", "ipc"]

    def stands_for(dataset, ipc, ipcs):
        return counterpart(
            {"dataset": dataset, "ipc": ipc}, {"dataset": [dataset], "ipc": ipcs}, paper, order
        )

    assert stands_for("cifar100", 10, [50, 10]) == {"dataset": "cifar100", "ipc": 10}
    assert stands_for("digits", 5, [5, 7]) == {"dataset": "cifar10", "ipc": 10}
    assert stands_for("digits", 7, [5, 7]) == {"dataset": "cifar10", "ipc": 50}
    assert stands_for("digits", 9, [5, 7, 9]) is None  # cifar10 has no third budget
    assert counterpart({"dataset": "digits"}, {"dataset": ["digits"]}, {}, ["dataset"]) is None


# --- recipes --------------------------------------------------------------------------------------


def test_the_ensemble_and_its_first_networks(tmp_path):
    block = {"x": {"teachers": "ensemble"}, "y": {"teachers": "ensemble:2"}}
    settings = settings_with(
        tmp_path,
        {"distill": block, "datasets": {"two": {"source": "sklearn:digits", "ensemble": ["d"]}}},
    )
    one, two = "one", "two"
    assert settings.recipe("distill", "x", one, {})["teachers"] == ["a", "b", "c"]
    assert settings.recipe("distill", "y", one, {})["teachers"] == ["a", "b"]
    assert settings.recipe("distill", "x", two, {})["teachers"] == ["d"]
    with pytest.raises(
        PlanError,
        match=r"small.yaml.distill.y.teachers = 'ensemble:2': the ensemble has 1 networks \(d\)",
    ):
        settings.recipe("distill", "y", two, {})
    for wrong in ("all", "ensemble:", "ensemble:0", "ensemble:-1"):
        with pytest.raises(PlanError, match="teachers"):
            settings.recipe("distill", "x", one, {"distill": {"teachers": wrong}})


def test_a_recipe_may_depend_on_the_budget(tmp_path):
    base = {"training": {"batch": 50, "epochs": 3}, "per_ipc": {50: {"training": {"batch": 100}}}}
    settings = settings_with(tmp_path, {"evaluate": {"own": base}})
    dataset = "one"
    ten, fifty = (Experiment("one", ipc, None, None) for ipc in (10, 50))
    assert settings.recipe("evaluate", "own", dataset, {}, ten) == {
        "training": {"batch": 50, "epochs": 3}
    }
    assert settings.recipe("evaluate", "own", dataset, {}, fifty) == {
        "training": {"batch": 100, "epochs": 3}
    }


def test_params_win_over_the_scale_and_a_row_over_params(tmp_path):
    base = {"a": 1, "b": 1, "per_ipc": {50: {"b": 2}}}
    settings = settings_with(
        tmp_path, {"distill": {"infer": base}}, {"distill": {"infer": {"b": 3}}}
    )
    experiment, dataset = Experiment("one", 50, None, None), "one"
    assert settings.recipe("distill", "infer", dataset, {}, experiment) == {
        "a": 1,
        "b": 3,
    }  # also over what the scale says at 50
    assert settings.recipe("distill", "infer", dataset, {"distill": {"b": 4}}, experiment) == {
        "a": 1,
        "b": 4,
    }


@pytest.mark.parametrize("wrong", [5, None, {10: [1]}, {"10": {"a": 1}}])
def test_a_wrong_per_ipc_is_one_line(tmp_path, wrong):
    with pytest.raises(
        PlanError, match=r"small.yaml.distill.x.per_ipc = .*expected keys and values below each ipc"
    ):
        settings = settings_with(tmp_path, {"distill": {"x": {"per_ipc": wrong}}})
        settings.recipe("distill", "x", "one", {}, Experiment("one", 10, None, None))


def test_yes_is_no_number(tmp_path):
    with pytest.raises(PlanError, match=r"here.epochs = True: .*is yes or no, expected a number"):
        validated(Training, {"epochs": True, "batch": 8}, "here")


# dataset, row, ipc, student -> its evaluation at paper scale: for INFER its Table 5, its scripts
# and, on Tiny-ImageNet and ImageNet, those of its authors' next paper (docs/protocols.md); for
# SRe2L, G-VBSM and RDED the scripts of their code.
RECIPES = [
    (
        "cifar100",
        "INFER",
        10,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "decay": "all"},
        64,
        400,
        None,
    ),
    (
        "cifar100",
        "INFER+Dyn",
        10,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "decay": "all"},
        64,
        80,
        None,
    ),
    (
        "tiny-imagenet",
        "INFER",
        10,
        "resnet18",
        {"name": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 1e-4},
        64,
        200,
        None,
    ),
    (
        "tiny-imagenet",
        "INFER+Dyn",
        10,
        "resnet18",
        {"name": "sgd", "lr": 0.2, "weight_decay": 1e-4},
        64,
        50,
        None,
    ),
    (
        "cifar100",
        "SRe2L",
        10,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "decay": "all"},
        128,
        400,
        None,
    ),
    (
        "tiny-imagenet",
        "SRe2L",
        10,
        "resnet18",
        {"name": "sgd", "lr": 0.2, "weight_decay": 1e-4},
        256,
        100,
        None,
    ),
    (
        "cifar100",
        "G-VBSM",
        10,
        "resnet18",
        {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4, "decay": "matrices"},
        64,
        1000,
        None,
    ),
    (
        "cifar10",
        "G-VBSM",
        10,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
        100,
        1000,
        None,
    ),
    (
        "tiny-imagenet",
        "G-VBSM",
        10,
        "resnet18",
        {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4},
        100,
        100,
        50,
    ),
    (
        "cifar100",
        "RDED",
        10,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "decay": "matrices"},
        100,
        300,
        None,
    ),
    (
        "imagenet-1k",
        "INFER",
        50,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        32,
        300,
        None,
    ),
    (
        "imagenet-1k",
        "INFER+Dyn",
        50,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        32,
        75,
        None,
    ),
    (
        "imagenet-1k",
        "SRe2L",
        50,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "decay": "matrices"},
        1024,
        300,
        512,
    ),
    (
        "imagenet-1k",
        "G-VBSM",
        50,
        "resnet18",
        {"name": "adamw", "lr": 1e-3, "decay": "matrices"},
        1024,
        300,
        None,
    ),
    (
        "imagenet-1k",
        "G-VBSM",
        50,
        "resnet101",
        {"name": "adamw", "lr": 1e-3, "decay": "matrices"},
        1024,
        300,
        256,
    ),
]


@pytest.fixture(scope="module")
def paper() -> Plan:
    return at("paper")


@pytest.mark.parametrize(
    ("dataset", "row", "ipc", "student", "optimizer", "batch", "epochs", "micro_batch"), RECIPES
)
def test_students_have_the_papers_recipes(
    paper, dataset, row, ipc, student, optimizer, batch, epochs, micro_batch
):
    table = "table2" if dataset == "imagenet-1k" else "table1"
    place = next(
        p
        for p in paper.cells(table)
        if (p.dataset, p.row.row, p.ipc, p.student) == (dataset, row, ipc, student)
    )
    training = place.students[0].spec.recipe["training"]
    assert {key: training["optimizer"][key] for key in optimizer} == optimizer
    assert (training["batch"], training["epochs"], training.get("micro_batch")) == (
        batch,
        epochs,
        micro_batch,
    )


# INFER: Table 5 and its scripts. SRe2L, CDA, G-VBSM: the recovery scripts of their code.
SYNTHESIS = [
    (
        "cifar100",
        "INFER",
        10,
        {"lr": 0.25, "iterations": 1000, "alpha": 1.0, "augment": ["roll:4"]},
    ),
    (
        "tiny-imagenet",
        "INFER",
        10,
        {"lr": 0.1, "iterations": 2000, "augment": ["batch-resized-crop", "batch-flip"]},
    ),
    (
        "cifar100",
        "SRe2L",
        10,
        {"lr": 0.25, "r_bn": 0.01, "iterations": 1000, "batch": 100, "augment": ["roll:4"]},
    ),
    ("tiny-imagenet", "SRe2L", 10, {"lr": 0.1, "r_bn": 1.0, "iterations": 4000, "batch": 100}),
    (
        "tiny-imagenet",
        "CDA",
        10,
        {"lr": 0.4, "r_bn": 0.05, "augment": ["batch-resized-crop", "batch-flip", "roll:4"]},
    ),
    (
        "cifar100",
        "G-VBSM",
        10,
        {"lr": 0.05, "iterations": 4000, "batch": 100, "drop": 0.4, "ema": 0.8, "patch": 4},
    ),
    (
        "tiny-imagenet",
        "G-VBSM",
        10,
        {"per_class": 1, "augment": ["batch-crop:8", "batch-flip", "roll:32"]},
    ),
    ("tiny-imagenet", "G-VBSM", 50, {"per_class": 5}),
    ("cifar100", "RDED", 10, {"factor": 1, "pool": 300, "crops": 5, "smallest": 0.08}),
    ("imagenet-1k", "G-VBSM", 50, {"lr": 0.1, "batch": 80, "drop": 0.0, "ema": 0.4, "patch": 16}),
    ("imagenet-1k", "SRe2L", 50, {"lr": 0.25, "r_bn": 0.01, "iterations": 4000, "batch": 100}),
    ("imagenet-1k", "INFER", 50, {"lr": 0.25, "iterations": 2000, "alpha": 0.01}),
]


@pytest.mark.parametrize(("dataset", "row", "ipc", "expected"), SYNTHESIS)
def test_methods_have_the_papers_recipes(paper, dataset, row, ipc, expected):
    table = "table2" if dataset == "imagenet-1k" else "table1"
    place = next(
        p for p in paper.cells(table) if (p.dataset, p.row.row, p.ipc) == (dataset, row, ipc)
    )
    recipe = place.distilled[0].spec.recipe["method"]
    assert {key: recipe[key] for key in expected} == expected


def test_dynamic_labels_are_counted_for_the_epochs_of_their_protocol(paper):
    epochs = {
        (cell.row, cell.place.dataset): cell.label_epochs
        for table in ("table1", "table2")
        for cell in paper.document(table).cells
        if table == "table2" or cell.place.ipc == 10
    }
    assert (
        epochs["SRe2L", "imagenet-1k"] == epochs["INFER+Dyn", "imagenet-1k"] == 300
    )  # the paper's 4.53 and 22.67
    assert (
        epochs["SRe2L", "tiny-imagenet"],
        epochs["G-VBSM", "cifar100"],
        epochs["RDED", "cifar100"],
    ) == (100, 1000, 300)
    assert epochs["INFER+Dyn", "cifar100"] == 400


def test_stored_dynamic_labels_are_estimated_for_all_their_epochs(paper):
    estimator = Estimator(paper.settings, ROOT / "results/store")
    place = next(
        p
        for p in paper.cells("table1")
        if p.row.labels.kind == "fkd" and (p.dataset, p.ipc) == ("cifar100", 10)
    )
    assert (
        estimator.cost(place.label[0]).bytes == 80 * 4500 * 100 * 2
    )  # epochs x (M + 1) K C instances x classes x float16


def test_a_table_that_cannot_be_planned_stops_no_other():
    plan = at("demo", ensemble=["resnet10-w16", "convnet-w32"])
    address = plan.evaluations("table2")[0].address
    with pytest.raises(PlanError, match="the ensemble has 2 networks"):
        plan.cells("table3")
    assert at("demo", ensemble=["resnet10-w16", "convnet-w32"]).node(address).address == address


def test_rded_has_the_authors_batches_at_paper_scale():
    # 50 at ipc 10 and 100 at ipc 50, twice that with 100 classes, 100 throughout on Tiny-ImageNet.
    plan = at("paper")
    found = {
        (p.dataset, p.ipc): p.students[0].spec.recipe["training"]["batch"]
        for p in plan.cells("table1")
        if p.row.row == "RDED"
    }
    small = {
        ("cifar10", 10): 50,
        ("cifar10", 50): 100,
        ("cifar100", 10): 100,
        ("cifar100", 50): 200,
        ("cifar100", 100): 200,
    }
    assert found == {**small, ("tiny-imagenet", 10): 100, ("tiny-imagenet", 50): 100}


# --- the papers' tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["demo", "mini", "paper"])
def test_every_scale_plans_every_table(scale):
    plan = at(scale)
    for name in plan.settings.known_tables():
        assert plan.cells(name), name
        assert any(p.evaluations for p in plan.cells(name)), name


PRINTED = {  # accuracies in each table of the papers
    "infer/table1": 81,
    "infer/table2": 42,
    "infer/table3": 16,
    "infer/table4": 24,
    "infer/table6": 16,
    "gift/table1": 88,
    "gift/table2": 36,
    "gift/table3": 42,
    "gift/table4": 84,
    "gift/table5": 48,
    "gift/table6": 56,
    "gift/table7": 48,
    "gift/table12": 36,
    "gift/table13": 54,
    "podd/table1": 40,
    "podd/table2": 43,
    "podd/figure6": 7,
}


# Rows that a paper's table lacks and another one of its tables has.
FROM_OTHER_TABLES = {"gift/table6": {"GIFT, loss only": ["7"] * 4 + ["13"] * 3}}


@pytest.mark.parametrize(("table", "printed"), PRINTED.items())
def test_every_printed_number_stands_in_its_table(paper, table, printed):
    number = table.rpartition("/")[2].removeprefix("table")
    places = [p for p in paper.cells(table) if p.published]
    assert len([p for p in places if p.published.table == number]) == printed
    others: dict[str, list[str]] = {}
    for p in places:
        if p.published.table != number:
            others.setdefault(p.row.row, []).append(p.published.table)
    assert others == FROM_OTHER_TABLES.get(table, {})


def test_cells_that_tables_share_are_one_artefact():
    plan = at("paper")
    cells = {
        table: next(
            p
            for p in plan.cells(table)
            if p.row.row == row and (p.dataset, p.student, p.ipc) == place
        )
        for table, row in (
            ("table1", "INFER"),
            ("table3", "4 networks (R+M+E+S)"),
            ("table6", "4 networks (R+M+E+S)"),
        )
        for place in [("cifar100", "resnet18", 10)]
    }
    assert len({p.evaluations for p in cells.values()}) == 1
    assert Counter(n.spec.stage for n in plan.missing(["table3"]))["teacher"] == 4


def test_fewer_makers_mean_other_compensators_and_the_same_labellers():
    plan = at("paper")
    rows = {p.row.row: p for p in plan.cells("table3") if p.ipc == 10}
    one, four = rows["1 network (R)"], rows["4 networks (R+M+E+S)"]
    assert one.distilled != four.distilled
    assert one.label[0].inputs["teachers"] == four.label[0].inputs["teachers"]
    rows = {p.row.row: p for p in plan.cells("table6") if p.ipc == 10}
    assert rows["1 network (R)"].distilled == rows["4 networks (R+M+E+S)"].distilled
    assert [
        len(rows[row].label[0].inputs["teachers"])
        for row in ("1 network (R)", "4 networks (R+M+E+S)")
    ] == [1, 4]


def test_stored_dynamic_labels_replay_the_training_they_are_for():
    plan = at("paper")
    stored = next(p for p in plan.cells("table1") if p.row.labels.kind == "fkd")
    training = stored.students[0].spec.recipe["training"]
    assert {
        key: stored.label[0].spec.recipe[key] for key in ("epochs", "batch", "augment", "mix")
    } == {key: training[key] for key in ("epochs", "batch", "augment", "mix")}
    assert (
        len({node.inputs["label"] for node in stored.students}) == 1
    )  # one store for all students of a set


def test_stored_dynamic_labels_replay_the_batches_of_the_set_s_size():
    plan = at("paper", evaluate={"dynamic": {"training": {"batch_up_to": [[10, 10], [500, 50]]}}})
    stored = next(p for p in plan.cells("table1") if p.row.labels.kind == "fkd")
    assert stored.label[0].spec.recipe["batch_up_to"] == [[10, 10], [500, 50]]
    before = next(p for p in at("paper").cells("table1") if p.row.labels.kind == "fkd")
    assert (
        "batch_up_to" not in before.label[0].spec.recipe
        and before.label[0].key != stored.label[0].key
    )


# --- analyses -------------------------------------------------------------------------------------


def test_an_analysis_of_students_has_one_artefact_per_student_and_one_of_a_set_has_one():
    plan = at("demo")
    (students,) = plan.cells("figure8")[0].evaluations
    assert [node.inputs["student"].spec.streams["student"] for node in students] == [0, 1, 2]
    assert [node.spec.streams["student"] for node in students] == [0, 1, 2]
    ((alone,),) = plan.cells("figure4-left")[0].evaluations
    assert set(alone.inputs) == {"data", "distilled", "teachers"}
    assert "student" not in alone.spec.recipe


def test_a_row_may_change_its_analysis_alone():
    plan = at("demo")
    rows = {p.row.row: p for p in plan.cells("figure4-left") if p.ipc == 5}
    both, some = rows["INFER"], rows["INFER, u ≠ 0 only"]
    assert both.distilled == some.distilled
    assert both.evaluations != some.evaluations
