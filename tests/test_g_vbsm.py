"""G-VBSM: statistics and densification by hand, its loop written out, order, restarts, limits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillery.errors import BudgetError, DistilleryError, TeacherError
from distillery.matching.densification import densification
from distillery.matching.statistics import (
    AverageDistance,
    batch_norm_statistics,
    convolution_statistics,
    reference_statistics,
)
from distillery.methods import g_vbsm
from distillery.methods.shared.recovery import cosine_decay
from distillery.sets.distilled import DistilledSet
from distillery.store.job import Job
from distillery.teacher.load import Teacher
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.methods import distil
from helpers.tiny import TinySet, tiny_set, tiny_teacher

FIELDS = {
    "iterations": 4,
    "lr": 0.1,
    "weight": 0.1,
    "batch": 5,
    "augment": [],
    "reference_augment": [],
    "reference_batch": 16,
}
G_VBSM = {"name": "g-vbsm", "teachers": ["a", "b"], **FIELDS}
AUGMENTED = {
    "augment": ["batch-crop:1", "batch-flip", "roll:8"],
    "reference_augment": ["crop:1", "flip"],
}


def two_teachers(train: TinySet) -> list[Teacher]:
    """One with batch normalisation, one without."""
    return [tiny_teacher(train, 8, 0), tiny_teacher(train, 6, 1, norm="instance")]


def run(
    folder: Path,
    train: TinySet,
    ipc: int = 3,
    key: str = "key",
    job: Job | None = None,
    **fields: object,
) -> DistilledSet:
    return distil({**G_VBSM, **fields}, train, ipc, job or job_in(folder, key), two_teachers(train))


# Statistics


def test_convolution_statistics_worked_by_hand():
    # channel 0 is 0 in one image and 2 in the other; channel 1 is 1 in the left cell and 3 in the
    # right one
    x = torch.zeros(2, 2, 2, 4)
    x[1, 0], x[:, 1, :, :2], x[:, 1, :, 2:] = 2.0, 1.0, 3.0
    mean, variance, cell_mean, cell_variance = convolution_statistics(x, 2)
    assert mean.tolist() == [1, 2] and variance.tolist() == [1, 1]
    # left cell: 4 zeros, 4 twos, 8 ones; right cell: 4 zeros, 4 twos, 8 threes
    assert cell_mean.tolist() == [1, 2] and cell_variance.tolist() == [0.5, 1.5]


def plain_convolution_statistics(x: Tensor, patch: int) -> list[Tensor]:
    height, width = (math.ceil(n / patch) * patch for n in x.shape[2:])
    large = F.interpolate(x, (height, width), mode="bilinear")
    rows, columns = range(0, height, patch), range(0, width, patch)
    cells = [large[:, :, i : i + patch, j : j + patch] for i in rows for j in columns]
    channels = [x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)]
    return [
        *channels,
        torch.stack([c.mean() for c in cells]),
        torch.stack([c.var(correction=0) for c in cells]),
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sides", [(8, 8), (8, 4), (6, 7), (2, 2), (1, 1)], ids=str)
def test_convolution_statistics_and_their_gradient_are_the_plain_ones(sides, layout):
    x = torch.randn(3, 5, *sides, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    found, plain = convolution_statistics(x, 4), plain_convolution_statistics(x, 4)
    gradients = [torch.randn_like(s) for s in plain]
    ours, theirs = (torch.autograd.grad(s, x, gradients)[0] for s in (found, plain))
    for a, b in zip((*found, ours), (*plain, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_convolution_statistics_take_slices_of_channels():
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)[:, 3:]
    torch.testing.assert_close(
        convolution_statistics(x, 4), tuple(plain_convolution_statistics(x, 4))
    )


def test_batch_norm_statistics_are_the_mean_from_the_running_mean_on_and_the_biased_variance():
    layer, x = nn.BatchNorm2d(3).double(), torch.randn(4, 3, 5, 5, dtype=torch.float64)
    layer.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    mean, variance = batch_norm_statistics(layer, x)
    torch.testing.assert_close(mean + layer.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(variance, x.var((0, 2, 3), correction=0))


def test_reference_statistics_are_averages_over_batches_by_their_size():
    net = (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1))
        .double()
        .requires_grad_(False)
    )
    images = torch.randn(10, 2, 10, 10, dtype=torch.float64)
    found = reference_statistics(net, [net[0], net[2]], images.split(4), 4)
    for statistics, inputs in zip(found, (lambda x: x, lambda x: net[:2](x)), strict=True):
        parts = [
            plain_convolution_statistics(inputs(part), 4) for part in images.split(4)
        ]  # 4, 4 and 2 images
        for k, statistic in enumerate(statistics):
            torch.testing.assert_close(
                statistic, 0.4 * parts[0][k] + 0.4 * parts[1][k] + 0.2 * parts[2][k]
            )


def test_moving_averages_worked_by_hand():
    # e after one and two calls with s: 0.2 s, then 0.8 * 0.2 s + 0.2 s = 0.36 s from a reference of
    # 0; |(3, 4)| = 5
    s, other = torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor([7.0])
    distance = AverageDistance([[torch.zeros(2)], [torch.tensor([2.0])]], [10.0, 1.0], 0.8)
    for value, average in (
        (10 * 0.2 * 5 + 0.2 * 5, [0.6, 0.8, 3.0]),
        (10 * 0.36 * 5 + 0.36 * 5, [1.08, 1.44, 3.8]),
    ):
        found = distance([[s], [other]])
        assert found.item() == pytest.approx(value, rel=1e-6)
        assert distance.average.tolist() == pytest.approx(average, rel=1e-6)
        (grad,) = torch.autograd.grad(found, s)
        assert grad.tolist() == pytest.approx([6.0, 8.0], rel=1e-6)  # 10 s / |s|, not a fifth of it
    found = distance([None, [other]])
    assert found.item() == pytest.approx(0.488 * 5) and distance.average[
        :2
    ].tolist() == pytest.approx([1.08, 1.44])


def test_gradient_passes_straight_through_as_if_the_average_were_the_statistic():
    references = [[torch.randn(3).double(), torch.randn(2).double()], [torch.randn(4).double()]]
    distance, weights = AverageDistance(references, [10.0, 1.0], 0.6), [10.0, 10.0, 1.0]
    for step in range(5):
        leaves = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (3, 2, 4)]
        ours = torch.autograd.grad(distance([leaves[:2], leaves[2:]]), leaves)
        at = [part.clone().requires_grad_() for part in distance.average.split([3, 2, 4])]
        loss = sum(
            w * (e - r).norm()
            for w, e, r in zip(weights, at, [*references[0], *references[1]], strict=True)
        )
        for a, b in zip(ours, torch.autograd.grad(loss, at), strict=True):
            torch.testing.assert_close(a, b)
        assert step or not torch.allclose(distance.average, torch.cat(leaves))


def test_starting_at_the_reference_gives_the_gradient_of_the_bias_corrected_average():
    reference, zero = torch.tensor([1.0, -2.0, 3.0]), torch.zeros(3)
    distance = AverageDistance([[reference]], [1.0], 0.8)
    for step in range(1, 6):
        s = torch.randn(3, requires_grad=True)
        (grad,) = torch.autograd.grad(distance([[s]]), s)
        zero = 0.8 * zero + 0.2 * s.detach()
        gap = zero / (1 - 0.8**step) - reference
        torch.testing.assert_close(grad, gap / gap.norm(), rtol=1e-4, atol=1e-5)


def test_statistics_that_are_met_pull_nowhere():
    s = torch.tensor([1.0, 2.0], requires_grad=True)
    found = AverageDistance([[s.detach()]], [1.0], 0.8)([[s]])
    assert found.item() == 0 and torch.autograd.grad(found, s)[0].tolist() == [0, 0]


# Densification


def test_densification_of_two_images_worked_by_hand():
    # one pixel becomes 32 x 32: images (a, 0) and (0, b) have the eigenvalues 1024 a^2 = 4 and 1024
    # b^2 = 0; softmax(1, 0) = (0.731059, 0.268941), softmax(4, 0) = (0.982014, 0.017986)
    x = torch.tensor([[2 / 32, 0.0], [0.0, 0.0]]).view(2, 2, 1, 1)
    expected = 0.731059 * math.log(0.731059 / 0.982014) + 0.268941 * math.log(0.268941 / 0.017986)
    assert (
        densification(x, [2], 4.0).item()
        == pytest.approx(expected, rel=1e-4)
        == pytest.approx(0.51171, rel=1e-4)
    )
    assert densification(x, [2], 1.0).item() == pytest.approx(0, abs=1e-6)


def test_densification_of_single_images_is_zero():
    x = torch.randn(3, 1, 8, 8, requires_grad=True)
    assert densification(x, [1, 1, 1]).item() == 0
    assert torch.autograd.grad(densification(x, [1, 2]), x)[0][0].abs().max() == 0


def test_densification_is_a_sum_over_classes():
    x = torch.randn(9, 3, 64, 64, dtype=torch.float64) / 64
    alone = sum(densification(part, [len(part)]) for part in x.split([2, 3, 1, 3]))
    assert densification(x, [2, 3, 1, 3]).item() == pytest.approx(alone.item(), rel=1e-12)
    pooled = F.adaptive_avg_pool2d(x, 32)
    assert densification(pooled, [2, 3, 1, 3]).item() == pytest.approx(alone.item(), rel=1e-12)


def test_gradient_of_densification_by_finite_differences():
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64) / 64
    (grad,) = torch.autograd.grad(densification(leaf := x.clone().requires_grad_(), [3]), leaf)

    def eigenvalues(
        images: Tensor,
    ) -> Tensor:  # the squared singular values; each pixel counts 64 times at 32 x 32
        return torch.linalg.svdvals(images.flatten(1)).square() * 64

    target = (eigenvalues(x) / 4).softmax(0)  # held fixed
    for place in range(x.numel()):
        step = torch.zeros_like(x).flatten().index_fill(0, torch.tensor(place), 1e-6).view_as(x)
        high, low = (
            F.kl_div(eigenvalues(x + s).log_softmax(0), target, reduction="sum")
            for s in (step, -step)
        )
        assert grad.flatten()[place].item() == pytest.approx(
            (high - low).item() / 2e-6, rel=1e-5, abs=1e-9
        )


def test_densification_draws_eigenvalues_together():
    x = (torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 64).requires_grad_()
    before = densification(x, [4])
    (grad,) = torch.autograd.grad(before, x)
    assert densification(x - 1e-2 * grad, [4]) < before


# The method


def g_vbsm_written_out(
    train: TinySet, teachers: list[Teacher], job: Job, ipc: int, recipe: dict
) -> Tensor:
    """All batches with torch's statistics, bias-corrected averages: (ipc * classes, C, H, W)."""
    classes = len(train.classes)
    layers = [
        [m for m in t.model.modules() if isinstance(m, (nn.BatchNorm2d, nn.Conv2d))]
        for t in teachers
    ]
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [
        m.register_forward_hook(lambda m, args, _: inputs.update({m: args[0]}))
        for n in layers
        for m in n
    ]

    def measured(m: nn.Module) -> list[Tensor]:
        x = inputs[m]
        if isinstance(m, nn.Conv2d):
            return plain_convolution_statistics(x, 4)
        return [x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)]

    real: dict[nn.Module, list[Tensor]] = {}
    for j, teacher in enumerate(teachers):
        order = torch.randperm(len(train.labels), generator=job.generator(f"reference/{j}"))
        for part in order.split(recipe["reference_batch"]):
            teacher.model((train.images[part].float() / 255 - 0.5) / 0.25)
            for m in layers[j]:
                share = [s * len(part) / len(order) for s in measured(m)]
                real[m] = (
                    share if m not in real else [a + b for a, b in zip(real[m], share, strict=True)]
                )
        real |= {
            m: [m.running_mean, m.running_var] for m in layers[j] if isinstance(m, nn.BatchNorm2d)
        }

    averages = {m: ([torch.zeros_like(r) for r in real[m]], 0) for n in layers for m in n}
    images, turn = torch.empty(ipc * classes, *train.shape), 0
    places = [i * classes + c for c in range(classes) for i in range(ipc)]
    for number, start in enumerate(range(0, len(places), recipe["batch"])):
        batch = torch.tensor(places[start : start + recipe["batch"]])
        labels, stream = batch % classes, job.generator(f"batch/{number}")
        x = torch.randn(1, len(batch), *train.shape, generator=stream)[0].requires_grad_()
        adam = torch.optim.Adam([x], betas=(0.5, 0.9))
        for t in range(recipe["iterations"]):
            adam.param_groups[0]["lr"] = cosine_decay(recipe["lr"], t, recipe["iterations"])
            j, turn = turn % len(teachers), turn + 1
            silent = torch.rand(len(layers[j]), generator=stream) < recipe["drop"]
            loss = F.cross_entropy(teachers[j].model(x), labels)
            for place, m in enumerate(layers[j]):
                if isinstance(m, nn.Conv2d) and silent[place]:
                    continue
                now, (old, calls) = measured(m), averages[m]
                new = [0.8 * o + 0.2 * n.detach() for o, n in zip(old, now, strict=True)]
                averages[m] = new, calls + 1
                for n, e, r in zip(now, new, real[m], strict=True):
                    corrected = e / (1 - 0.8 ** (calls + 1)) + n - n.detach()
                    loss = loss + recipe["weight"] * (1 if place else 10) * (corrected - r).norm()
            for c in labels.unique():
                rows = F.adaptive_avg_pool2d(x[labels == c], 32).flatten(1)
                e = torch.linalg.eigvalsh(rows @ rows.T)
                spread = F.kl_div(
                    e.log_softmax(0), (e / recipe["tau"]).softmax(0).detach(), reduction="sum"
                )
                loss = loss + recipe["densification"] * spread
            adam.zero_grad()
            loss.backward()
            adam.step()
            x.data.clamp_(-2, 2)
        images[batch] = x.detach()
    for hook in hooks:
        hook.remove()
    return images


@pytest.mark.parametrize(
    "fields",
    [{}, {"drop": 0.0, "lr": 0.5}, {"batch": 100, "densification": 0.01, "tau": 3000.0}],
    ids=str,
)
def test_g_vbsm_is_its_loop_written_out(fields, tmp_path):
    train, job = tiny_set(), job_in(tmp_path)
    recipe = {"drop": 0.4, "densification": 1.0, "tau": 4.0, **FIELDS, **fields}
    distilled = run(tmp_path, train, job=job, **fields)
    expected = g_vbsm_written_out(train, two_teachers(train), job, 3, recipe) * 0.25 + 0.5
    # half a grey level of rounding, and what reordered sums add to it
    assert (distilled["images"].float() / 255 - expected).abs().max() < 0.52 / 255
    assert distilled["labels"].tolist() == [0, 1, 2, 3] * 3
    assert distilled.bytes == {"images": 12 * 64} and distilled.expand().images.shape == (
        12,
        1,
        8,
        8,
    )


@pytest.mark.parametrize(
    ("ipc", "batch", "per_class", "expected"),
    [
        (3, 6, None, [[0, 4, 8, 1, 5, 9], [2, 6, 10, 3, 7, 11]]),
        (2, 5, None, [[0, 4, 1, 5, 2], [6, 3, 7]]),
        (4, 4, 2, [[0, 4, 1, 5], [2, 6, 3, 7], [8, 12, 9, 13], [10, 14, 11, 15]]),
        (2, 4, 1, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_batches_are_class_major(ipc, batch, per_class, expected):
    recipe = g_vbsm.Recipe(("net",), batch=batch, per_class=per_class)
    assert [places.tolist() for places in g_vbsm.class_major(ipc, 4, recipe)] == expected


def test_backbones_take_turns_across_batches(tmp_path):
    train, seen = tiny_set(), []
    teachers = [tiny_teacher(train, 4, seed) for seed in range(2)]
    for number, teacher in enumerate(teachers):
        teacher.model.register_forward_hook(  # its frozen copy has the hook, too
            lambda _, args, __, number=number: (
                seen.append(number) if args[0].requires_grad else None
            )
        )
    distil({**G_VBSM, "iterations": 3, "batch": 4}, train, 3, job_in(tmp_path), teachers)
    assert seen == [turn % 2 for turn in range(9)]


def test_a_dropped_convolution_reports_nothing_and_a_batch_norm_always(tmp_path):
    train, recipe = tiny_set(), g_vbsm.Recipe(("net",), reference_augment=())
    with g_vbsm.backbone(0, tiny_teacher(train), train, recipe, job_in(tmp_path)) as net:
        stream, heard = torch.Generator().manual_seed(0), torch.zeros(len(net.layers))
        for _ in range(400):
            net.drop(0.4, stream)
            net.model(torch.zeros(1, 1, 8, 8))
            heard += torch.tensor([found is not None for found in net.statistics])
    kinds = [isinstance(layer, nn.Conv2d) for layer in net.layers]
    assert kinds == [True, False, True, False]
    assert (heard[1::2] == 400).all() and (heard[::2] > 200).all() and (heard[::2] < 280).all()


def test_killed_and_started_again_makes_what_was_missing_alone(tmp_path, monkeypatch):
    train, calls, whole = tiny_set(), [], g_vbsm.recover
    expected = run(tmp_path / "undisturbed", train, **AUGMENTED)["images"]
    job = job_in(tmp_path / "killed")

    def recover(*args: object, **kwargs: object) -> Tensor:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(g_vbsm, "recover", recover)
    with saving(), pytest.raises(KeyboardInterrupt):
        run(tmp_path, train, job=job, **AUGMENTED)
    calls[:] = [1] * 3
    assert torch.equal(run(tmp_path, train, job=job, **AUGMENTED)["images"], expected)
    assert len(calls) == 4, "only the batch that was missing is made"


def test_same_cell_same_bytes_other_cell_other_bytes(tmp_path):
    train = tiny_set()
    one, again, other = (
        run(tmp_path / n, train, key=k, **AUGMENTED)["images"]
        for n, k in zip("abc", "xxy", strict=True)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_number_of_real_images_is_the_recipes(tmp_path, monkeypatch):
    train, sizes = tiny_set(), []
    monkeypatch.setattr(
        g_vbsm,
        "reference_statistics",
        lambda model, layers, batches, *more: reference_statistics(
            model, layers, [sizes.append(len(b)) or b for b in batches], *more
        ),
    )
    run(tmp_path / "some", train, reference_images=20)
    assert sizes == [16, 4] * 2
    sizes.clear()
    run(tmp_path / "all", train)
    assert sizes == [16, 16, 16] * 2


def test_teachers_come_out_as_they_went_in(tmp_path):
    train = tiny_set()
    teachers = two_teachers(train)
    before = [{k: v.clone() for k, v in t.model.state_dict().items()} for t in teachers]
    distil({**G_VBSM, **AUGMENTED}, train, 3, job_in(tmp_path), teachers)
    for teacher, state in zip(teachers, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in teacher.model.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
        assert not any(
            m._forward_pre_hooks or m._forward_hooks or m.training for m in teacher.model.modules()
        )


def test_optimisation_stays_in_range_and_lowers_its_objective(tmp_path, monkeypatch):
    train, losses, extremes = tiny_set(), [], []
    teachers = [tiny_teacher(train, 8, 0)]
    gradient = g_vbsm.BackboneObjective.gradient

    def spy(
        self: g_vbsm.BackboneObjective, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ce, distance, grad = gradient(self, images, labels)
        losses.append((ce + 0.1 * distance + densification(images[0], self.counts)).item())
        extremes.append(images.abs().max().item())
        return ce, distance, grad

    monkeypatch.setattr(g_vbsm.BackboneObjective, "gradient", spy)
    # without averages and dropped layers the losses of different steps are of one kind
    distil(
        {**G_VBSM, "teachers": ["a"], "iterations": 80, "batch": 12, "drop": 0.0, "ema": 0.0},
        train,
        3,
        job_in(tmp_path),
        teachers,
    )
    assert losses[-1] < 0.6 * losses[0]
    assert extremes[0] > 2 and max(extremes[1:]) <= 2


def test_errors_name_the_cause(tmp_path):
    train = tiny_set()
    with pytest.raises(BudgetError, match="ipc = 0"):
        run(tmp_path, train, ipc=0)
    with pytest.raises(DistilleryError, match=r"diverged.*lower lr \(now nan\)"):
        run(tmp_path, train, lr=math.nan)
    blind = Teacher(
        "mlp",
        nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
        (0.5,),
        (0.25,),
        train.classes,
        train.class_order,
        90.0,
    )
    with pytest.raises(TeacherError, match="'mlp' has no batch norms or convolutions"):
        distil(G_VBSM, train, 1, job_in(tmp_path / "mlp"), [blind, blind])
