"""What memory is planned: the formulas by hand, and the jobs that were planned far off."""

from __future__ import annotations

import pytest

from distillery.methods import g_vbsm, infer, rat_bptt, rded, sre2l
from distillery.plan import memory
from distillery.plan.cost import BASE_MEMORY, Cost, Estimator
from distillery.plan.models import Expected
from distillery.plan.network_costs import NetworkCost
from helpers.planning import at
from helpers.project import ROOT

NET = NetworkCost(work=1.0, kept=1000.0, widest=300.0, parameters=50.0)
LARGE = NetworkCost(work=1.0, kept=2000.0, widest=100.0, parameters=70.0)
DATA = Expected(classes=10, train=600, test=200, shape=[3, 4, 4])  # 48 numbers an image


def test_a_training_step_by_hand():
    weights = 50 * 4 * 4  # float32: weight, gradient, two moments
    assert memory.training(NET, 8, DATA) == weights + 8 * (1300 + 4 * 4 * 48)
    assert memory.training(NET, 8, DATA, share=0.5) == weights + 8 * (650 + 4 * 4 * 48)


def test_a_pass_without_gradients_by_hand():
    assert memory.inference([NET, LARGE], 10, DATA) == 4 * 120 + 10 * (2 * 300 + 2 * 4 * 48)
    assert memory.inference([], 10, DATA) == 10 * 2 * 4 * 48
    # Of 200 test images, all at once; of 600, 512.
    assert memory.tested(NET, DATA) == 3 * 4 * 50 + 4 * 50 + 200 * (600 + 384)
    more = DATA.model_copy(update={"test": 600})
    assert memory.tested(NET, more) == 4 * 4 * 50 + 512 * (600 + 384)


def test_a_step_of_a_recovery_by_hand():
    found = memory.recovery([NET, LARGE], 6, DATA)
    assert found == 4 * 120 + 6 * (1.5 * 2100 + 40 * 48)


def test_a_meta_step_by_hand():
    recipe = rat_bptt.Recipe(window=5, batch=550)
    states = 12 * 50 * 9
    outer = 500 * 1300 + 16 * 550 * 48
    assert memory.unrolled(NET, recipe, 3, DATA) == states + outer
    step = 1000 * (4 * 1000 + 300)
    assert memory.unrolled(NET, recipe, 1000, DATA) == states + step


def test_whitening_by_hand():
    assert memory.whitening(DATA) == 2 * 4 * 48**2
    assert memory.whitened(DATA) == 8 * (5 * 48**2 + 3 * 600 * 48)
    many = DATA.model_copy(update={"train": 5000})
    assert memory.whitened(many) == 8 * (5 * 48**2 + 3 * 2048 * 48)


def test_what_is_kept_whole_ends_at_the_limit_of_the_jobs(monkeypatch):
    assert memory.real_images(DATA, 600, 200) == 800 * 48
    assert memory.real_images(DATA, 600, each=4) == 600 * 48 * 4
    monkeypatch.setattr(memory, "RESIDENT", 600 * 48 - 1)
    assert memory.real_images(DATA, 600, 200) == 200 * 48
    monkeypatch.setattr(memory, "RESIDENT", 600 * 48)
    assert memory.real_images(DATA, 600, 200) == 800 * 48


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (sre2l.Recipe(("a",), batch=40, parallel_groups=3), (120, 0)),
        (sre2l.Recipe(("a",), batch=40, micro_batch=7, parallel_groups=30), (5 * 7, 0)),
        (sre2l.Recipe(("a",), batch=400), (100, 0)),
        (infer.Recipe(("a", "b"), parallel_groups=30), (4 * 100, 0)),
        (infer.Recipe(("a", "b"), micro_batch=20, parallel_groups=2), (40, 0)),
        (g_vbsm.Recipe(("a",), batch=80, reference_batch=64), (80, 64)),
        (rded.Recipe(("a",), crops=5), (0, 261)),
    ],
)
def test_images_that_go_through_a_teacher_together(recipe, expected):
    # ipc 5 of 100 classes: INFER's budget is four subsets with two teachers.
    assert recipe.at_once(5, 100) == expected


def planned(table: str, method: str, stage: str = "distill") -> Cost:
    plan = at("paper")
    cell = next(
        cell
        for cell in plan.cells(table)
        if (cell.row.method, cell.dataset, cell.ipc) == (method, "imagenet-1k", 50)
    )
    node = cell.students[0]
    node = node if stage == "evaluate" else node.input("distilled")
    return Estimator(plan.settings, ROOT / "results/store").cost(node)


SET = 50_000 * 150_528  # bytes of ImageNet's images at ipc 50
TEST = 50_000 * 150_528  # of its test images at 224 pixels


def test_sets_at_imagenets_size_take_two_copies_of_their_bytes():
    cost = planned("infer/table2", "g-vbsm")
    assert cost.memory - BASE_MEMORY == pytest.approx(2 * SET, rel=0.05)
    assert cost.resident == 0  # 193 GB of training images are not kept


def test_scoring_crops_takes_an_inference_of_a_batch():
    cost = planned("gift/table2", "rded")
    assert cost.device < 10e9


def test_test_images_of_imagenet_are_planned_to_be_kept():
    cost = planned("infer/table2", "random", "evaluate")
    assert TEST <= cost.resident <= 2 * TEST + 50_000 * 1000 * 2
