"""Analyses against double loops and formulas worked by hand; their stage on artefacts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from distillery.analyses import difficulty, divergence, landscape
from distillery.analyses.inputs import AnalysisInputs, Result, fixed_generator
from distillery.components import registry
from distillery.errors import ArtefactError, BudgetError, ClassOrderError, PlanError, TeacherError
from distillery.nets.features import penultimate
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts
from distillery.stages import analyse as stage
from distillery.store.artefact import Artefact
from distillery.store.job import Job
from distillery.training.augment import normalising_pipeline
from helpers.jobs import job_in
from helpers.labels import infer_set, logits_artefact
from helpers.tiny import data_artefact, teacher_artefact, tiny_net, tiny_set, tiny_teacher

TRAIN, TEST = tiny_set(), tiny_set(seed=1)
TEACHERS = [tiny_teacher(TRAIN, 8, 0), tiny_teacher(TRAIN, 6, 1)]
STUDENT = tiny_net(TRAIN, 5, 2)


def inputs(**changed: object) -> AnalysisInputs:
    return replace(
        AnalysisInputs(TRAIN, TEST, infer_set(), None, TEACHERS, STUDENT, (0.5,), (0.25,)),
        **changed,
    )


def analyse(folder: Path, reference: dict, key: str = "key", **changed: object) -> Result:
    analysis, recipe = registry.build("analysis", reference)
    return analysis.analyse(inputs(**changed), recipe, job_in(folder, key))


def rows(result: Result) -> list[dict]:
    names = list(result.values)
    return [dict(zip(names, row, strict=True)) for row in zip(*result.values.values(), strict=True)]


def seen(pixels: Tensor) -> Tensor:
    return (pixels.float() / (255 if pixels.dtype == torch.uint8 else 1) - 0.5) / 0.25


SIMILARITY = {"name": "similarity", "teachers": ["a"]}


@pytest.mark.parametrize("space", ["features", "pixels"])
@pytest.mark.parametrize(("instances", "first"), [("all", 0), ("compensated", 12)])
def test_similarity_is_the_double_loop(space, instances, first, tmp_path):
    expanded = infer_set().expand()
    vectors = seen(expanded.images[first:])
    vectors = (penultimate(TEACHERS[0].model, vectors) if space == "features" else vectors).flatten(
        1
    )
    labels, per_class = expanded.labels[first:], []
    for c in range(4):
        members = vectors[labels == c]
        pairs = [(i, j) for i in range(len(members)) for j in range(i)]
        per_class.append(
            sum(cosine_similarity(members[i], members[j], dim=0).item() for i, j in pairs)
            / len(pairs)
        )
    result = analyse(tmp_path, {**SIMILARITY, "space": space, "instances": instances})
    assert result.values["similarity"] == pytest.approx(per_class, abs=1e-6)
    assert result.value == pytest.approx(sum(per_class) / 4, abs=1e-6)
    assert result.values["instances"] == [9 - first // 4] * 4 and result.values["class"] == list(
        TRAIN.classes
    )


def test_compensated_instances_of_a_set_without_natural_ones_are_all(tmp_path):
    bare = replace(infer_set(), layout={"natural_instances": False})
    full = analyse(tmp_path, {**SIMILARITY, "instances": "compensated"})
    assert (
        analyse(tmp_path, {**SIMILARITY, "instances": "compensated"}, distilled=bare).value
        == full.value
    )


def plain_set(per_class: int) -> DistilledSet:
    parts = image_parts(
        TRAIN.pixels(torch.arange(4 * per_class)), torch.arange(4).repeat(per_class), None
    )
    return DistilledSet("random", per_class, TRAIN.classes, (0.5,), (0.25,), parts)


def test_similarity_says_what_it_cannot_measure(tmp_path):
    with pytest.raises(BudgetError, match=r"class 'class 0' has 1 instances.*larger ipc"):
        analyse(tmp_path, SIMILARITY, distilled=plain_set(1))
    with pytest.raises(PlanError, match="method 'random' has none"):
        analyse(tmp_path, {**SIMILARITY, "instances": "compensated"}, distilled=plain_set(2))


class Linear(nn.Module):
    """logits = W x for images of one channel and 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(3)) / 8

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def test_landscape_of_a_linear_student_worked_by_hand(tmp_path):
    net = Linear()
    result = analyse(
        tmp_path, {"name": "landscape", "points": 5, "radius": 2.0, "images": 1}, student=net
    )
    index = result.values["image"][0]
    pixels, label = (
        TEST.pixels(torch.tensor([index])).double().flatten() / 255,
        int(TEST.labels[index]),
    )
    weight = net.weight.double() / 0.25  # logits per pixel unit

    def loss(x: Tensor) -> Tensor:
        logits = weight @ (x - 0.5)
        return logits.logsumexp(0) - logits[label]

    slope = weight.T @ (
        (weight @ (pixels - 0.5)).softmax(0) - torch.eye(4, dtype=torch.float64)[label]
    )
    along = slope / slope.norm()
    across = (
        torch.randn(1, 8, 8, generator=fixed_generator(f"landscape/{index}")).double().flatten()
    )
    across -= (across @ along) * along
    across /= across.norm()
    offsets = [-2.0, -1.0, 0.0, 1.0, 2.0]
    expected = torch.stack(
        [torch.stack([loss(pixels + a * along + b * across) for b in offsets]) for a in offsets]
    )
    torch.testing.assert_close(result.arrays["first"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.arrays["surface"], result.arrays["first"])
    assert result.arrays["offsets"].tolist() == offsets
    assert result.values["gradient"][0] == pytest.approx(slope.norm().item(), rel=1e-4)
    assert result.value == pytest.approx((expected.mean() - expected[2, 2]).item(), rel=1e-4)
    assert (expected.diff(n=2, dim=0) > 0).all() and (
        result.arrays["first"].diff(n=2, dim=0) > 0
    ).all(), "convex"


def test_landscape_rises_along_the_gradient_and_shares_images_and_directions(tmp_path):
    settings = {"name": "landscape", "points": 3, "radius": 0.01, "images": 6}
    one, other = (
        analyse(tmp_path, settings, key, student=tiny_net(TRAIN, 5, s))
        for key, s in (("a", 2), ("b", 3))
    )
    assert (
        one.values["image"] == other.values["image"]
        and one.values["centre"] != other.values["centre"]
    )
    for result in (one, other):
        slopes = result.values["gradient"]
        rise = (result.arrays["surface"][2, 1] - result.arrays["surface"][0, 1]).item() / 0.02
        assert rise == pytest.approx(sum(slopes) / 6, rel=0.05)
        assert result.arrays["surface"][1, 1].item() == pytest.approx(
            sum(result.values["centre"]) / 6, abs=1e-5
        )
    tiny = landscape.axes(torch.full((1, 2, 2), 1e-30), torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(tiny @ tiny.T, torch.eye(2))


def test_difficulty_is_the_slow_loop(tmp_path):
    result = analyse(tmp_path, {"name": "difficulty", "teachers": ["a"], "bins": 5})
    logits, guesses = TEACHERS[0].model(seen(TEST.images)), STUDENT(seen(TEST.images)).argmax(1)
    hardness = [
        cross_entropy(logits[i : i + 1].double(), TEST.labels[i : i + 1]).item() for i in range(48)
    ]
    right = [bool(guesses[i] == TEST.labels[i]) for i in range(48)]
    assert result.value == pytest.approx(100 * sum(right) / 48)
    for row in rows(result):
        last = row["bin"] == 4
        inside = [row["low"] <= h < row["high"] or (last and h >= row["low"]) for h in hardness]
        assert row["total"] == sum(inside) and row["correct"] == sum(
            a and b for a, b in zip(inside, right, strict=True)
        )
    width, quantile = (
        [r for r in rows(result) if r["bins"] == kind] for kind in ("width", "quantile")
    )
    assert [r["total"] for r in quantile] == [10, 9, 10, 9, 10], "equal counts"
    assert [r["high"] - r["low"] for r in width] == pytest.approx([max(hardness) / 5] * 5, rel=1e-4)
    assert sum(r["correct"] for r in width) == sum(r["correct"] for r in quantile) == sum(right)


def test_bins_lose_no_image_where_values_coincide():
    hardness = np.array([0.0, 0.0, 0.0, 1.0, 2.0])
    found = difficulty.histogram(
        "quantile", np.quantile(hardness, [0, 0.25, 0.5, 0.75, 1]), hardness, hardness == 0
    )
    assert [row[4] for row in found] == [0, 0, 3, 2] and [row[5] for row in found] == [0, 0, 3, 0]


DIVERGENCE = {
    "name": "divergence",
    "teachers": ["a", "b"],
    "mixes": 300,
    "augment": ["crop:1", "flip"],
}


def ensemble(pixels: Tensor) -> Tensor:
    return (TEACHERS[0].model(seen(pixels)) + TEACHERS[1].model(seen(pixels))) / 2


def test_divergence_is_the_slow_loop(tmp_path):
    stored = torch.randn(36, 4, generator=torch.Generator().manual_seed(8)).half()
    result = analyse(tmp_path, DIVERGENCE, stored=stored)
    recipe = divergence.Recipe(("a", "b"), mixes=300)
    mixes = divergence.draw(36, recipe, job_in(tmp_path).generator("mixes"), torch.device("cpu"))
    expanded, logits = infer_set().expand().images, stored.double()
    for temperature, row in zip((30.0, 1.0), rows(result), strict=False):
        found = []
        for i, j, lam in zip(mixes.first, mixes.second, mixes.share.double(), strict=True):
            mixed = (lam * expanded[i] + (1 - lam) * expanded[j]).float()
            p = (ensemble(mixed[None])[0].double() / temperature).softmax(0)
            q = ((lam * logits[i] + (1 - lam) * logits[j]) / temperature).softmax(0)
            found.append((p * (p.log() - q.log())).sum().item())
        assert (row["augmented"], row["temperature"], row["mixes"]) == (False, temperature, 300)
        assert row["kl"] == pytest.approx(np.mean(found), rel=1e-3)
        assert row["standard_error"] == pytest.approx(
            np.std(found, ddof=1) / math.sqrt(300), rel=1e-3
        )
    assert (
        result.value == result.values["kl"][0]
        and result.metadata["standard_error"] == result.values["standard_error"][0]
    )
    assert result.metadata["static"] == "stored" and result.values["augmented"] == [
        False,
        False,
        True,
        True,
    ]


def test_divergence_is_nothing_for_unmixed_images_and_something_for_moved_ones(tmp_path):
    instances = inputs().instances(torch.device("cpu"))
    stored = ensemble(instances.take(torch.arange(36)))
    unmixed = divergence.Mixes(torch.arange(36), torch.arange(36).flip(0), torch.ones(36)).split()
    assert len(unmixed) == 1

    def model(x: Tensor) -> Tensor:
        return ensemble(x * 0.25 + 0.5)

    clean = divergence.divergences(
        instances, stored, unmixed, model, (30.0, 1.0), instances.normalise
    )
    flip, stream = (
        normalising_pipeline(instances.normalise, ("flip",)),
        torch.Generator().manual_seed(0),
    )
    moved = divergence.divergences(
        instances, stored, unmixed, model, (30.0, 1.0), lambda x: flip(x, stream)
    )
    assert clean.abs().max() < 1e-9 and moved.mean(1).min() > 1e-7 and moved.min() > -1e-9


def test_mixes_are_of_different_instances_with_the_betas_moments():
    mixes = divergence.draw(
        5,
        divergence.Recipe((), mixes=20_000),
        torch.Generator().manual_seed(1),
        torch.device("cpu"),
    )
    assert (
        mixes.first != mixes.second
    ).all() and mixes.first.unique().tolist() == mixes.second.unique().tolist() == [*range(5)]
    assert mixes.share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert mixes.share.var().item() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.003)


def test_static_logits_of_the_teachers_where_none_are_stored(tmp_path):
    stored = ensemble(infer_set().expand().images)
    given, made = analyse(tmp_path, DIVERGENCE, stored=stored), analyse(tmp_path, DIVERGENCE)
    assert made.metadata["static"] == "teachers" and made.values["kl"] == pytest.approx(
        given.values["kl"], abs=1e-7
    )
    assert len(analyse(tmp_path, {**DIVERGENCE, "augment": []}).values["kl"]) == 2


BOUNDARY = {"name": "boundary", "classes": 3, "per_class": 10, "grid": 20, "neighbours": 1}


def test_boundary_predictions_are_restricted_to_its_classes(tmp_path):
    result = analyse(tmp_path, BOUNDARY)
    chosen = result.arrays["classes"].tolist()
    indices = torch.cat([TEST.of_class(c)[:10] for c in chosen])
    logits = STUDENT(seen(TEST.images[indices]))
    expected = [max(range(3), key=lambda p: row[chosen[p]]) for row in logits.tolist()]
    truth = [chosen.index(label) for label in TEST.labels[indices].tolist()]
    assert (
        result.arrays["predictions"].tolist() == expected
        and result.arrays["labels"].tolist() == truth
    )
    right = [a == b for a, b in zip(expected, truth, strict=True)]
    assert result.value == pytest.approx(100 * sum(right) / 30)
    assert result.values["correct"] == [sum(right[i : i + 10]) for i in (0, 10, 20)]
    assert result.values["class"] == [TRAIN.classes[c] for c in chosen] and chosen == sorted(
        set(chosen)
    )


def test_boundary_regions_follow_the_nearest_point(tmp_path):
    arrays = analyse(tmp_path, BOUNDARY).arrays
    grid, region = arrays["grid"], arrays["region"]
    for row, column in [(0, 0), (3, 17), (19, 5), (10, 10)]:
        place = torch.stack([grid[0, column], grid[1, row]])
        assert (
            region[row, column]
            == arrays["predictions"][(arrays["points"] - place).norm(dim=1).argmin()]
        )
    assert (arrays["points"] > grid[:, 0]).all() and (arrays["points"] < grid[:, -1]).all()


def test_boundary_is_the_same_again_and_shares_its_classes(tmp_path):
    one, again, other = (
        analyse(tmp_path, BOUNDARY, k, student=tiny_net(TRAIN, 5, s))
        for k, s in (("a", 2), ("b", 2), ("c", 3))
    )
    assert all(torch.equal(array, again.arrays[name]) for name, array in one.arrays.items())
    assert torch.equal(one.arrays["classes"], other.arrays["classes"])
    assert not torch.equal(one.arrays["points"], other.arrays["points"])


def test_compensators_numbers_by_hand(tmp_path):
    u = torch.zeros(2, 3, 1, 8, 8)
    u[0, 0], u[0, 1, 0, 0, 0], u[1, 2, 0, :4] = 0.25, -0.5, 1.0
    distilled = infer_set().with_tensors({"compensators": u.half()})
    recipe = {"name": "compensators", "subsets": 2, "classes": 2}
    networks = ("small", "large")
    result = analyse(tmp_path, recipe, distilled=distilled, distilled_with=networks)
    assert result.values["teacher"] == [0, 0, 0, 1, 1, 1] and result.values["subset"] == [
        0,
        1,
        2,
        0,
        1,
        2,
    ]
    assert result.values["network"] == ["small"] * 3 + ["large"] * 3
    assert result.values["max_abs"] == [0.25, 0.5, 0, 0, 0, 1.0]
    lone = math.sqrt(0.25 / 64 - (0.5 / 64) ** 2)  # one of 64 pixels is -0.5
    assert result.values["std"] == pytest.approx([0, lone, 0, 0, 0, 0.5])
    assert result.value == pytest.approx(1.75 / 6)
    chosen = result.arrays["classes"]
    natural = distilled["natural"][0, chosen].float() / 255
    assert result.arrays["u"].shape == (2, 2, 1, 8, 8) and torch.equal(
        result.arrays["natural"], natural
    )
    assert torch.equal(
        result.arrays["compensated"], torch.stack([(natural + 0.25).clamp(0, 1), natural])
    )
    unnamed = analyse(tmp_path, recipe, "unnamed", distilled=distilled)
    assert unnamed.values["network"] == ["0"] * 3 + ["1"] * 3
    with pytest.raises(PlanError, match="method 'random' has none"):
        analyse(tmp_path, {"name": "compensators"}, distilled=plain_set(2))


def test_teachers_and_student_come_out_as_they_went_in(tmp_path):
    nets = [*(t.model for t in TEACHERS), STUDENT]
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]
    short = {"landscape": {"points": 3, "images": 2}, "boundary": BOUNDARY}
    apart = {
        "continual",
        "convergence",
        "poster",
        "order",
        "order-accuracy",
    }  # these read their teachers themselves, or have none
    for name in registry.index("analysis").keys() - apart:
        teachers = (
            {"teachers": ["a", "b"]}
            if "teachers" in registry.trait(registry.load("analysis", name), "needs", ())
            else {}
        )
        result = analyse(tmp_path, {"name": name, **teachers, **short.get(name, {})})
        assert (
            math.isfinite(result.value)
            and len({len(column) for column in result.values.values()}) == 1
        )
    for net, state in zip(nets, before, strict=True):
        assert not net.training and not any(
            m._forward_pre_hooks or m._forward_hooks for m in net.modules()
        )
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def student_artefact(folder: Path, width: int = 5) -> Artefact:
    folder.mkdir()
    save_file(STUDENT.state_dict(), folder / "student.safetensors")
    network = {"name": "convnet", "width": width, "depth": 2, "norm": "batch"}
    return Artefact(
        folder,
        {"id": "student", "metadata": {"student": network}, "files": {"student.safetensors": {}}},
    )


def stage_job(folder: Path, reference: dict, **inputs: object) -> Job:
    (folder / "set").mkdir(parents=True)
    infer_set().save(folder / "set")
    spec = {"recipe": {"method": {"name": "infer", "teachers": ["small", "large"]}}}
    meta = {"id": "set", "files": {}, "metadata": {}, "spec": spec}
    distilled = Artefact(folder / "set", meta)
    recipe = {"analysis": reference, "student": None, "labels": None}
    return job_in(
        folder,
        recipe=recipe,
        inputs={
            "data": data_artefact(folder / "data", TRAIN, test=TEST),
            "distilled": distilled,
            **inputs,
        },
    )


def test_stage_writes_values_and_arrays(tmp_path):
    job = stage_job(tmp_path, BOUNDARY, student=student_artefact(tmp_path / "student"))
    metadata, expected = stage.make(job), analyse(tmp_path / "direct", BOUNDARY)
    assert metadata.pop("sizes")["data"]["train"] == 48
    assert metadata == {"value": expected.value, "analysis": "boundary"}
    assert pq.read_table(job.out / "values.parquet").to_pydict() == expected.values
    arrays = load_file(job.out / "arrays.safetensors")
    assert arrays.keys() == expected.arrays.keys() and all(
        torch.equal(expected.arrays[n], a) for n, a in arrays.items()
    )


def test_stage_names_the_networks_that_a_set_was_made_with(tmp_path):
    job = stage_job(tmp_path, {"name": "compensators"})
    stage.make(job)
    found = pq.read_table(job.out / "values.parquet").to_pydict()
    assert dict(zip(found["teacher"], found["network"], strict=True)) == {0: "small", 1: "large"}


def test_stage_hands_on_teachers_and_stored_labels(tmp_path):
    stored = torch.randn(36, 4, generator=torch.Generator().manual_seed(8)).half()
    teachers = [
        teacher_artefact(tmp_path / f"t{i}", TRAIN, width, i) for i, width in enumerate((8, 6))
    ]
    job = stage_job(
        tmp_path / "job",
        DIVERGENCE,
        teachers=teachers,
        label=logits_artefact(tmp_path / "label", stored),
    )
    metadata = stage.make(job)
    expected = analyse(tmp_path, DIVERGENCE, stored=stored)
    assert metadata.pop("sizes")["data"]["train"] == 48
    assert metadata == {"value": expected.value, "analysis": "divergence", **expected.metadata}
    assert sorted(file.name for file in job.out.iterdir()) == ["values.parquet"]


def test_stage_refuses_inputs_that_do_not_fit(tmp_path):
    def refuse(name: str, kind: type[Exception], message: str, **inputs: object) -> None:
        with pytest.raises(kind, match=message):
            stage.make(stage_job(tmp_path / name, BOUNDARY, **inputs))

    good = student_artefact(tmp_path / "good")
    refuse("a", PlanError, "'boundary' needs student")
    refuse(
        "b",
        ArtefactError,
        "not the weights of 'convnet'",
        student=student_artefact(tmp_path / "wrong", width=4),
    )
    short = logits_artefact(tmp_path / "short", torch.zeros(35, 4))
    refuse("c", ArtefactError, "35 for 36 instances", student=good, label=short)
    other = logits_artefact(tmp_path / "other", torch.zeros(36, 4), "other")
    refuse("d", ClassOrderError, "class order other", student=good, label=other)
    stranger = teacher_artefact(tmp_path / "stranger", TRAIN, std=[0.2])
    refuse("e", TeacherError, "same data source", student=good, teachers=[stranger])
