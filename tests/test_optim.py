"""Learning-rate schedules and optimisers, by hand and against torch's own."""

import math
import sys

import pytest
import torch
from torch import nn

from distillery.errors import PlanError
from distillery.training.loop import train
from distillery.training.optim import build_optimizer, factor
from distillery.training.recipe import Optimizer, Schedule, Training
from helpers.training import Two, network, samples

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- schedule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        (
            Schedule(),
            200,
            {0: 1, 50: (1 + math.sqrt(0.5)) / 2, 100: 0.5, 150: (1 - math.sqrt(0.5)) / 2, 200: 0},
        ),
        (Schedule(stretch=2.0), 300, {0: 1, 150: (1 + math.sqrt(0.5)) / 2, 300: 0.5}),
        (Schedule(warmup=5), 200, {0: 0.01, 1: 0.208, 4: 0.802, 5: 1, 5 + 195 / 2: 0.5, 200: 0}),
        (Schedule("constant"), 10, {0: 1, 9: 1}),
        (
            Schedule("multistep", milestones=(2 / 3, 5 / 6), gamma=0.2),
            1000,
            {0: 1, 665: 1, 666: 0.2, 832: 0.2, 833: 0.04, 999: 0.04},
        ),
        (
            Schedule("multistep", milestones=(2 / 3, 5 / 6), gamma=0.2),
            300,
            {199: 1, 200: 0.2, 249: 0.2, 250: 0.04, 299: 0.04},
        ),
        (
            Schedule("multistep", milestones=(0.66667, 0.83333), gamma=0.2),
            300,
            {199: 1, 200: 0.2, 249: 0.2, 250: 0.04},
        ),
        (Schedule("multistep", milestones=(2 / 3, 5 / 6), gamma=0.2), 3, {0: 1, 1: 1, 2: 0.04}),
    ],
)
def test_factor(schedule, epochs, expected):
    assert {e: factor(schedule, e, epochs) for e in expected} == pytest.approx(expected, abs=1e-12)


def test_cosine_equals_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for epoch in range(20):
        assert factor(Schedule(), epoch, 20) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        scheduler.step()


# ---- optimiser -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "theta"),
    [(Schedule("constant"), [0.5725, 2.285]), (Schedule(), [0.85 - 0.2775 / 2, 2.1 + 0.185 / 2])],
)
def test_two_sgd_steps_by_hand(job, schedule, theta):
    # gradient (1, -2), decay 0.5, lr 0.1: velocity (1.5, -1), theta (0.85, 2.1); then 0.9 v +
    # (1.425, -0.95) = (2.775, -1.85).
    recipe = Training(2, 8, Optimizer("sgd", 0.1, 0.9, weight_decay=0.5), schedule)
    model, data = Two(), samples(8)
    data.labels.clamp_(max=1)
    history = train(
        model,
        data,
        recipe,
        lambda z, t: (z * torch.tensor([1.0, -2.0])).sum(1).mean(),
        job,
        test=data,
    )
    torch.testing.assert_close(model.theta.detach(), torch.tensor(theta))
    assert history.loss == pytest.approx([1 - 4, 0.85 - 4.2])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizer_is_torch_s_with_the_recipe_s_numbers(name, kind):
    optimizer = build_optimizer(
        network(), Optimizer(name, lr=0.03, momentum=0.8, betas=(0.5, 0.99), weight_decay=0.2)
    )
    assert isinstance(optimizer, kind)
    own = (
        {"momentum": 0.8, "nesterov": False}
        if name == "sgd"
        else {"betas": (0.5, 0.99), "eps": 1e-8}
    )
    expected = {"lr": 0.03, **own}
    assert all(group.items() >= expected.items() for group in optimizer.param_groups)


def test_weight_decay_groups():
    model = network()
    names = {id(p): name for name, p in model.named_parameters()}

    def decayed(decay):
        groups = build_optimizer(model, Optimizer(weight_decay=0.3, decay=decay)).param_groups
        assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(
            names.values()
        )
        return {
            names[id(p)]
            for group in groups
            for p in group["params"]
            if group["weight_decay"] == 0.3
        }

    assert decayed("all") == set(names.values())
    assert decayed("matrices") == {"0.weight", "6.weight"}


# ---- timm's --------------------------------------------------------------------------------------


def test_two_steps_of_timm_s_lion_by_hand(job):
    # Lion: theta (1 - lr decay) - lr sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g; gradient
    # (1, -2) always. (1, 2) -> 0.95 (1, 2) -+ 0.1 = (0.85, 2); -> 0.95 (0.85, 2) -+ 0.1.
    optimizer = Optimizer("timm:lion", lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    recipe = Training(2, 8, optimizer, Schedule("constant"))
    model, data = Two(), samples(8)
    data.labels.clamp_(max=1)
    slope = torch.tensor([1.0, -2.0])
    train(model, data, recipe, lambda z, t: (z * slope).sum(1).mean(), job, test=data)
    torch.testing.assert_close(model.theta.detach(), torch.tensor([0.7075, 2.0]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm:lion", {"lr": 0.03, "betas": (0.5, 0.99)}),
        ("timm:nadamw", {"lr": 0.03, "betas": (0.5, 0.99)}),
        ("timm:rmsproptf", {"lr": 0.03, "momentum": 0.8}),
        ("timm:momentum", {"lr": 0.03, "momentum": 0.8, "nesterov": False}),
        ("timm:adan", {"lr": 0.03, "betas": (0.98, 0.92, 0.99)}),
        ("timm:lookahead_adamw", {"lr": 0.03, "betas": (0.5, 0.99)}),
    ],
)
def test_a_timm_optimizer_has_the_numbers_that_it_reads(name, expected):
    recipe = Optimizer(name, lr=0.03, momentum=0.8, betas=(0.5, 0.99), weight_decay=0.2)
    groups = build_optimizer(network(), recipe).param_groups
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert all(group.items() >= expected.items() for group in groups)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:lionn", "timm has no optimizer 'lionn': did you mean 'lion'"),
        ("timm:adahessian", "'timm:adahessian' needs second derivatives"),
        ("timm:fusedadam", "'timm:fusedadam' cannot be built:"),
    ],
)
def test_a_timm_optimizer_that_cannot_be_is_one_line(name, message):
    with pytest.raises(PlanError, match=message):
        build_optimizer(network(), Optimizer(name))


def test_a_missing_timm_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(PlanError, match="'timm:lion' needs timm: pip install timm"):
        build_optimizer(network(), Optimizer("timm:lion"))
