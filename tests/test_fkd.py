"""Stored dynamic labels: a student cannot tell them from dynamic ones; the stages around them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distillery.components import registry
from distillery.errors import ArtefactError, PlanError
from distillery.labels import fkd
from distillery.losses import mse
from distillery.nets.network import load_network
from distillery.stages import evaluate
from distillery.store.artefact import Artefact
from distillery.teacher.ensemble import mean_logits
from distillery.training.loop import initialise, train
from distillery.training.recipe import Mix, Optimizer, Training
from distillery.training.samples import Samples
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.labels import TEACHERS, TRAIN, fkd_job, infer_set

CPU = torch.device("cpu")
TRAINING = Training(3, 16, Optimizer("sgd", 0.05), augment=("crop:1", "flip"), mix=Mix("mixup"))
CONSTANTS = {"mean": (0.5,), "std": (0.25,)}


def recipe_of(training: Training, **fields: object) -> fkd.Recipe:
    return fkd.Recipe(
        ("a", "b"), **{name: getattr(training, name) for name in fkd.TRAITS["replays"]}, **fields
    )


def store(folder: Path, recipe: fkd.Recipe) -> Artefact:
    job = job_in(folder, key="labels")
    fkd.make(recipe, infer_set().expand(), TEACHERS, job, **CONSTANTS)
    return Artefact(
        job.out, {"id": "labels", "files": {file.name: {} for file in job.out.iterdir()}}
    )


def squared(logits, target):
    return mse.loss(logits, target, mse.Recipe())


def layers():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )


def student_of(
    labeller, training: Training, seeds: dict[str, int], folder: Path, key: str = "student"
) -> dict[str, Tensor]:
    samples, job = (
        Samples.from_instances(infer_set().expand(), device="cpu", **CONSTANTS),
        job_in(folder, key),
    )
    student = initialise(layers, job.seed("init"))
    train(student, samples, training, squared, job, test=samples, labeller=labeller, seeds=seeds)
    return student.state_dict()


@pytest.mark.parametrize("rescale", [None, "norm"])
@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_students_of_stored_and_of_dynamic_labels_are_the_same(precision, mix, rescale, tmp_path):
    training = replace(TRAINING, precision=precision, mix=Mix(mix))
    kind, dynamic = registry.build(
        "label", {"name": "dynamic", "teachers": ["a", "b"], "rescale": rescale}
    )
    online = kind.labeller(dynamic, stored=None, teachers=TEACHERS, device=CPU)
    found = {}
    for dtype in ("float16", "float32"):
        recipe = recipe_of(training, dtype=dtype, rescale=rescale)
        stored = store(tmp_path / dtype, recipe)
        offline = fkd.labeller(recipe, stored=stored, teachers=[], device=CPU)
        found[dtype] = student_of(
            offline, training, fkd.seeds(stored), tmp_path / f"student-{dtype}"
        )
    expected = student_of(online, training, fkd.seeds(stored), tmp_path / "student")
    for name, value in expected.items():
        assert torch.equal(found["float32"][name], value)
        torch.testing.assert_close(found["float16"][name], value, rtol=1e-3, atol=2e-3)
    assert not torch.equal(found["float16"]["4.weight"], expected["4.weight"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_labels_are_made_in_the_precision_of_the_student(precision, tmp_path):
    """The teachers' logits of the very batches, computed by hand in one precision, then rounded."""
    training = replace(TRAINING, epochs=1, precision=precision, mix=Mix("none"), augment=())
    recipe = recipe_of(training)
    stored = load_file(store(tmp_path, recipe).file("epoch-0000.safetensors"))
    samples = Samples.from_instances(infer_set().expand(), device="cpu", **CONSTANTS)
    images = samples.normalise(samples.take(torch.arange(len(samples))))
    found = {}
    for name, enabled in (("fp32", False), ("bf16", True)):
        order = stored["order"].long()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = [
                torch.stack([t.model(images[part]).float() for t in TEACHERS]).mean(0)
                for part in order.split(training.batch)
            ]
        found[name] = torch.cat(logits)[order.argsort()].half()
    assert stored["logits"].dtype == torch.float16  # as the recipe says, whatever the precision
    distances = {name: (stored["logits"] - own).abs().max() for name, own in found.items()}
    assert distances.pop(precision) < 1e-4 < 4e-4 < min(distances.values())


def test_another_student_seed_changes_the_student_and_not_what_it_sees(tmp_path):
    recipe, seen, students = recipe_of(TRAINING), [], []
    stored = store(tmp_path / "labels", recipe)
    label = fkd.labeller(recipe, stored=stored, teachers=[], device=CPU)
    for key in ("one", "two"):
        images = []

        def watched(batch, images=images):
            images.append(batch.images)
            return label(batch)

        students.append(student_of(watched, TRAINING, fkd.seeds(stored), tmp_path / key, key))
        seen.append(torch.cat(images))
    assert torch.equal(*seen)
    assert not torch.equal(*(student["4.weight"] for student in students))


def test_a_torn_epoch_is_labelled_again(tmp_path, monkeypatch):
    recipe = recipe_of(TRAINING)
    whole = store(tmp_path / "whole", recipe)
    monkeypatch.setattr(fkd, "copier", lambda source: 1 / 0)  # when all epochs are labelled
    with saving(), pytest.raises(ZeroDivisionError):
        store(tmp_path / "torn", recipe)
    monkeypatch.undo()
    (tmp_path / "torn/scratch/epoch-0001.safetensors").write_bytes(b"half a file")
    again = store(tmp_path / "torn", recipe)
    assert all(
        (whole.path / file).read_bytes() == (again.path / file).read_bytes()
        for file in whole.meta["files"]
    )


def test_labels_of_other_batches_are_refused(tmp_path):
    recipe = recipe_of(TRAINING)
    label = fkd.labeller(recipe, stored=store(tmp_path / "labels", recipe), teachers=[], device=CPU)
    with pytest.raises(ArtefactError, match=r"epoch-0000\.safetensors: labels other batches"):
        student_of(label, TRAINING, {"batches": 1, "augment": 2, "mix": 3}, tmp_path / "student")


def test_rescaling_brings_every_teacher_to_the_mean_norm():
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    loud = replace(TEACHERS[0], model=lambda x: 10 * TEACHERS[0].model(x))
    one, two = (TEACHERS[i].model(images) for i in (0, 1))
    norms = [10 * one.square().sum().sqrt(), two.square().sum().sqrt()]
    expected = (10 * one / norms[0] + two / norms[1]) * sum(norms) / 2 / 2
    torch.testing.assert_close(mean_logits([loud, TEACHERS[1]], images, rescale=True), expected)
    torch.testing.assert_close(mean_logits([loud, TEACHERS[1]], images), (10 * one + two) / 2)


def test_stages_count_the_bytes_and_train_the_student(tmp_path):
    job = fkd_job(tmp_path)
    metadata = job.inputs["label"].metadata
    assert metadata["bytes"] == {"labels": 2 * 36 * 4 * 2, "order": 2 * 36 * 4, "seeds": 3 * 8}
    assert metadata["kinds"] == {"labels": "soft label", "order": "index", "seeds": "index"}
    assert (
        metadata["instances"] == 36
        and metadata["kind"] == "fkd"
        and 0 <= metadata["agreement"] <= 100
    )
    rows = [
        load_file(job.inputs["label"].file(f"epoch-000{epoch}.safetensors"))["logits"].argmax(1)
        for epoch in (0, 1)
    ]
    agreeing = sum(int(row[i]) == i % 4 for row in rows for i in range(36))
    assert metadata["agreement"] == pytest.approx(100 * agreeing / 72)
    found = evaluate.make(job)
    assert found["instances"] == 36 and len(found["loss"]) == 2
    student = load_network(found["student"], (1, 8, 8), 4, job.out / "student.safetensors")
    right = student((TRAIN.images.float() / 255 - 0.5) / 0.25).argmax(1) == TRAIN.labels
    assert found["accuracy"]["last"] == pytest.approx(100 * right.double().mean().item())
    assert not student.training and not any(
        parameter.requires_grad for parameter in student.parameters()
    )


def test_the_test_images_are_normalised_as_the_set_is_not_as_their_data(tmp_path):
    made = fkd_job(tmp_path)
    other = replace(infer_set(), mean=(0.9,), std=(0.1,))
    other.save(made.inputs["distilled"].path)
    recipe = made.recipe | {"labels": {"name": "hard"}, "loss": {"name": "ce"}}
    inputs = {role: made.inputs[role] for role in ("data", "distilled")}
    job = replace(made, recipe=recipe, inputs=inputs)
    found = evaluate.make(job)
    student = load_network(found["student"], (1, 8, 8), 4, job.out / "student.safetensors")

    def percent(mean, std):
        answers = student((TRAIN.images.float() / 255 - mean) / std).argmax(1)
        return 100 * (answers == TRAIN.labels).double().mean().item()

    assert found["accuracy"]["last"] == pytest.approx(percent(0.9, 0.1))
    assert percent(0.9, 0.1) != percent(0.5, 0.25)  # those of the data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 3),
        ("batch", 9),
        ("augment", []),
        ("mix", {"name": "cutmix", "alpha": 0.8}),
        ("precision", "bf16"),
        ("batch_up_to", [[36, 4]]),
    ],
)
def test_labels_for_another_training_are_refused_by_the_field(field, value, tmp_path):
    with pytest.raises(
        PlanError, match=rf"training\.{field} is .*, the labels labels were made for"
    ):
        evaluate.make(fkd_job(tmp_path, **{field: value}))
