"""GIFT's refinement, alone and with its loss: worked numbers, properties, planner, stage."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from distillery.components import registry
from distillery.components.registry import module_name
from distillery.errors import DistilleryError, PlanError
from distillery.losses.target import Target
from distillery.refinements import gift
from distillery.stages import evaluate as stage
from distillery.store.files import STUDENT_WEIGHTS
from distillery.training.loop import train
from distillery.training.recipe import Mix, Training
from distillery.training.samples import Samples
from helpers.jobs import job_in
from helpers.labels import fkd_job
from helpers.losses import RAMPED, SOFT, TARGET, S, T, Y, gradient_of, loss, random_logits
from helpers.planning import ids, moved, planned


def refined(target=TARGET, **fields):
    return gift.refine(target, gift.Recipe(**fields))


def gift_loss(logits=S, target=TARGET, **fields):
    return loss("cosine", logits, refined(target, **fields)).item()


# --- worked numbers, computed in float64 with plain numpy, independently of torch -----------------


def test_worked_labels():
    expected = [
        [0.821400, 0.244231, 0.003696, -0.477374],
        [-0.146304, 0.549795, 0.153696, 0.753696],
    ]
    torch.testing.assert_close(refined().logits, S.new_tensor(expected), atol=1e-6, rtol=0)
    code = [[0.901579, 0.270957, 0.003696, -0.530826], [-0.162971, 0.599795, 0.170363, 0.837029]]
    torch.testing.assert_close(
        refined(gamma=1 / 11).logits * 1.1, S.new_tensor(code), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, 0.185598),
        ({"gamma": 0.0}, 0.194906),
        ({"gamma": 1 / 11}, 0.186245),
        ({"gamma": 0.3}, 0.183619),
        ({"gamma": 0.5}, 0.208473),
        ({"gamma": 0.9}, 0.324141),
        ({"gamma": 1.0}, 0.359300),
        ({"alpha": 0.0}, 0.187066),
        ({"alpha": 0.1 * 3 / 4}, 0.185988),  # alpha spread over all four classes
    ],
)
def test_worked_losses(fields, value):
    assert gift_loss(**fields) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        (F.softmax(T, 1), 0.121444),
        (F.softmax(T / 20, 1), 0.315583),
        (F.log_softmax(T, 1), 1.194468),
    ],
)
def test_worked_losses_of_labels_that_are_no_logits(labels, value):
    assert gift_loss(target=replace(TARGET, logits=labels)) == pytest.approx(value, abs=1e-6)


def test_worked_gradient():
    leaf = S.clone().requires_grad_()
    _, (found,) = gradient_of("cosine", leaf, refined())
    expected = [
        [-0.033471, -0.017017, -0.075450, 0.106195],
        [0.280463, -0.242846, 0.275957, -0.155660],
    ]
    torch.testing.assert_close(found, S.new_tensor(expected), atol=1e-6, rtol=0)
    assert found.norm().item() == pytest.approx(0.5064, abs=5e-5)
    torch.testing.assert_close(
        (found * S).sum(1), S.new_zeros(2)
    )  # a longer student is no better one


@pytest.mark.parametrize(
    ("name", "fields", "unit", "teacher"),
    [
        ("kl", {"temperature": 20.0}, 0.000436, 0.001382771),
        ("mse+ce", {"weight": 0.1}, 0.466661, 1.517049),
    ],
)
def test_worked_losses_with_refined_labels_of_either_length(name, fields, unit, teacher):
    assert loss(name, target=refined(), **fields).item() == pytest.approx(unit, abs=1e-6)
    assert loss(name, target=refined(length="teacher"), **fields).item() == pytest.approx(
        teacher, abs=1e-6
    )


def test_two_classes_by_hand():
    # h = (0.9, 0.1) / sqrt(0.82), t / |t| = (0, 1)
    student, teacher = (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, 2.0]], dtype=torch.float64),
    )
    target = Target(Y[:1], F.one_hot(Y[:1], 2).double(), teacher)
    near = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(
        refined(target, gamma=1.0).logits, student.new_tensor([[0.993884, 0.110432]]), **near
    )
    torch.testing.assert_close(
        refined(target).logits, student.new_tensor([[0.099388, 0.911043]]), **near
    )
    assert gift_loss(student, target) == pytest.approx(0.891550, abs=1e-6)
    assert gift_loss(student, target, gamma=1 / 11) == pytest.approx(0.902169, abs=1e-6)


# --- properties -----------------------------------------------------------------------------------


def random_target(classes=20):
    s, t = random_logits(classes)
    hard = torch.arange(64) % classes
    return s, Target(hard, F.one_hot(hard, classes).double(), t)


def test_the_authors_form_is_the_convex_one_at_one_eleventh():
    s, target = random_target()
    smoothed = torch.full_like(s, 0.1 / 19).scatter_(1, target.hard[:, None], 0.9)
    unit = [v / v.square().sum(1, keepdim=True).sqrt() for v in (target.logits, smoothed)]
    authors = loss("cosine", s, replace(target, logits=unit[0] + 0.1 * unit[1]))
    assert gift_loss(s, target, gamma=1 / 11) == pytest.approx(authors.item(), abs=1e-12)


def test_lengths_do_not_matter_and_shifts_do():
    s, target = random_target()
    longer = replace(target, logits=0.2 * target.logits)
    assert gift_loss(10 * s, longer) == pytest.approx(gift_loss(s, target), abs=1e-12)
    assert gift_loss(10 * S) == pytest.approx(0.185598, abs=1e-6)
    assert gift_loss(S + 1) == pytest.approx(0.292141, abs=1e-6)


def test_gamma_0_is_the_cosine_loss_and_gamma_1_ignores_the_teacher():
    s, target = random_target()
    assert gift_loss(s, target, gamma=0.0) == pytest.approx(
        loss("cosine", s, target).item(), abs=1e-12
    )
    other = replace(target, logits=target.logits.flip(0))
    assert gift_loss(s, target, gamma=1.0) == gift_loss(s, other, gamma=1.0) != gift_loss(s, other)


def test_length_teacher_keeps_the_teachers_lengths():
    _, target = random_target()
    long, unit = (refined(target, length=length).logits for length in ("teacher", "unit"))
    theirs = target.logits.norm(dim=1)
    torch.testing.assert_close(long.norm(dim=1) / unit.norm(dim=1), theirs)
    assert (unit.norm(dim=1) <= 1).all() and (
        unit.norm(dim=1) >= 0.8
    ).all()  # 1 - 2 gamma, where h opposes t
    torch.testing.assert_close(refined(target, length="teacher", gamma=0.0).logits, target.logits)


def test_mixed_labels_by_hand():
    # classes 0 and 1 by 0.3 and 0.7: h = 0.3 (0.9, a, a, a) + 0.7 (a, 0.9, a, a) with a = 1/30
    mixed = torch.tensor([[0.3, 0.7, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]], dtype=torch.float64)
    logits = 0.3 * T + 0.7 * T.flip(0)
    found = refined(replace(TARGET, mixed=mixed, logits=logits, lam=0.3)).logits
    a = 0.1 / 3
    h = torch.tensor([0.27 + 0.7 * a, 0.63 + 0.3 * a, a, a], dtype=torch.float64)
    expected = 0.1 * h / h.square().sum().sqrt() + 0.9 * logits[0] / logits[0].square().sum().sqrt()
    torch.testing.assert_close(found[0], expected)


def test_all_but_the_logits_is_kept_and_nothing_has_a_gradient():
    teacher = T.clone().requires_grad_()
    before = replace(TARGET, logits=teacher, epoch=7, lam=0.5)
    after = refined(before)
    assert (after.epoch, after.lam) == (7, 0.5) and after.hard is Y and after.mixed is TARGET.mixed
    assert not after.logits.requires_grad and torch.equal(teacher.detach(), T)


@pytest.mark.parametrize("name", SOFT)
def test_every_soft_loss_takes_refined_labels(name):
    leaf = S.clone().requires_grad_()
    found, (gradient,) = gradient_of(name, leaf, refined(RAMPED))
    assert found.isfinite() and gradient.isfinite().all() and found != loss(name, target=RAMPED)


def test_zeros_are_finite_for_student_and_teacher():
    leaf = torch.zeros(2, 4, requires_grad=True)
    nothing = refined(Target(Y, TARGET.mixed.float(), torch.zeros(2, 4)))
    found, (gradient,) = gradient_of("cosine", leaf, nothing)
    assert found == 1 and gradient.isfinite().all() and nothing.logits.isfinite().all()


def test_hard_labels_cannot_be_refined():
    with pytest.raises(
        DistilleryError, match="'gift' needs soft labels: set labels to 'static' or 'dynamic'"
    ):
        refined(replace(TARGET, logits=None))


# --- the planner ----------------------------------------------------------------------------------

GIFT = {"loss": {"name": "cosine"}, "refine": {"name": "gift"}}


def evaluations(plan, method):
    nodes = [node for node in plan.missing(["table2"]) if node.spec.stage == "evaluate"]
    return [node.spec for node in nodes if f"-{method}-" in node.spec.label]


def test_a_refinement_is_a_part_of_the_protocol_that_names_it(project):
    plan = planned(project, evaluate={"static": GIFT})
    spec, plain = evaluations(plan, "infer")[0], evaluations(planned(project), "infer")[0]
    assert spec.recipe["refine"] == {"name": "gift", "gamma": 0.1, "alpha": 0.1, "length": "unit"}
    assert set(spec.roots) >= {module_name("refinement", "gift"), module_name("loss", "cosine")}
    assert spec.recipe.keys() - plain.recipe.keys() == {"refine"}
    assert module_name("refinement", "gift") not in plain.roots
    assert "refine" not in evaluations(plan, "random")[0].recipe


def test_a_refinement_switched_off_again_leaves_no_trace(project):
    assert ids(planned(project, evaluate={"static": {"refine": None}})) == ids(planned(project))
    changed = moved(planned(project), planned(project, evaluate={"static": {"refine": "gift"}}))
    assert {label.partition("-d0")[0] for label in changed} == {
        "evaluate/digits-infer-ipc5-static-net-a"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hard": {"refine": "gift"}},
            "params.yaml.evaluate.hard.refine = 'gift': needs soft labels, "
            "row 'Random' has hard ones",
        ),
        (
            {"static": {"refine": "gfit"}},
            "evaluate.static.refine: refinement 'gfit' does not exist: did you mean 'gift'?",
        ),
        (
            {"static": {"refine": {"name": "gift", "gama": 1}}},
            "static.refine.gama: unknown key: did you mean 'gamma'?",
        ),
        ({"static": {"refine": {"name": "gift", "gamma": 1.5}}}, "static.refine.gamma = 1.5:"),
        ({"static": {"refine": {}}}, "static.refine.name: is required, it names a refinement"),
        ({"static": {"refin": "gift"}}, "static.refin: unknown key: did you mean 'refine'?"),
        (
            {"static": {"loss": "ce", "refine": "gift"}},
            "static.refine = 'gift': changes soft labels, loss 'ce' reads none",
        ),
        (
            {"static": {"loss": "dkd", "training": {"mix": {"name": "mixup"}}}},
            "static.training.mix.name = 'mixup': loss 'dkd' is not defined for mixed images; "
            "set mix to 'none'",
        ),
    ],
)
def test_a_wrong_protocol_is_one_line(project, change, message):
    with pytest.raises(PlanError) as error:
        planned(project, evaluate=change).missing(["table2"])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_mixing_is_planned_with_the_losses_that_are_defined_for_it(project):
    mixing = {"training": {"mix": {"name": "cutmix"}}}
    for name in set(SOFT) - {"wsld", "dkd", "nkd"}:
        assert evaluations(planned(project, evaluate={"static": {"loss": name, **mixing}}), "infer")


# --- training -------------------------------------------------------------------------------------


def test_refinement_and_loss_are_two_switches_of_one_evaluation(tmp_path):
    job, losses, students = fkd_job(tmp_path), [], []  # with mixup
    for name in ("kl", "cosine"):
        for refine in ({}, {"refine": {"name": "gift", "length": "teacher"}}):
            recipe = job.recipe | {"loss": {"name": name}} | refine
            one = job_in(tmp_path / f"{name}{len(refine)}", recipe=recipe, inputs=job.inputs)
            losses += stage.make(one)["loss"]
            students.append((one.out / STUDENT_WEIGHTS).read_bytes())
    assert torch.tensor(losses).isfinite().all() and len(losses) == 8
    assert len(set(students)) == 4


def test_the_loop_says_how_a_batch_was_mixed_and_in_which_epoch(tmp_path):
    stream = torch.Generator().manual_seed(0)
    images, zero = torch.rand(12, 1, 4, 4, generator=stream), torch.zeros(1, 1, 1)
    samples = Samples(torch.arange(12) % 3, lambda indices: images[indices], zero, zero + 1)
    for mix in ("none", "mixup"):
        targets = []

        def watched(logits, target, targets=targets):
            targets.append(target)
            return F.cross_entropy(logits, target.mixed)

        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        job = job_in(tmp_path / mix)
        train(model, samples, Training(3, 6, mix=Mix(mix)), watched, job, test=samples)
        assert [target.epoch for target in targets] == [0, 0, 1, 1, 2, 2]
        mixed = [bool((target.mixed.amax(1) < 1).any()) for target in targets]
        assert [target.lam != 1 for target in targets] == mixed == [mix == "mixup"] * 6


def test_the_planner_and_the_jobs_find_the_refinement_by_name():
    module, recipe = registry.build("refinement", {"name": "gift", "gamma": 0.3})
    assert module is gift and recipe == gift.Recipe(0.3, 0.1, "unit")
