"""GIFT's evaluation at paper scale, by its Table 11, its authors' code and the printed tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from distillery.components.fields import read
from distillery.nets.network import build_network
from distillery.plan.cell import TableCell
from distillery.plan.checks import instances
from distillery.plan.plan import Plan
from distillery.training.optim import factor
from distillery.training.recipe import Training, batch_size
from helpers.planning import at
from helpers.project import ROOT

FIGURES = [f"gift/figure{n}" for n in (1, 3, 4, 5, 6)]
TABLES = [f"gift/table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 12, 13)]
IMAGENET = ("imagenet-1k-64", "imagenet-1k")  # the ConvNet's size, ResNet-18's


@pytest.fixture(scope="module")
def plan() -> Plan:
    return at("paper")


def measured(plan: Plan, *tables: str) -> Iterator[TableCell]:
    """What is trained on distilled sets; the teachers' rows have all images."""
    for table in tables:
        yield from (p for p in plan.cells(table) if p.evaluations and p.row.method != "full")


def recipe(cell: TableCell) -> dict:
    return cell.students[0].spec.recipe


def test_every_row_is_trained_by_table_11(plan):
    for cell in measured(plan, *TABLES, *FIGURES, "cross/gift", "cross/ablation"):
        training = read(Training, recipe(cell)["training"])
        epochs, drops = (300, (200, 250)) if cell.dataset in IMAGENET else (1000, (666, 833))
        assert training.epochs == epochs and training.test_every == epochs // 4
        rates = [factor(training.schedule, epoch, epochs) for epoch in range(epochs)]
        assert rates == pytest.approx(
            [0.2 ** sum(epoch >= drop for drop in drops) for epoch in range(epochs)]
        )
        patches = cell.row.method == "rded" and cell.dataset == "imagenet-1k"  # the authors' code
        assert training.augment == (("patch-crop:2", "dsa:idc") if patches else ("dsa:idc",))
        assert cell.dataset != "imagenet-1k" or cell.student == "resnet18"
        assert (training.mix.name, training.precision) == ("none", "fp32")
        if cell.extra.get("optimizer", "adamw") == "adamw":
            rate = 1e-4 if cell.student == "swin_v2_t" else 1e-3  # the authors' code
            found = training.optimizer
            assert (found.name, found.lr, found.betas) == ("adamw", rate, (0.9, 0.999))
            assert (found.weight_decay, found.decay) == (1e-4, "all")


def test_the_figures_of_losses_have_each_set_with_each_loss(plan):
    for figure, ipcs in ((1, {10}), (4, {1, 10, 50}), (5, {1, 10, 50}), (6, {1, 10, 50})):
        found: dict[str, set[tuple[str, bool]]] = {}
        cells = list(plan.cells(f"gift/figure{figure}"))
        for cell in cells:
            loss, refined = (
                recipe(cell)["loss"]["name"],
                recipe(cell).get("refine", {}).get("name") == "gift",
            )
            found.setdefault(cell.row.method, set()).add((loss, refined))
        losses = {("kl", False), ("mse+ce", False), ("soft-ce", False), ("cosine", True)}
        assert found == dict.fromkeys(("sre2l", "g-vbsm", "rded"), losses)
        assert {cell.ipc for cell in cells} == ipcs


def test_the_page_of_settings_is_of_this_scale_and_says_what_is_printed():
    spec = importlib.util.spec_from_file_location(
        "page", ROOT / "workflow/scripts/gift_settings.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/results/gift-settings.md").read_text()
    assert page == module.page(), "run `python workflow/scripts/gift_settings.py`"
    assert all(theirs == ours for _, theirs, ours in module.strengths())
    assert [ours.split()[0] for name, _, ours in module.evaluation() if name == "batch_size"] == [
        "10",
        "50",
        "100",
        "200",
    ]
    same = ("epochs", "optimizer", "learning_rate", "batch_size", "scheduler_gamma")
    for name, theirs, ours in module.evaluation():
        assert name not in same or theirs.split()[0] == ours.split()[0], name
    for name, theirs, ours in module.datasets():
        assert name == "imagenet-1k" or theirs == ours, name


def test_batches_by_the_number_of_images(plan):
    sizes = {
        ("cifar100", 1): 50,
        ("cifar100", 10): 100,
        ("cifar100", 50): 100,
        ("tiny-imagenet", 1): 50,
    }
    sizes |= {("tiny-imagenet", 10): 100, ("tiny-imagenet", 50): 100}
    large = {10: 100, 50: 200, 100: 200}
    sizes |= {(name, ipc): size for name in IMAGENET for ipc, size in large.items()}
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
    datasets = {"cifar100": small, "tiny-imagenet": small, "imagenet-1k-64": large}
    for dataset, expected in datasets.items():
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
        "GIFT, loss only": {"name": "cosine"},
        "GIFT": {"name": "cosine"},
    }
    refined = {p.row.row for p in measured(plan, "gift/table6") if "refine" in recipe(p)}
    assert refined == {"GIFT"}


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


def test_efficientnet_s_head_starts_as_one_of_1000_outputs(plan):
    torch.manual_seed(0)
    network = build_network(
        plan.settings.network("tv-efficientnet_b0", "tiny-imagenet"), (3, 64, 64), 200
    )
    head = network.classifier[1]
    assert head.weight.shape == (200, 1280) and head.out_features == 200
    # uniform in +-1 / sqrt(outputs): 256,000 draws come close to the bound
    assert head.weight.abs().max().item() == pytest.approx(1000**-0.5, rel=1e-3)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 200)


def test_a_number_is_compared_with_the_one_printed_for_that_very_network(plan):
    compared = {p.student: p.comparable for p in measured(plan, "gift/table4") if p.published}
    assert compared == dict.fromkeys(STUDENTS, True)
    for table in ("gift/table2", "gift/table3", "gift/table6", "gift/table12", "gift/table13"):
        found = [p for p in measured(plan, table) if p.dataset in IMAGENET and p.published]
        assert found and all(p.comparable for p in found)
        students = {(p.dataset, p.student) for p in found}
        assert students <= {("imagenet-1k-64", "convnet"), ("imagenet-1k", "resnet18")}


@pytest.mark.parametrize(
    ("table", "row", "student", "ipc", "mean"),
    [
        ("gift/table2", "RDED + GIFT", "convnet", 10, 24.0),
        ("gift/table2", "RDED + GIFT", "resnet18", 10, 43.2),
        ("gift/table3", "DKD", "convnet", 100, 36.5),
        ("gift/table6", "KL + CE", "convnet", 50, 35.2),
        ("gift/table6", "GIFT", "convnet", 10, 21.7),
        ("gift/table6", "GIFT, loss only", "convnet", 50, 39.3),  # its Table 13 alone has it
    ],
)
def test_printed_numbers_of_imagenet_stand_beside_the_size_that_the_student_sees(
    plan, table, row, student, ipc, mean
):
    cells = [
        p
        for p in plan.cells(table)
        if (p.row.row, p.student, p.ipc) == (row, student, ipc) and p.dataset in IMAGENET
    ]
    assert [p.published.mean for p in cells] == [mean]
    assert cells[0].paper.dataset == "imagenet-1k" and cells[0].paper.student == student


def test_convnet_on_imagenet_has_four_blocks_at_64_px(plan):
    network = plan.settings.network("convnet", "imagenet-1k-64")
    assert (network["depth"], network["norm"]) == (4, "batch")
    assert plan.settings.dataset("imagenet-1k-64").expected.shape == [3, 64, 64]


def test_rded_has_a_real_image_for_each_of_its_crops(plan):
    pools = {
        (p.dataset, p.ipc): (method["factor"], method["pool"])
        for p in measured(plan, "gift/table2", "gift/table13")
        if p.row.method == "rded"
        for method in [p.distilled[0].spec.recipe["method"]]
    }
    scripts = {(name, ipc): 300 for name in IMAGENET for ipc in (10, 50, 100)}
    scripts["imagenet-1k", 100] = 600
    factors = {"imagenet-1k-64": 1, "imagenet-1k": 2}
    assert pools == {place: (factors[place[0]], pool) for place, pool in scripts.items()}
    assert all(factor**2 * ipc <= pool for (_, ipc), (factor, pool) in pools.items())


@pytest.mark.parametrize("table", ["gift/table5", "gift/table12"])
def test_gift_is_measured_against_kl_and_against_kl_with_its_factor(plan, table):
    cells = {(p.row.row, p.dataset, p.extra["optimizer"]): p for p in measured(plan, table)}
    squared = "KL \N{MULTIPLICATION SIGN} T²"
    for method in ("SRe2L", "RDED"):
        again = [key for key in cells if key[0] == f"{method} + GIFT, over {squared}"]
        assert again
        for _, *place in again:
            first, second = cells[f"{method} + GIFT", *place], cells[again[0][0], *place]
            assert (first.row.against, second.row.against) == (method, f"{method}, {squared}")
            assert first.students == second.students  # nothing is trained twice
            assert second.published is None


def test_gains_of_tables_3_and_6(plan):
    against = {"gift/table3": "DKD", "gift/table6": "KL"}
    for table, row in against.items():
        assert {p.row.against for p in plan.cells(table) if p.row.row == "GIFT"} == {row}
