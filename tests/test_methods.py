"""Methods that select or recover images, and their stage, against slow second implementations."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.components import registry
from distillery.errors import BudgetError, ClassOrderError, DistilleryError, TeacherError
from distillery.methods import herding, k_means, sre2l
from distillery.methods.shared.recovery import TeacherObjective, cosine_decay
from distillery.methods.shared.selection import class_features
from distillery.nets.features import penultimate
from distillery.sets.distilled import DistilledSet
from distillery.stages import distill as stage
from distillery.store.canonical import class_order_hash
from distillery.store.job import Job
from helpers.jobs import job_in
from helpers.methods import SRE2L, distil
from helpers.tiny import TinySet, data_artefact, teacher_artefact, tiny_net, tiny_set, tiny_teacher

SELECTIONS = {
    "random": {"name": "random"},
    "herding": {"name": "herding", "teachers": ["net"]},
    "k-means": {"name": "k-means", "teachers": ["net"]},
}


@pytest.mark.parametrize("reference", SELECTIONS.values(), ids=SELECTIONS)
def test_selections_are_distinct_real_images_of_their_class(reference, tmp_path):
    train = tiny_set()
    distilled = distil(reference, train, 5, job_in(tmp_path), [tiny_teacher(train)])
    images, labels = distilled["images"], distilled["labels"]
    assert images.dtype == torch.uint8 and labels.tolist() == [0, 1, 2, 3] * 5
    found = [int((train.images == image).flatten(1).all(1).nonzero()) for image in images]
    assert len(set(found)) == 20
    assert train.labels[found].tolist() == labels.tolist()
    assert torch.equal(distilled.expand().images, images.float() / 255)


@pytest.mark.parametrize("reference", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize(("ipc", "named"), [(0, "ipc = 0"), (8, "class 'class 2' has 7")])
def test_selections_refuse_a_budget_they_cannot_fill(reference, ipc, named, tmp_path):
    train = tiny_set(per_class=9)
    keep = torch.cat([train.of_class(c)[: 7 if c == 2 else 9] for c in range(4)])
    train = replace(train, images=train.images[keep], labels=train.labels[keep])
    with pytest.raises(BudgetError, match=named):
        distil(reference, train, ipc, job_in(tmp_path), [tiny_teacher(train)])


def test_random_follows_the_cell_and_nothing_else(tmp_path):
    train, first = tiny_set(), {}
    for key in ("one", "two"):
        first[key] = distil(SELECTIONS["random"], train, 5, job_in(tmp_path, key))["images"]
    torch.manual_seed(99)
    assert torch.equal(
        first["one"],
        distil(SELECTIONS["random"], train, 5, job_in(tmp_path, "one"))["images"],
    )
    assert not torch.equal(first["one"], first["two"])


def test_herding_is_the_greedy_search_written_out():
    stream = torch.Generator().manual_seed(3)
    features = torch.randn(15, 6, generator=stream, dtype=torch.float64)
    chosen: list[int] = []
    for _ in range(9):
        free = [i for i in range(15) if i not in chosen]
        chosen.append(
            min(
                free,
                key=lambda i: (features.mean(0) - features[[*chosen, i]].mean(0)).norm().item(),
            )
        )
    assert herding.herd(features, 9).tolist() == chosen
    assert sorted(herding.herd(features, 15).tolist()) == list(range(15))


def test_herding_follows_the_class_mean_better_than_chance(tmp_path):
    train = tiny_set(per_class=40)
    teacher = tiny_teacher(train)
    gaps = {}
    for name in ("random", "herding"):
        images = distil(SELECTIONS[name], train, 5, job_in(tmp_path), [teacher])["images"]
        _, features = class_features(train, 0, teacher, torch.device("cpu"))
        chosen = penultimate(teacher.model, (images[::4].float() / 255 - 0.5) / 0.25).double()
        gaps[name] = (features.mean(0) - chosen.mean(0)).norm().item()
    assert gaps["herding"] < 0.5 * gaps["random"]


def test_k_means_takes_the_row_nearest_to_each_centre():
    stream = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]], dtype=torch.float64)
    features = centres.repeat(10, 1) + torch.randn(30, 2, generator=stream, dtype=torch.float64)
    nearest = {
        int((features[i::3] - features[i::3].mean(0)).norm(dim=1).argmin()) * 3 + i
        for i in range(3)
    }
    assert set(k_means.representatives(features, 3, 1, 7).tolist()) == nearest


def test_k_means_stays_distinct_where_rows_coincide():
    # five distinct points, each twice: ten clusters cannot all have a nearest row of their own
    features = torch.arange(5, dtype=torch.float64).repeat(2)[:, None]
    with pytest.warns(UserWarning, match="distinct clusters"):
        assert sorted(k_means.representatives(features, 10, 1, 0).tolist()) == list(range(10))


def test_learning_rate_at_start_and_half():
    assert cosine_decay(0.25, 0, 1000) == 0.25
    assert cosine_decay(0.25, 500, 1000) == pytest.approx(0.125)
    assert 0 < cosine_decay(0.25, 999, 1000) < 1e-6


def test_layers_that_never_run_are_not_matched():
    train = tiny_set()
    teacher = replace(tiny_teacher(train), model=HalfUsed(tiny_net(train)))
    objective = TeacherObjective.of(
        teacher, 1.0, sre2l.Recipe(("net",)), train.shape, torch.device("cpu")
    )
    used = {name for name, m in objective.model.named_modules() if m in objective.layers}
    assert used == {
        name
        for name, m in teacher.model.named_modules()
        if isinstance(m, nn.BatchNorm2d) and name.startswith("used.")
    }


class HalfUsed(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.unused, self.used = nn.BatchNorm2d(3), used

    def forward(self, images):
        return self.used(images)


@pytest.mark.parametrize("groups", [1, 3])
def test_micro_batches_give_the_gradient_of_the_whole(groups):
    train = tiny_set(classes=7)
    net = tiny_net(train).double()
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    images, labels = torch.randn(groups, 7, 1, 8, 8, dtype=torch.float64), torch.arange(7)
    ce, bn, whole = TeacherObjective(net, layers, 0.7, 10.0).gradient(images, labels)
    for size in (1, 3, 5):
        parts = TeacherObjective(net, layers, 0.7, 10.0, size).gradient(images, labels)
        assert (parts[2] - whole).norm() / whole.norm() < 1e-6
        assert parts[0].item() == pytest.approx(ce.item()) and parts[1].item() == pytest.approx(
            bn.item()
        )


def sre2l_written_out(
    net: nn.Module, noise: Tensor, labels: Tensor, steps: int, lr: float, r_bn: float
) -> Tensor:
    """SRe2L's loop for one batch, with torch's statistics; the range of mean 0.5, std 0.25."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [m.register_forward_hook(lambda m, args, _: inputs.update({m: args[0]})) for m in norms]
    x = noise.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=lr, betas=(0.5, 0.9))
    for t in range(steps):
        adam.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * t / steps))
        loss = cross_entropy(net(x), labels)
        for weight, m in zip([10, 1], norms, strict=True):
            a = inputs[m]
            gap = (a.mean((0, 2, 3)) - m.running_mean).norm() + (
                a.var((0, 2, 3), correction=0) - m.running_var
            ).norm()
            loss = loss + r_bn * weight * gap
        adam.zero_grad()
        loss.backward()
        adam.step()
        x.data.clamp_(-2, 2)
    for hook in hooks:
        hook.remove()
    return x.detach()


@pytest.mark.parametrize(
    "extra",
    [{}, {"parallel_groups": 3}, {"micro_batch": 1}],
    ids=["alone", "parallel_groups", "micro-batched"],
)
def test_sre2l_is_its_loop_written_out(extra, tmp_path):
    train = tiny_set(classes=5)
    teacher, job = tiny_teacher(train), job_in(tmp_path)
    distilled = distil({**SRE2L, "batch": 2, **extra}, train, 3, job, [teacher])
    images = distilled["images"].unflatten(0, (3, 5))
    for i in range(3):
        for labels in torch.arange(5).split(2):
            noise = torch.randn(
                len(labels), 1, 8, 8, generator=job.generator(f"batch/{labels[0]}/{i}")
            )
            expected = sre2l_written_out(teacher.model, noise, labels, 4, 0.1, 0.5) * 0.25 + 0.5
            # half a grey level of rounding, and what reordered sums add to it
            assert (images[i, labels].float() / 255 - expected).abs().max() < 0.51 / 255
    assert distilled["labels"].tolist() == list(range(5)) * 3
    assert distilled.bytes == {"images": 15 * 64}


def test_sre2l_same_bytes_again_and_other_bytes_for_another_cell(tmp_path):
    train = tiny_set()
    teacher, recipe = tiny_teacher(train), {**SRE2L, "augment": ["roll:4"]}
    one, again, other = (
        distil(recipe, train, 2, job_in(tmp_path / name, key), [teacher])["images"]
        for name, key in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_recovery_errors_name_the_cause(tmp_path):
    train = tiny_set()
    with pytest.raises(BudgetError, match="ipc = 0"):
        distil(SRE2L, train, 0, job_in(tmp_path), [tiny_teacher(train)])
    with pytest.raises(TeacherError, match="'net-0' has no batch normalisation"):
        distil(SRE2L, train, 1, job_in(tmp_path), [tiny_teacher(train, norm="instance")])
    with pytest.raises(DistilleryError, match=r"diverged.*lower lr \(now nan\)"):
        distil({**SRE2L, "lr": math.nan}, train, 1, job_in(tmp_path), [tiny_teacher(train)])


def stage_job(folder: Path, train: TinySet, **metadata: object) -> Job:
    data = data_artefact(folder / "data", train)
    teachers = [teacher_artefact(folder / "teacher", train, **metadata)]
    return job_in(
        folder, recipe={"method": SRE2L, "ipc": 2}, inputs={"data": data, "teachers": teachers}
    )


def test_stage_writes_the_set_and_says_what_it_holds(tmp_path):
    train = tiny_set()
    job = stage_job(tmp_path, train)
    metadata = stage.make(job)
    stored = DistilledSet.load(job.out)
    assert metadata == {
        "method": "sre2l",
        "ipc": 2,
        "instances": 8,
        "images_per_class": 2.0,
        "bytes": {"images": 8 * 64},
        "numbers": {"images": 8 * 64},
        "kinds": {"images": "image"},
        "classes": ["class 0", "class 1", "class 2", "class 3"],
        "class_order": train.class_order,
        "shape": [1, 8, 8],
        "mean": [0.5],
        "std": [0.25],
        "teachers_behind": {"teacher": 90.0},
    }
    assert torch.equal(
        stored["images"],
        distil(SRE2L, train, 2, job_in(tmp_path / "again"), [tiny_teacher(train)])["images"],
    )


def test_stage_refuses_teachers_that_do_not_fit(tmp_path):
    train = tiny_set()
    other = [f"class {i}" for i in (0, 2, 1, 3)]
    wrong = {
        "order": (
            {"classes": other, "class_order": class_order_hash(other)},
            ClassOrderError,
            "data data has",
        ),
        "chance": (
            {"accuracy": {"last": 37.5, "best": 80.0}},
            TeacherError,
            "37.50 % test accuracy",
        ),
        "contrast": ({"std": [0.2]}, TeacherError, "same data source"),
    }
    for name, (metadata, kind, message) in wrong.items():
        (tmp_path / name).mkdir()
        with pytest.raises(kind, match=message):
            stage.make(stage_job(tmp_path / name, train, **metadata))


TWO = ("a", "b")
UNROLLED = {"meta_steps": 10, "batch": 20, "window": 4, "inner_steps": 10}
WORK = {  # forward passes of one image through each network, for ipc 5 and ten classes
    "random": ({"name": "random"}, 0),
    # 50 images, 7 steps, three passes each; in micro-batches the forward pass is made twice
    "sre2l": ({"name": "sre2l", "teachers": TWO, "iterations": 7}, 50 * 7 * 3),
    "sre2l, micro": ({"name": "sre2l", "teachers": TWO, "iterations": 7, "micro_batch": 2}, 1400),
    "cda": ({"name": "cda", "teachers": TWO, "iterations": 7}, 50 * 7 * 3),
    # K = 50 // 12 = 4 subsets of ten images
    "infer": ({"name": "infer", "teachers": TWO, "iterations": 7}, 40 * 7 * 3),
    "infer, micro": ({"name": "infer", "teachers": TWO, "iterations": 7, "micro_batch": 2}, 1120),
    # each backbone has half of the steps
    "g-vbsm": ({"name": "g-vbsm", "teachers": TWO, "iterations": 8}, 50 * 4 * 3),
    "rded": ({"name": "rded", "teachers": TWO, "pool": 30, "crops": 4}, 10 * 30 * 4),
    # 10 meta-steps of 3 passes over 20 real images, 4 differentiated steps, and before them 6
    # where the window is last, 3 on average where it is anywhere
    "bptt": ({"name": "bptt", **UNROLLED}, 10 * (50 * (3 * 6 + 12.3 * 4) + 60)),
    "rat-bptt": ({"name": "rat-bptt", **UNROLLED}, 10 * (50 * (3 * 3 + 12.3 * 4) + 60)),
    "rat-bptt, in parts": (
        {"name": "rat-bptt", **UNROLLED, "step_ipc": 2, "step_classes": 3},
        10 * (6 * (3 * 3 + 12.3 * 4) + 60),
    ),
    "podd": (
        {"name": "podd", **UNROLLED, "patch_grid": [4, 2], "patches": 5},
        10 * (5 * (3 * 3 + 12.3 * 4) + 60),
    ),
}


@pytest.mark.parametrize("case", WORK)
def test_work_counted_by_hand(case: str) -> None:
    reference, passes = WORK[case]
    _, recipe = registry.build("method", reference)
    assert recipe.work(5, 10) == pytest.approx(passes)


@pytest.mark.parametrize("name", ["herding", "k-means"])
def test_selections_do_not_know_their_work(name: str) -> None:
    """They look at all training images, a number that is not in the recipe."""
    _, recipe = registry.build("method", SELECTIONS[name])
    assert not hasattr(recipe, "work")
