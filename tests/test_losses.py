"""Losses against worked numbers, finite differences and each other."""

import pytest
import torch
from torch.nn import functional as F

from distillery import components
from distillery.errors import DistilleryError
from distillery.losses.target import Target

S = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
T = torch.tensor([[3.0, 1.0, 0.0, -2.0], [-0.5, 1.5, 0.5, 2.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])
TARGET = Target(Y, F.one_hot(Y, 4).double(), T)
SOFT = ("kl", "soft-ce", "mse", "mse+ce")


def loss(name, logits=S, target=TARGET, **fields):
    module, recipe = components.build("loss", {"name": name, **fields})
    return module.loss(logits, target, recipe)


# Computed in float64 with plain numpy, independently of torch.
@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("ce", {}, 0.892443),
        ("mse", {}, 1.593750),
        ("mse+ce", {"weight": 0.1}, 1.682994),
        ("mse+ce", {"weight": 0.15}, 1.727616),
        ("soft-ce", {}, 0.978771),
        ("soft-ce", {"temperature": 20.0}, 1.385062),
        ("kl", {"temperature": 1.0}, 0.226903),
        ("kl", {"temperature": 4.0}, 0.032950),
        ("kl", {"temperature": 4.0, "squared": True}, 0.527193),
        ("kl", {"temperature": 20.0}, 0.001574209),
        ("kl", {"temperature": 20.0, "squared": True}, 0.629684),
    ],
)
def test_worked_numbers(name, fields, value):
    assert loss(name, **fields).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "gradient"),
    [
        ("ce", {}, [[-0.144950, 0.079222, 0.017677, 0.048051], [0.106919, -0.381836, 0.130591, 0.144326]]),
        (
            "kl",
            {"temperature": 20.0},
            [[-0.000284, -0.000102, -0.000245, 0.000632], [0.000414, -0.000164, 0.000179, -0.000429]],
        ),
        ("mse", {}, [[-0.25, -0.125, -0.25, 0.5], [0.15, -0.325, -0.05, -0.525]]),
        ("soft-ce", {}, [[-0.064462, 0.022448, -0.003209, 0.045224], [0.090890, -0.000278, 0.087019, -0.177631]]),
    ],
)
def test_worked_gradients(name, fields, gradient):
    logits = S.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(name, logits, **fields), logits)
    torch.testing.assert_close(found, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["ce", *SOFT])
def test_gradient_equals_finite_differences(name):
    assert torch.autograd.gradcheck(lambda logits: loss(name, logits), S.clone().requires_grad_())


@pytest.mark.parametrize("temperature", [1.0, 4.0, 30.0])
def test_kl_is_soft_cross_entropy_minus_entropy(temperature):
    p = F.softmax(T / temperature, 1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(loss("kl", temperature=temperature), loss("soft-ce", temperature=temperature) - entropy)


def test_kl_at_high_temperature_is_half_the_squared_error_of_centred_logits():
    s, t = torch.randn(2, 8, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    difference = (s - t) - (s - t).mean(1, keepdim=True)
    found = loss("kl", s, Target(Y, s, t), temperature=20.0)
    torch.testing.assert_close(found * 800, difference.square().mean(), rtol=0.01, atol=0)


def test_cross_entropy_of_mixed_labels_is_the_mixture_of_cross_entropies():
    other, lam = Y.flip(0), 0.3
    mixed = lam * F.one_hot(Y, 4).double() + (1 - lam) * F.one_hot(other, 4).double()
    expected = lam * F.nll_loss(F.log_softmax(S, 1), Y) + (1 - lam) * F.nll_loss(F.log_softmax(S, 1), other)
    torch.testing.assert_close(loss("ce", target=Target(Y, mixed)), expected)


def test_mse_ce_takes_the_classes_before_mixing():
    mixed = torch.full((2, 4), 0.25, dtype=torch.float64)
    assert loss("mse+ce", target=Target(Y, mixed, T)) == loss("mse+ce")


def test_mixing_logits_is_not_mixing_probabilities():
    logits = 0.3 * T + 0.7 * T.flip(0)
    probabilities = 0.3 * F.softmax(T, 1) + 0.7 * F.softmax(T.flip(0), 1)
    assert (F.softmax(logits, 1) - probabilities).abs().max() > 0.05


@pytest.mark.parametrize("name", SOFT)
def test_soft_loss_without_soft_labels_says_what_to_choose(name):
    with pytest.raises(DistilleryError, match=rf"loss '{name.replace('+', '.')}'.*'static' or 'dynamic'"):
        loss(name, target=Target(Y, TARGET.mixed))


def test_every_loss_is_found_by_name_and_ends_in_a_number():
    assert {"ce", *SOFT} <= components.index("loss").keys()
    assert all(loss(name).shape == () and loss(name).isfinite() for name in components.index("loss"))
