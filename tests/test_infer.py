"""INFER: the budget table, the optimisation written out a second time, what a set holds."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.errors import BudgetError, DistilleryError, TeacherError
from distillery.methods import infer
from distillery.methods.shared import recovery
from distillery.sets.distilled import DistilledSet
from distillery.sets.parts import Kind, Part
from distillery.store.job import Job
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.methods import INFER, distil, two_teachers
from helpers.tiny import TinySet, tiny_set, tiny_teacher


def run(
    folder: Path,
    train: TinySet,
    ipc: int = 5,
    key: str = "key",
    job: Job | None = None,
    **fields: object,
) -> DistilledSet:
    return distil({**INFER, **fields}, train, ipc, job or job_in(folder, key), two_teachers(train))


def subsets(ipc: int, classes: int, teachers: int) -> int:
    return infer.subsets(infer.Recipe(("net",) * teachers), ipc, classes)


@pytest.mark.parametrize(
    ("classes", "teachers", "ipc", "count"),
    [
        *((10, 4, 10, 7), (10, 4, 50, 35), (100, 4, 10, 9), (100, 4, 50, 48), (100, 4, 100, 96)),
        *((200, 4, 10, 9), (200, 4, 50, 49), (1000, 3, 10, 9), (1000, 3, 50, 49)),
    ],
)
def test_number_of_subsets_is_the_papers(classes, teachers, ipc, count):
    assert subsets(ipc, classes, teachers) == count


def test_smallest_workable_budget_is_named_and_works():
    for classes, teachers, smallest in [(10, 4, 2), (2, 3, 3), (2, 4, 3), (100, 4, 2)]:
        with pytest.raises(BudgetError, match=rf"ask for ipc {smallest} or more"):
            subsets(smallest - 1, classes, teachers)
        assert subsets(smallest, classes, teachers) == 1


def test_more_subsets_than_a_class_has_images(tmp_path):
    with pytest.raises(BudgetError, match="4 images per class asked for, class 'class 0' has 3"):
        run(tmp_path, tiny_set(per_class=3), ipc=6)


def compensator_written_out(net: nn.Module, natural: Tensor) -> Tensor:
    """Algorithm 1 for a subset and a teacher, torch's statistics; natural: (C, 1, 8, 8)."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [m.register_forward_hook(lambda m, args, _: inputs.update({m: args[0]})) for m in norms]
    u = torch.zeros(1, *natural.shape[1:], requires_grad=True)
    adam = torch.optim.Adam([u], betas=(0.5, 0.9))
    for t in range(5):
        adam.param_groups[0]["lr"] = 0.5 * 0.1 * (1 + math.cos(math.pi * t / 5))
        loss = cross_entropy(net(natural + u), torch.arange(len(natural)))
        for weight, m in zip([10, 1], norms, strict=True):
            a = inputs[m]
            gap = (a.mean((0, 2, 3)) - m.running_mean).norm() + (
                a.var((0, 2, 3), correction=0) - m.running_var
            ).norm()
            loss = loss + 0.5 * weight * gap
        adam.zero_grad()
        loss.backward()
        adam.step()
    for hook in hooks:
        hook.remove()
    return u.detach()[0]


@pytest.mark.parametrize(
    "fields",
    [{}, {"parallel_groups": 2}, {"micro_batch": 3}, {"parallel_groups": 3, "micro_batch": 2}],
    ids=str,
)
def test_compensators_are_algorithm_1_written_out(fields, tmp_path):
    train = tiny_set()
    parts = run(tmp_path, train, **fields).tensors
    assert parts["natural"].shape == (3, 4, 1, 8, 8) and parts["compensators"].shape == (
        2,
        3,
        1,
        8,
        8,
    )
    for j, teacher in enumerate(two_teachers(train)):
        for k in range(3):
            expected = (
                compensator_written_out(
                    teacher.model, (parts["natural"][k].float() / 255 - 0.5) / 0.25
                )
                * 0.25
            )
            torch.testing.assert_close(
                parts["compensators"][j, k].float(), expected, rtol=1e-3, atol=2e-4
            )


def test_subsets_are_disjoint_images_of_each_class_in_order(tmp_path):
    train = tiny_set(per_class=3)
    natural = run(tmp_path, train)["natural"].flatten(0, 1)
    found = [int((train.images == image).flatten(1).all(1).nonzero()) for image in natural]
    assert len(set(found)) == 12
    assert train.labels[found].tolist() == [0, 1, 2, 3] * 3


def test_networks_recover_in_the_layout_that_is_fastest_here():
    train = tiny_set(channels=3)
    teacher = tiny_teacher(train)
    objective = recovery.TeacherObjective.of(
        teacher, 0.5, infer.Recipe(("a", "b")), train.shape, torch.device("cpu")
    )
    assert all(
        p.is_contiguous(memory_format=torch.channels_last)
        for p in objective.model.parameters()
        if p.ndim == 4
    )


def test_optimisation_lowers_its_objective(tmp_path):
    train = tiny_set()
    parts = run(tmp_path, train, iterations=60).tensors
    for j, teacher in enumerate(two_teachers(train)):
        objective = recovery.TeacherObjective.of(
            teacher, 0.5, infer.Recipe(("a", "b")), (1, 8, 8), torch.device("cpu")
        )
        natural = (parts["natural"].float() / 255 - 0.5) / 0.25
        moved = natural + parts["compensators"][j].float().unsqueeze(1) / 0.25
        before, after = (
            objective.gradient(images, torch.arange(4))[:2] for images in (natural, moved)
        )
        assert after[0] + 0.5 * after[1] < 0.7 * (before[0] + 0.5 * before[1])


def test_teachers_come_out_as_they_went_in(tmp_path):
    train = tiny_set()
    teachers = two_teachers(train)
    before = [{k: v.clone() for k, v in t.model.state_dict().items()} for t in teachers]
    distil({**INFER, "augment": ["roll:4"]}, train, 5, job_in(tmp_path), teachers)
    for teacher, state in zip(teachers, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in teacher.model.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in teacher.model.modules())


def worked_set() -> DistilledSet:
    """M = 2, K = 2, three classes, images of one pixel."""
    natural = torch.tensor([[0, 20, 40], [60, 80, 100]], dtype=torch.uint8).view(2, 3, 1, 1, 1)
    compensators = torch.tensor([[0.25, -0.25], [0.5, 1.0]], dtype=torch.float16).view(
        2, 2, 1, 1, 1
    )
    parts = {"natural": natural, "compensators": compensators}
    return DistilledSet(
        "infer",
        3,
        ("a", "b", "c"),
        (0.5,),
        (0.25,),
        {name: Part(tensor, Kind.IMAGE) for name, tensor in parts.items()},
        {"natural_instances": True},
    )


def test_expansion_worked_by_hand():
    images, labels = infer.expand(worked_set()).images, infer.expand(worked_set()).labels
    levels = [0, 20, 40, 60, 80, 100]
    expected = [v / 255 for v in levels]
    expected += [v / 255 + 0.25 for v in levels[:3]] + [0.0, 80 / 255 - 0.25, 100 / 255 - 0.25]
    expected += [v / 255 + 0.5 for v in levels[:3]] + [1.0, 1.0, 1.0]
    assert images.shape == (18, 1, 1, 1) and labels.tolist() == [0, 1, 2] * 6
    torch.testing.assert_close(images.flatten(), torch.tensor(expected))


def test_instances_lie_in_range_are_natural_for_no_compensator_and_share_it_otherwise(tmp_path):
    train = tiny_set()
    distilled = run(tmp_path, train, iterations=30)
    images = distilled.expand().images.unflatten(0, (3, 3, 4))
    natural = distilled["natural"].float() / 255
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal(images[0], natural)
    inside = (images[1:] > 0) & (images[1:] < 1)
    shared = distilled["compensators"].float().unsqueeze(2).expand_as(images[1:])
    assert inside.float().mean() > 0.5
    torch.testing.assert_close((images[1:] - natural)[inside], shared[inside], rtol=0, atol=1e-6)


def test_without_natural_instances_the_set_is_m_fold(tmp_path):
    train = tiny_set()
    full, paper = run(tmp_path / "a", train), run(tmp_path / "b", train, natural_instances=False)
    assert torch.equal(full["compensators"], paper["compensators"])
    assert len(full.expand().labels) == 36 and torch.equal(
        paper.expand().images, full.expand().images[12:]
    )
    assert paper.expand().labels.tolist() == [0, 1, 2, 3] * 6
    assert paper.bytes == full.bytes and paper.layout == {"natural_instances": False}


@pytest.mark.parametrize(
    ("classes", "ipc", "percent"),
    [(10, 10, 0.257), (10, 50, 1.283), (100, 10, 2.530), (100, 50, 13.493)],
    ids=str,
)
def test_bytes_give_the_strict_compression_ratios(classes, ipc, percent, tmp_path):
    # CIFAR's shape and M = 4: K C px + K M px 2 bytes, and 2 bytes per logit of the (M + 1) K C
    # labels, over 50000 px
    train = tiny_set(classes, 50, channels=3, size=32)
    count, pixels = subsets(ipc, classes, 4), 3 * 32**2
    recipe = {**INFER, "teachers": list("abcd"), "iterations": 1, "parallel_groups": 8}
    distilled = distil(
        recipe, train, ipc, job_in(tmp_path), [tiny_teacher(train, 2, seed) for seed in range(4)]
    )
    assert distilled.bytes == {
        "natural": count * classes * pixels,
        "compensators": count * 4 * pixels * 2,
    }
    instances = len(infer.expand(distilled.to("meta")).images)
    assert instances == 5 * count * classes
    assert 100 * (sum(distilled.bytes.values()) + instances * classes * 2) / (
        50_000 * pixels
    ) == pytest.approx(percent, abs=5e-4)


def test_same_cell_same_bytes_other_cell_other_bytes(tmp_path):
    train = tiny_set()
    for name, key in (("a", "one"), ("b", "one"), ("c", "two")):
        run(tmp_path / name, train, key=key, augment=["roll:4"]).save(tmp_path / name)
    one, again, other = ((tmp_path / name / "distilled.safetensors").read_bytes() for name in "abc")
    assert one == again != other


def test_augmentation_draws_do_not_depend_on_what_runs_side_by_side(tmp_path):
    train = tiny_set()
    alone, together = (
        run(tmp_path / str(n), train, augment=["roll:4"], parallel_groups=n).tensors for n in (1, 3)
    )
    torch.testing.assert_close(
        alone["compensators"], together["compensators"], rtol=1e-3, atol=2e-4
    )


def test_killed_and_started_again_gives_the_same_bytes(tmp_path, monkeypatch):
    train, calls, whole = tiny_set(), [], recovery.recover
    expected = run(tmp_path / "undisturbed", train, augment=["roll:4"]).tensors

    def recover(*args: object, **kwargs: object) -> Tensor:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(infer, "recover", recover)
    job = job_in(tmp_path / "killed")
    with saving(), pytest.raises(KeyboardInterrupt):
        run(tmp_path, train, job=job, augment=["roll:4"])
    calls[:] = [1] * 5
    found = run(tmp_path, train, job=job, augment=["roll:4"]).tensors
    assert len(calls) == 5 + 2, "only the two compensators that were missing are made"
    assert all(torch.equal(found[name], part) for name, part in expected.items())


@pytest.mark.parametrize("natural", [True, False])
def test_the_recipe_counts_the_instances(natural: bool, tmp_path: Path) -> None:
    # CIFAR-10, M = 4, ipc 10: K = 7, hence 5 * 70 instances, or 4 * 70 without the natural ones
    paper = infer.Recipe(("net",) * 4, natural_instances=natural)
    assert paper.instances(10, 10) == (350 if natural else 280)
    train = tiny_set()
    made = run(tmp_path, train, iterations=1, natural_instances=natural)
    counted = infer.Recipe(("a", "b"), natural_instances=natural).instances(5, 4)
    assert len(made.expand()) == counted == (36 if natural else 24)


def test_each_teacher_has_random_numbers_of_its_own(tmp_path: Path) -> None:
    """Twice the same network: only the draws of its augmentations can tell its compensators."""
    train = tiny_set()
    twins = [tiny_teacher(train)] * 2
    for augment, alike in ((["roll:4"], False), ([], True)):
        job = job_in(tmp_path / str(alike))
        made = distil({**INFER, "augment": augment}, train, 5, job, twins)["compensators"]
        assert torch.equal(made[0], made[1]) == alike


def test_without_its_weight_no_batch_norm_is_needed(tmp_path: Path) -> None:
    train = tiny_set()
    plain = [tiny_teacher(train, norm="instance")] * 2
    with pytest.raises(TeacherError, match="no batch normalisation"):
        distil(INFER, train, 5, job_in(tmp_path / "a"), plain)
    for fields in ({}, {"micro_batch": 3}):
        job = job_in(tmp_path / f"b{len(fields)}")
        made = distil({**INFER, "alpha": 0.0, **fields}, train, 5, job, plain)
        assert made["compensators"].abs().max() > 0


def test_one_number_that_is_not_finite_is_refused() -> None:
    class OneNan:
        def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            gradient = torch.ones_like(images)
            gradient[0, 1, 0, 2, 3] = torch.nan
            return torch.zeros(()), torch.zeros(()), gradient

    recipe = infer.Recipe(("net",), iterations=1)
    bar = SimpleNamespace(update=lambda steps: None, set_postfix=lambda **shown: None)
    with pytest.raises(DistilleryError, match="diverged"):
        recovery.recover(
            torch.zeros(1, 2, 1, 4, 4), lambda x, step: x, torch.arange(2), OneNan(), recipe, bar
        )
