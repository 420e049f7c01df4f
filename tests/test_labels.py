"""Teachers as they are loaded and checked, and the three kinds of labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.components import registry
from distillery.errors import ArtefactError, ClassOrderError, PlanError, TeacherError
from distillery.labels import static
from distillery.losses.target import Target
from distillery.sets.distilled import Instances
from distillery.stages import label as stage
from distillery.store.artefact import Artefact
from distillery.store.canonical import class_order_hash
from distillery.teacher.load import check_teacher, load_teacher, load_teachers
from distillery.training.batches import Mixing
from helpers.jobs import job_in
from helpers.labels import TEACHERS, TRAIN, batch, infer_set, stage_inputs
from helpers.tiny import teacher_artefact

STATIC = {"name": "static", "teachers": ["a", "b"]}
DYNAMIC = {"name": "dynamic", "teachers": ["a", "b"]}
OTHER_ORDER = [f"class {i}" for i in (0, 2, 1, 3)]


def mean_logits(images: Tensor) -> Tensor:
    """Of both teachers, for images in [0, 1], one image at a time."""
    seen = ((images - 0.5) / 0.25)[:, None]
    return torch.cat([(TEACHERS[0].model(x) + TEACHERS[1].model(x)) / 2 for x in seen])


def picked(instances: Instances, order: Tensor) -> Instances:
    return Instances(instances.labels[order], lambda indices: instances.take(order[indices]))


def make_static(folder: Path, instances: Instances, dtype: str = "float32") -> Tensor:
    recipe = static.Recipe(("a", "b"), dtype)
    job = job_in(folder)
    static.make(recipe, instances, TEACHERS, job, mean=(0.5,), std=(0.25,))
    return load_file(job.out / "labels.safetensors")["logits"]


def labeller(reference: dict, stored: Artefact | None = None, set_labels: Tensor | None = None):
    kind, recipe = registry.build("label", reference)
    return kind.labeller(
        recipe, stored=stored, teachers=TEACHERS, device=torch.device("cpu"), set_labels=set_labels
    )


def stored_in(folder: Path, logits: Tensor) -> Artefact:
    save_file({"logits": logits}, folder / "labels.safetensors")
    return Artefact(folder, {"id": "labels", "files": {"labels.safetensors": {}}})


def test_static_labels_are_the_mean_of_the_teachers_logits(tmp_path):
    distilled = infer_set()
    labels = make_static(tmp_path, distilled.expand()).unflatten(0, (3, 3, 4))
    natural = distilled["natural"].float() / 255
    torch.testing.assert_close(labels[0].flatten(0, 1), mean_logits(natural.flatten(0, 1)))
    moved = (natural[2] + distilled["compensators"][1, 2].float()).clamp(0, 1)
    torch.testing.assert_close(labels[2, 2], mean_logits(moved))
    assert make_static(tmp_path, distilled.expand(), "float16").dtype == torch.float16


def test_static_labels_belong_to_their_instance_in_whatever_order(tmp_path):
    instances, order = (
        infer_set().expand(),
        torch.randperm(36, generator=torch.Generator().manual_seed(1)),
    )
    labels = make_static(tmp_path, instances)
    shuffled = make_static(tmp_path, picked(instances, order))
    torch.testing.assert_close(shuffled, labels[order])
    torch.testing.assert_close(
        make_static(tmp_path, picked(instances, torch.tensor([5, 6]))), labels[5:7]
    )
    assert torch.equal(
        labeller(STATIC, stored_in(tmp_path, labels))(batch(order, instances.images[order])),
        labels[order],
    )


def test_static_labels_are_mixed_as_logits(tmp_path):
    stored = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]], dtype=torch.float16)
    # indices 2, 0 with partners 0, 2 and lambda 0.75: 0.75 (4, 4) + 0.25 (1, 0) and 0.75 (1, 0) +
    # 0.25 (4, 4)
    mixed = batch(torch.tensor([2, 0]), torch.zeros(2, 1, 8, 8), Mixing(0.75, torch.tensor([1, 0])))
    found = labeller(STATIC, stored_in(tmp_path, stored))(mixed)
    assert found.dtype == torch.float32 and found.tolist() == [[3.25, 3.0], [1.75, 1.0]]


def test_static_is_dynamic_when_nothing_is_mixed(tmp_path):
    instances = infer_set().expand()
    indices, normalised = torch.arange(8, 20), (instances.images - 0.5) / 0.25
    seen = batch(indices, normalised[indices])
    stored = stored_in(tmp_path, make_static(tmp_path, instances))
    torch.testing.assert_close(labeller(STATIC, stored)(seen), labeller(DYNAMIC)(seen))


def test_dynamic_labels_are_of_the_mixed_images():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    mixing = Mixing(0.3, torch.tensor([1, 2, 3, 0]))
    found = labeller(DYNAMIC)(batch(torch.arange(4), mixing.images((images - 0.5) / 0.25), mixing))
    torch.testing.assert_close(found, mean_logits(0.3 * images + 0.7 * images[[1, 2, 3, 0]]))
    assert not found.requires_grad


def test_hard_labels_have_no_logits():
    assert labeller({"name": "hard"})(batch(torch.arange(2), torch.zeros(2, 1, 8, 8))) is None


def test_labelling_leaves_the_teachers_alone(tmp_path):
    before = [
        {name: value.clone() for name, value in t.model.state_dict().items()} for t in TEACHERS
    ]
    make_static(tmp_path, infer_set().expand())
    labeller(DYNAMIC)(batch(torch.arange(8), torch.randn(8, 1, 8, 8)))
    for teacher, state in zip(TEACHERS, before, strict=True):
        assert all(
            torch.equal(value, state[name]) for name, value in teacher.model.state_dict().items()
        )


@pytest.mark.parametrize(
    ("mean", "std", "fits"),
    [
        (0.5, 0.25, True),
        (0.50005, 0.24995, True),
        (0.5002, 0.25, False),
        (0.5, 0.2498, False),
        (0.25, 0.5, False),
    ],
)
def test_teachers_are_loaded_for_their_own_normalisation_alone(tmp_path, mean, std, fits):
    stored = [teacher_artefact(tmp_path / name, TRAIN, 6) for name in "ab"]
    wanted = {"class_order": TRAIN.class_order, "mean": (mean,), "std": (std,), "owner": "a set"}
    if fits:
        assert [t.name for t in load_teachers(stored, "cpu", **wanted)] == ["convnet"] * 2
    else:
        with pytest.raises(TeacherError, match=rf"mean \(0.5,\), std .*a set has mean \({mean},"):
            load_teachers(stored, "cpu", **wanted)


def test_teachers_are_loaded_for_their_own_classes_alone(tmp_path):
    stored = [teacher_artefact(tmp_path / "a", TRAIN, 6)]
    wanted = {"mean": (0.5,), "std": (0.25,), "owner": "a set"}
    with pytest.raises(ClassOrderError, match="a set has 0123"):
        load_teachers(stored, "cpu", class_order="0123", **wanted)


def test_teacher_comes_back_as_it_was_stored(tmp_path):
    teacher = load_teacher(teacher_artefact(tmp_path / "teacher", TRAIN, 6, 1))
    images, stored = torch.randn(5, 1, 8, 8), TEACHERS[1].model
    loaded = teacher.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in stored.state_dict().items())
    torch.testing.assert_close(
        teacher.model(images), stored(images)
    )  # its memory format, hence the rounding, may be another
    assert not teacher.model.training and not any(
        p.requires_grad for p in teacher.model.parameters()
    )
    known = (
        teacher.name,
        teacher.classes,
        teacher.class_order,
        teacher.mean,
        teacher.std,
        teacher.accuracy,
    )
    assert known == ("convnet", TRAIN.classes, TRAIN.class_order, (0.5,), (0.25,), 90.0)


def test_teacher_artefacts_that_cannot_be_loaded(tmp_path):
    good = teacher_artefact(tmp_path / "good", TRAIN)
    with pytest.raises(ClassOrderError, match="not that of its class names"):
        load_teacher(
            replace(good, meta={**good.meta, "metadata": {**good.metadata, "classes": OTHER_ORDER}})
        )
    with pytest.raises(ArtefactError, match="not the weights of 'convnet'"):
        load_teacher(
            replace(
                good,
                meta={
                    **good.meta,
                    "metadata": {**good.metadata, "network": {"name": "convnet", "width": 9}},
                },
            )
        )
    with pytest.raises(ArtefactError, match=r"no file 'weights\.safetensors'"):
        load_teacher(replace(good, meta={**good.meta, "files": {}}))
    state = load_file(good.path / "weights.safetensors")
    first = next(name for name, value in state.items() if value.is_floating_point())
    save_file(
        {**state, first: torch.full_like(state[first], torch.nan)},
        good.path / "weights.safetensors",
    )
    with pytest.raises(ArtefactError, match="not finite"):
        load_teacher(good)
    (good.path / "weights.safetensors").write_bytes(b"half a file")
    with pytest.raises(ArtefactError, match="not the weights of 'convnet'"):
        load_teacher(good)


@pytest.mark.parametrize("accuracy", [0.0, 25.0, 37.5, float("nan")])
def test_teacher_no_better_than_guessing_is_refused(accuracy):
    with pytest.raises(TeacherError, match=r"guessing has 25\.00 %"):
        check_teacher(replace(TEACHERS[0], accuracy=accuracy), TRAIN.class_order, "data digits")


def test_teacher_that_knows_the_classes_is_accepted_and_one_that_does_not_is_named():
    assert (
        check_teacher(replace(TEACHERS[0], accuracy=37.6), TRAIN.class_order, "data digits") is None
    )
    with pytest.raises(
        ClassOrderError, match=r"teacher 'net-0' has class order .*, data digits has"
    ):
        check_teacher(TEACHERS[0], class_order_hash(OTHER_ORDER), "data digits")


def test_stage_writes_labels_and_says_how_many_agree(tmp_path):
    distilled = infer_set()
    job = job_in(
        tmp_path, recipe={**STATIC, "dtype": "float16"}, inputs=stage_inputs(tmp_path, distilled)
    )
    metadata = stage.make(job)
    logits = load_file(job.out / "labels.safetensors")["logits"]
    torch.testing.assert_close(
        logits, mean_logits(distilled.expand().images).half(), rtol=1e-3, atol=1e-3
    )
    agreeing = sum(
        int(row.argmax()) == label for row, label in zip(logits, [0, 1, 2, 3] * 9, strict=True)
    )
    assert metadata == {
        "kind": "static",
        "instances": 36,
        "bytes": {"labels": 36 * 4 * 2},
        "numbers": {"labels": 36 * 4},
        "kinds": {"labels": "soft label"},
        "class_order": TRAIN.class_order,
        "teachers": [{"name": "convnet", "accuracy": 90.0}] * 2,
        "teachers_behind": {"teacher": 90.0},
        "agreement": pytest.approx(100 * agreeing / 36),
    }


def test_stage_refuses_what_it_cannot_label(tmp_path):
    inputs = stage_inputs(tmp_path, replace(infer_set(), classes=tuple(OTHER_ORDER)))
    with pytest.raises(ClassOrderError, match="distilled set set"):
        stage.make(job_in(tmp_path, recipe=STATIC, inputs=inputs))
    with pytest.raises(PlanError, match="'hard' stores nothing"):
        stage.make(job_in(tmp_path, recipe={"name": "hard"}, inputs=inputs))


# --- labels that the set holds --------------------------------------------------------------------


def own_labels() -> Tensor:
    """Probabilities (6, 4) with zeros, the last row with a sum of 1.5."""
    found = torch.tensor(
        [
            [1.0, 0, 0, 0],
            [0, 0.5, 0.5, 0],
            [0.1, 0.2, 0.3, 0.4],
            [0, 0, 0, 1],
            [0.25] * 4,
            [0.75, 0.75, 0, 0],
        ]
    )
    return (found + 1e-8).log()


def test_learned_labels_are_the_set_s_own_and_cross_entropy_is_against_its_probabilities():
    order, logits = (
        torch.tensor([5, 1, 2]),
        torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
    )
    found = labeller({"name": "learned"}, set_labels=own_labels())(
        batch(order, torch.zeros(3, 1, 8, 8))
    )
    torch.testing.assert_close(found, own_labels()[order])
    loss, recipe = registry.build("loss", {"name": "soft-ce"})
    p = torch.tensor(
        [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]
    )  # the drifted sum is brought back to 1
    by_hand = -(p * logits.log_softmax(1)).sum(1).mean()
    target = Target(torch.zeros(3, dtype=torch.int64), p, found)
    torch.testing.assert_close(loss.loss(logits, target, recipe), by_hand)
    raw, recipe = registry.build("loss", {"name": "raw-ce"})
    y = torch.tensor([[0.75, 0.75, 0, 0], [0, 0.5, 0.5, 0], [0.1, 0.2, 0.3, 0.4]])  # as it drifted
    by_hand = -(y * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(raw.loss(logits, target, recipe), by_hand)


def test_learned_labels_mix_as_probabilities():
    mixing = Mixing(0.3, torch.tensor([1, 0]))
    found = labeller({"name": "learned"}, set_labels=own_labels())(
        batch(torch.tensor([0, 3]), torch.zeros(2, 1, 8, 8), mixing)
    )
    torch.testing.assert_close(
        found.exp(), torch.tensor([[0.3, 0, 0, 0.7], [0.7, 0, 0, 0.3]]), atol=1e-6, rtol=0
    )


def test_centred_learned_labels_have_no_mean_and_the_same_softmax():
    whole = batch(torch.arange(6), torch.zeros(6, 1, 8, 8))
    plain, centred = (
        labeller({"name": "learned", **space}, set_labels=own_labels())(whole)
        for space in ({}, {"space": "centred"})
    )
    assert centred.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(centred.softmax(1), plain.softmax(1))


def test_a_set_without_soft_labels_of_its_own_is_named():
    with pytest.raises(
        PlanError, match="labels 'learned' are those that a set holds, this one has none"
    ):
        labeller({"name": "learned"})
