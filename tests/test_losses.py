"""Losses against worked numbers, finite differences and each other."""

import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from distillery.components import registry
from distillery.errors import DistilleryError
from distillery.losses import dkd, wsld
from distillery.losses.soft_cross_entropy import soft_cross_entropy
from distillery.losses.target import Target, non_target_logits
from distillery.plan.types import traits
from helpers.losses import RAMPED, SOFT, TARGET, UNMIXED, S, T, Y, gradient_of, loss, random_logits


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
        ("raw-ce", {}, 20.147446),
        ("kl", {"temperature": 1.0}, 0.226903),
        ("kl", {"temperature": 4.0}, 0.032950),
        ("kl", {"temperature": 4.0, "squared": True}, 0.527193),
        ("kl", {"temperature": 20.0}, 0.001574209),
        ("kl", {"temperature": 20.0, "squared": True}, 0.629684),
        ("kl+ce", {"squared": False}, 0.090818),
        ("kl+ce", {}, 0.718928),
        ("soft-ce+ce", {}, 1.068015),
        ("cosine", {}, 0.194906),
        ("kd", {}, 0.563718),
        ("kd", {"temperature": 1.0, "hard": 0.5, "soft": 0.5}, 0.559673),
        ("kd", {"temperature": 20.0}, 0.655960),
        ("wsld", {}, 37.057603),
        ("wsld", {"temperature": 2.0, "alpha": 2.5}, 10.090213),
        ("dkd", {}, 6.502259),
        ("dkd", {"beta": 2.0}, 2.353078),
        ("dkd", {"temperature": 1.0, "beta": 0.5}, 1.107518),
        ("nkd", {}, 35.577975),
        ("nkd", {"temperature": 1.0, "gamma": 1.5}, 2.712826),
    ],
)
def test_worked_numbers(name, fields, value):
    assert loss(name, target=RAMPED, **fields).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "values"),
    [
        ("ce", {}, (0.342350, 1.442536)),
        ("mse", {}, (1.562500, 1.625000)),
        ("kl", {"temperature": 1.0}, (0.093100, 0.360707)),
        ("kl", {"temperature": 20.0}, (0.001822, 0.001327)),
        ("cosine", {}, (1 - 0.758175, 1 - 0.852013)),
    ],
)
def test_worked_numbers_of_each_sample(name, fields, values):
    found = [
        loss(
            name,
            S[i : i + 1],
            Target(Y[i : i + 1], TARGET.mixed[i : i + 1], T[i : i + 1]),
            **fields,
        )
        for i in (0, 1)
    ]
    assert [value.item() for value in found] == pytest.approx(values, abs=1e-6)


def test_worked_parts_of_weighted_and_decoupled_losses():
    near = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(wsld.weights(S, T, Y), S.new_tensor([0.857802, 0.632719]), **near)
    for temperature, crossed in ((2.0, (1.138361, 1.364057)), (4.0, (1.323961, 1.380515))):
        torch.testing.assert_close(
            soft_cross_entropy(S, T, temperature), S.new_tensor(crossed), **near
        )
    for temperature, tckd, nckd in ((4.0, 0.077575, 0.691530), (1.0, 0.022640, 0.384872)):
        assert [part.item() for part in dkd.tckd_nckd(S, T, Y, temperature)] == pytest.approx(
            (tckd, nckd), abs=1e-6
        )
    # nkd without its other classes is the cross entropy and the target part
    assert (loss("nkd", gamma=0.0) - loss("ce")).item() == pytest.approx(0.314476, abs=1e-6)
    for fields, rest in (({}, 34.371057), ({"temperature": 1.0, "gamma": 1.5}, 1.505907)):
        assert (loss("nkd", **fields) - loss("nkd", gamma=0.0)).item() == pytest.approx(
            rest, abs=1e-6
        )


@pytest.mark.parametrize(
    ("name", "fields", "norm", "gradient"),
    [
        (
            "ce",
            {},
            0.4744,
            [[-0.144950, 0.079222, 0.017677, 0.048051], [0.106919, -0.381836, 0.130591, 0.144326]],
        ),
        (
            "kl",
            {"temperature": 20.0},
            0.00098,
            [
                [-0.000284, -0.000102, -0.000245, 0.000632],
                [0.000414, -0.000164, 0.000179, -0.000429],
            ],
        ),
        ("mse", {}, 0.8927, [[-0.25, -0.125, -0.25, 0.5], [0.15, -0.325, -0.05, -0.525]]),
        (
            "soft-ce",
            {},
            0.2326,
            [
                [-0.064462, 0.022448, -0.003209, 0.045224],
                [0.090890, -0.000278, 0.087019, -0.177631],
            ],
        ),
    ],
)
def test_worked_gradients(name, fields, norm, gradient):
    logits = S.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(name, logits, **fields), logits)
    torch.testing.assert_close(
        found, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert found.norm().item() == pytest.approx(norm, abs=5e-5)


@pytest.mark.parametrize("name", ["ce", *sorted(set(SOFT) - {"wsld"})])
def test_gradient_equals_finite_differences(name):
    assert torch.autograd.gradcheck(lambda logits: loss(name, logits), S.clone().requires_grad_())


def test_the_weights_of_wsld_are_constants_to_its_gradient():
    # finite differences would see the weights change; with the weights of S frozen they see what
    # autograd must see
    frozen = wsld.weights(S, T, Y)

    def constant(logits):
        return (
            F.cross_entropy(logits, Y)
            + 2.25 * 16 * (frozen * soft_cross_entropy(logits, T, 4.0)).mean()
        )

    leaf = S.clone().requires_grad_()
    assert torch.autograd.gradcheck(constant, leaf)
    expected, found = (
        torch.autograd.grad(f(leaf), leaf)[0]
        for f in (constant, lambda logits: loss("wsld", logits))
    )
    torch.testing.assert_close(found, expected)
    assert not wsld.weights(leaf, T, Y).requires_grad


@pytest.mark.parametrize("name", SOFT)
def test_no_loss_has_a_gradient_for_the_teacher(name):
    student, teacher = S.clone().requires_grad_(), T.clone().requires_grad_()
    loss(name, student, replace(TARGET, logits=teacher)).backward()
    assert teacher.grad is None and student.grad.norm() > 0


@pytest.mark.parametrize("temperature", [1.0, 4.0, 30.0])
def test_kl_is_soft_cross_entropy_minus_entropy(temperature):
    p = F.softmax(T / temperature, 1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(
        loss("kl", temperature=temperature), loss("soft-ce", temperature=temperature) - entropy
    )


@pytest.mark.parametrize(
    ("classes", "within"), [(10, 0.03), (100, 0.01), (200, 0.01), (1000, 0.01)]
)
def test_kl_at_high_temperature_is_the_squared_error_of_centred_logits_over_twice_its_square(
    classes, within
):
    s, t = random_logits(classes)
    student, target = s.clone().requires_grad_(), Target(torch.zeros(64, dtype=torch.int64), s, t)
    centred = (s - t) - (s - t).mean(1, keepdim=True)
    found, (gradient,) = gradient_of("kl", student, target, temperature=20.0)
    torch.testing.assert_close(found * 800, centred.square().mean(), rtol=within, atol=0)
    _, (squares,) = gradient_of("mse", student, target)
    # mse's gradient is 2 / (B C) per unit of difference, not centred; kl's 1 / (B C T^2)
    ratio = ((squares - squares.mean(1, keepdim=True)).norm() / gradient.norm()).item()
    assert 800 * (1 - 2 * within) < ratio < 800 * (1 + 2 * within)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_the_labels_part_and_the_other_classes_by_the_teachers_share(temperature):
    s, t = random_logits(10)
    hard = torch.arange(64) % 10
    rows = zip(s.split(1), t.split(1), hard.split(1), strict=True)
    tckd, nckd = (
        torch.stack(part)
        for part in zip(*(dkd.tckd_nckd(*row, temperature) for row in rows), strict=True)
    )
    share = 1 - F.softmax(t / temperature, 1)[torch.arange(64), hard]
    found = loss("kl", s, Target(hard, s, t), temperature=temperature, squared=True)
    torch.testing.assert_close(found, (tckd + share * nckd).mean())


def test_where_student_and_teacher_agree_divergences_vanish_and_cross_entropies_do_not():
    agreed = replace(TARGET, logits=S, epoch=19)
    assert [part.item() for part in dkd.tckd_nckd(S, S, Y, 4.0)] == pytest.approx((0, 0), abs=1e-12)
    for name in ("dkd", "wsld", "nkd"):
        extra = (loss(name, target=agreed) - loss("ce")).item()
        assert extra == pytest.approx(0, abs=1e-9) if name == "dkd" else extra > 1


def test_dkd_is_finite_for_a_certain_student_and_its_columns_are_exact():
    certain = torch.tensor([[200.0, 0.0, 1.0, -3.0], [0.0, 900.0, 1.0, 2.0]]).requires_grad_()
    value = loss("dkd", certain, Target(Y, F.one_hot(Y, 4).float(), T.float()))
    (gradient,) = torch.autograd.grad(value, certain)
    assert value.isfinite() and gradient.isfinite().all()
    assert non_target_logits(S, Y).tolist() == [[0.5, -1.0, 0.0], [0.1, 0.3, 0.4]]


def test_dkd_rises_to_its_weight_over_the_first_epochs():
    full = loss("dkd", ramp=1) - loss("ce")
    for epoch, risen in ((0, 0.05), (9, 0.5), (19, 1.0), (200, 1.0)):
        torch.testing.assert_close(
            loss("dkd", target=replace(TARGET, epoch=epoch)) - loss("ce"), risen * full
        )


@pytest.mark.parametrize("name", ["ce", *SOFT])
def test_what_a_constant_added_to_all_logits_changes(name):
    shifted = loss(name, S + 1, replace(RAMPED, logits=T + 2)) - loss(name, target=RAMPED)
    compares_logits = name in ("mse", "mse+ce", "cosine", "raw-ce")
    assert (shifted.abs() > 0.01) if compares_logits else shifted.abs() < 1e-9


def test_cross_entropy_of_mixed_labels_is_the_mixture_of_cross_entropies():
    other, lam = Y.flip(0), 0.3
    mixed = lam * F.one_hot(Y, 4).double() + (1 - lam) * F.one_hot(other, 4).double()
    expected = lam * F.nll_loss(F.log_softmax(S, 1), Y) + (1 - lam) * F.nll_loss(
        F.log_softmax(S, 1), other
    )
    torch.testing.assert_close(loss("ce", target=Target(Y, mixed)), expected)


def test_mse_ce_takes_the_classes_before_mixing():
    mixed = torch.full((2, 4), 0.25, dtype=torch.float64)
    assert loss("mse+ce", target=Target(Y, mixed, T)) == loss("mse+ce")


@pytest.mark.parametrize(
    ("name", "part", "weight"),
    [
        ("kl+ce", ("kl", {"temperature": 20.0, "squared": True}), 0.1),
        ("soft-ce+ce", ("soft-ce", {}), 0.1),
    ],
)
def test_a_sum_is_its_parts_with_the_mixed_labels(name, part, weight):
    mixed = replace(TARGET, mixed=0.3 * TARGET.mixed + 0.7 * TARGET.mixed.flip(0), lam=0.3)
    expected = loss(part[0], target=mixed, **part[1]) + weight * loss("ce", target=mixed)
    torch.testing.assert_close(loss(name, target=mixed), expected)
    assert loss(name, target=mixed) != loss(name)


def test_kd_is_its_parts_with_the_mixed_labels():
    mixed = replace(TARGET, mixed=0.3 * TARGET.mixed + 0.7 * TARGET.mixed.flip(0), lam=0.3)
    parts = 0.1 * loss("ce", target=mixed) + 0.9 * loss(
        "kl", target=mixed, temperature=4.0, squared=True
    )
    torch.testing.assert_close(loss("kd", target=mixed), parts)


@pytest.mark.parametrize("name", UNMIXED)
def test_losses_that_need_the_class_of_an_image_refuse_mixed_ones(name):
    with pytest.raises(
        DistilleryError,
        match=f"loss '{name}' is not defined for mixed images: set training.mix to 'none'",
    ):
        loss(name, target=replace(TARGET, lam=0.3))


def test_the_losses_that_refuse_mixed_images_say_so_to_the_planner():
    refusing = {name for name in registry.index("loss") if not traits("loss", name).mixed_images}
    assert refusing == set(UNMIXED)
    assert {
        name for name in registry.index("loss") if traits("loss", name).needs_soft_labels
    } == set(SOFT)


@pytest.mark.parametrize("name", ["ce", *SOFT])
def test_losses_in_float32_and_under_autocast_are_those_in_float64(name):
    single = Target(Y, TARGET.mixed.float(), T.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(name, S.float(), single)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(name, S.float(), single))
    torch.testing.assert_close(found.double(), loss(name), rtol=1e-4, atol=1e-6)


def test_mixing_logits_is_not_mixing_probabilities():
    logits = 0.3 * T + 0.7 * T.flip(0)
    probabilities = 0.3 * F.softmax(T, 1) + 0.7 * F.softmax(T.flip(0), 1)
    assert (F.softmax(logits, 1) - probabilities).abs().max() > 0.05


@pytest.mark.parametrize("name", SOFT)
def test_soft_loss_without_soft_labels_says_what_to_choose(name):
    with pytest.raises(
        DistilleryError, match=rf"'{re.escape(name)}' needs soft labels.*'static' or 'dynamic'"
    ):
        loss(name, target=Target(Y, TARGET.mixed))


def test_every_loss_is_found_by_name_and_ends_in_a_number():
    assert {"ce", *SOFT} <= registry.index("loss").keys()
    assert all(loss(name).shape == () and loss(name).isfinite() for name in registry.index("loss"))
