"""GIFT's evaluation at paper scale, by its Table 11, its authors' code and the printed tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distillery.components.fields import read
from distillery.nets.network import build_network
from distillery.plan.cell import TableCell
from distillery.plan.checks import instances
from distillery.plan.plan import Plan
from distillery.training.optim import factor
from distillery.training.recipe import Training, batch_size
from helpers.planning import at

TABLES = [f"gift/table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 12, 13)]
SHORT = "imagenet-1k"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return at("paper")


def measured(plan: Plan, *tables: str) -> Iterator[TableCell]:
    for table in tables:
        yield from (p for p in plan.cells(table) if p.evaluations)


def recipe(cell: TableCell) -> dict:
    return cell.students[0].spec.recipe


def test_every_row_is_trained_by_table_11(plan):
    for cell in measured(plan, *TABLES, "gift/figure3", "cross/gift", "cross/ablation"):
        training = read(Training, recipe(cell)["training"])
        epochs, drops = (300, (200, 250)) if cell.dataset == SHORT else (1000, (666, 833))
        assert training.epochs == epochs and training.test_every == epochs // 4
        rates = [factor(training.schedule, epoch, epochs) for epoch in range(epochs)]
        assert rates == pytest.approx(
            [0.2 ** sum(epoch >= drop for drop in drops) for epoch in range(epochs)]
        )
        assert (training.augment, training.mix.name, training.precision) == (
            ("dsa:idc",),
            "none",
            "fp32",
        )
        if cell.extra.get("optimizer", "adamw") == "adamw":
            rate = 1e-4 if cell.student == "swin_v2_t" else 1e-3  # the authors' code
            found = training.optimizer
            assert (found.name, found.lr, found.betas) == ("adamw", rate, (0.9, 0.999))
            assert (found.weight_decay, found.decay) == (1e-4, "all")


def test_batches_by_the_number_of_images(plan):
    sizes = {
        ("cifar100", 1): 50,
        ("cifar100", 10): 100,
        ("cifar100", 50): 100,
        ("tiny-imagenet", 1): 50,
    }
    sizes |= {
        ("tiny-imagenet", 10): 100,
        ("tiny-imagenet", 50): 100,
        (SHORT, 10): 100,
        (SHORT, 50): 200,
        (SHORT, 100): 200,
    }
    found = {}
    for p in measured(plan, "gift/table1", "gift/table2"):
        training = recipe(p)["training"]
        count = instances(
            p.distilled[0].spec.recipe["method"],
            p.ipc,
            plan.settings.dataset(p.dataset).expected.classes,
        )
        found[p.dataset, p.ipc] = batch_size(count, training["batch"], training["batch_up_to"])
    assert found == sizes


def test_labels_are_of_the_network_that_distilled_the_set(plan):
    for p in measured(plan, *TABLES):
        made, labels = p.distilled[0].spec.recipe["method"].get("teachers"), recipe(p)["labels"]
        assert labels["name"] == "dynamic" or p.row.row == "CE"
        if labels["name"] == "dynamic":
            assert len(labels["teachers"]) == 1
            assert (
                made == labels["teachers"] or p.row.method == "g-vbsm"
            )  # a pool of its own distils those
            assert p.row.row.split(", ")[-1].startswith(("ConvNet", "ResNet")) or labels[
                "teachers"
            ] == [p.student]


def test_constants_of_the_losses_of_table_3(plan):
    small = {
        "KD": {"name": "kd", "temperature": 4.0, "hard": 0.1, "soft": 0.9},
        "WSLD": {"name": "wsld", "temperature": 4.0, "alpha": 2.25},
        "DKD": {"name": "dkd", "temperature": 4.0, "alpha": 1.0, "beta": 8.0, "ramp": 20},
        "NKD": {"name": "nkd", "temperature": 3.0, "gamma": 3.5},
        "GIFT": {"name": "cosine"},
    }
    large = {
        "KD": {"name": "kd", "temperature": 1.0, "hard": 0.5, "soft": 0.5},
        "WSLD": {"name": "wsld", "temperature": 2.0, "alpha": 2.5},
        "DKD": {"name": "dkd", "temperature": 1.0, "alpha": 1.0, "beta": 0.5, "ramp": 1},
        "NKD": {"name": "nkd", "temperature": 1.0, "gamma": 1.5},
        "GIFT": {"name": "cosine"},
    }
    for dataset, expected in (("cifar100", small), ("tiny-imagenet", small), (SHORT, large)):
        assert {
            p.row.row: recipe(p)["loss"]
            for p in measured(plan, "gift/table3")
            if p.dataset == dataset
        } == expected


def test_every_loss_of_table_6_stands_in_it_with_the_constants_of_the_code(plan):
    found = {p.row.row: recipe(p)["loss"] for p in measured(plan, "gift/table6")}
    assert found == {
        "CE": {"name": "ce"},
        "Soft CE": {"name": "soft-ce", "temperature": 1.0},
        "Soft CE + CE": {"name": "soft-ce+ce", "temperature": 1.0, "weight": 0.1},
        "MSE": {"name": "mse"},
        "MSE + CE": {"name": "mse+ce", "weight": 0.1},
        "KL": {"name": "kl", "temperature": 20.0, "squared": False},
        "KL + CE": {"name": "kl+ce", "temperature": 20.0, "weight": 0.1, "squared": True},
        "GIFT": {"name": "cosine"},
    }


OPTIMIZERS = {  # name, rate, decay; GIFT states none but AdamW's
    "sgd": ("sgd", 0.1, 5e-4),
    "adam": ("adam", 1e-3, 1e-4),
    "adamw": ("adamw", 1e-3, 1e-4),
    "sgd-0.01": ("sgd", 0.01, 5e-4),
}


@pytest.mark.parametrize("table", ["gift/table5", "gift/table12"])
def test_optimisers_and_nothing_else_differ_between_the_columns(plan, table):
    for p in measured(plan, table):
        training, used = recipe(p)["training"], recipe(p)["training"]["optimizer"]
        assert (used["name"], used["lr"], used["weight_decay"]) == OPTIMIZERS[p.extra["optimizer"]]
        assert (used["momentum"], used["decay"], training["schedule"]["name"]) == (
            0.9,
            "all",
            "multistep",
        )
        assert not (
            p.published and p.extra["optimizer"] == "sgd-0.01"
        )  # the printed SGD stands beside one rate only


@pytest.mark.parametrize("table", ["gift/table5", "gift/table12"])
def test_every_kl_row_of_a_table_of_optimisers_has_a_row_with_its_factor_beside_it(plan, table):
    cells = {
        (p.row.row, p.dataset, p.student, p.extra["optimizer"]): recipe(p)
        for p in measured(plan, table)
    }
    plain = {
        place: found
        for place, found in cells.items()
        if found["loss"] == {"name": "kl", "temperature": 20.0, "squared": False}
    }
    assert {place[0] for place in plain} == {"SRe2L", "RDED"} and {
        place[3] for place in plain
    } == OPTIMIZERS.keys()
    for (row, *rest), found in plain.items():
        scaled = found | {"loss": found["loss"] | {"squared": True}}
        assert cells[f"{row}, KL \N{MULTIPLICATION SIGN} T²", *rest] == scaled


@pytest.mark.parametrize("table", ["gift/table7", "gift/table13", "cross/ablation"])
def test_refinement_and_loss_change_one_thing_each(plan, table):
    cells = {(p.row.row, p.dataset, p.student, p.ipc): recipe(p) for p in measured(plan, table)}
    for (row, *rest), found in cells.items():
        native, comma, kind = row.partition(", ")
        if comma:
            base = cells[native, *rest]
            gift = cells[f"{native} + GIFT", *rest]
            assert gift["loss"] == {"name": "cosine"} and gift["refine"]["length"] == "unit"
            assert (
                "refine" not in base
                and base | {key: gift[key] for key in ("loss", "refine")} == gift
            )
            if kind == "loss only":
                assert base | {"loss": {"name": "cosine"}} == found
            else:
                length = "unit" if kind.endswith("unit length") else "teacher"
                assert (
                    base
                    | {"refine": {"name": "gift", "gamma": 0.1, "alpha": 0.1, "length": length}}
                    == found
                )


# parameters with 200 outputs; the ResNets' stems are those of small images, the others
# torchvision's own
STUDENTS = {
    "convnet": 0.857160,
    "resnet18": 11.271432,
    "tv-efficientnet_b0": 4.263748,
    "tv-mobilenet_v2": 2.480072,
    "resnet101": 42.902280,
    "swin_v2_t": 27.736370,
}


@pytest.mark.parametrize(("student", "millions"), STUDENTS.items())
def test_students_of_table_4_at_64_px(plan, student, millions):
    network = build_network(plan.settings.network(student, "tiny-imagenet"), (3, 64, 64), 200)
    assert sum(p.numel() for p in network.parameters()) == round(1e6 * millions)


def test_a_number_is_compared_with_the_one_printed_for_that_very_network(plan):
    compared = {p.student: p.comparable for p in measured(plan, "gift/table4") if p.published}
    assert compared == dict.fromkeys(STUDENTS, True)
    assert {p.comparable for p in measured(plan, "gift/table2") if p.student == "resnet18"} == {
        True
    }
    for table in (
        "gift/table2",
        "gift/table3",
        "gift/table6",
        "gift/table13",
    ):  # GIFT's ConvNet sees ImageNet at 64 px
        convnets = [
            p
            for p in measured(plan, table)
            if p.dataset == SHORT and p.student != "resnet18" and p.published
        ]
        assert convnets and not any(p.comparable for p in convnets)
