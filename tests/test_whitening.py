"""Whitening: ZCA by hand on a small set, its stage, and the readers of a whitened set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery.analyses.inputs import AnalysisInputs
from distillery.errors import ArtefactError, DataError
from distillery.sets import distilled
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.parts import SIDECAR, Kind, Part
from distillery.sets.whitening import (
    FILE,
    Whitening,
    covariance,
    matching_whitening,
    normalise_l2,
    zca,
)
from distillery.stages import evaluate
from distillery.stages import whiten as stage
from distillery.store.artefact import Artefact
from distillery.training.samples import Samples
from helpers.jobs import job_in
from helpers.tiny import data_artefact, tiny_set

IMAGES = torch.rand(40, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def matrix(ridge: float = 0.1) -> torch.Tensor:
    return zca(covariance(IMAGES.split(7)), ridge)[0]


def artefact(folder, whitening: Whitening) -> Artefact:
    folder.mkdir(exist_ok=True)
    save_file({"matrix": whitening.matrix}, folder / FILE)
    return Artefact(folder, {"id": "digits-zca-1", "files": {FILE: {}}})


def test_vectors_have_no_mean_and_length_one_and_a_plain_image_is_nothing():
    images = torch.cat([IMAGES, torch.full((1, 2, 3, 3), 0.3)])
    vectors = normalise_l2(images)
    assert vectors[:-1].mean(1).abs().max() < 1e-7
    torch.testing.assert_close(
        vectors.norm(dim=1), torch.tensor([1.0] * 40 + [0.0]), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(normalise_l2(255 * IMAGES), normalise_l2(IMAGES))  # 0..255 or 0..1
    by_hand = torch.tensor([[0.0, 1.0], [2.0, 5.0]])[
        None, None
    ]  # mean 2; (-2, -1, 0, 3) of length sqrt(14)
    torch.testing.assert_close(
        normalise_l2(by_hand), torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / 14**0.5
    )


def test_the_covariance_is_not_centred_and_has_trace_one():
    sigma = covariance(IMAGES.split(7))
    vectors = normalise_l2(IMAGES.double())
    torch.testing.assert_close(sigma, sum(torch.outer(v, v) for v in vectors) / 40)
    assert sigma.trace().item() == pytest.approx(1)


def test_zca_is_symmetric_and_leaves_each_eigenvalue_over_itself_plus_the_ridge():
    # In the eigenbasis: W S W = L / (L + ridge mean(L)), mean(L) = 1/D since the trace is 1.
    sigma = covariance([IMAGES])
    found, values = zca(sigma, 0.1)
    assert torch.equal(found, found.T)
    expected, vectors = torch.linalg.eigh(sigma)
    torch.testing.assert_close(values, expected.clamp_min(0))
    whitened = vectors.T @ (found @ sigma @ found) @ vectors
    torch.testing.assert_close(
        whitened, torch.diag(expected / (expected + 0.1 / 18)), atol=1e-9, rtol=1e-9
    )


def test_restoring_gives_the_unit_images_back():
    whitening = Whitening.of(matrix().float())
    whitened = whitening.apply(IMAGES)
    assert whitened.shape == IMAGES.shape and whitened.dtype == torch.float32
    torch.testing.assert_close(
        whitened.flatten(1),
        (normalise_l2(IMAGES.double()) @ matrix()).float(),
        atol=1e-4,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        whitening.restore(whitened).flatten(1), normalise_l2(IMAGES), atol=1e-5, rtol=1e-4
    )


def test_the_digest_is_that_of_the_bytes_whatever_the_layout():
    one = Whitening.of(matrix().float())
    assert one.digest == Whitening.of(matrix().float().T).digest and len(one.digest) == 64
    assert one.digest != Whitening.of(matrix(0.2).float()).digest


def test_the_stage_writes_the_whitening_of_the_training_images(tmp_path, monkeypatch):
    train = tiny_set()
    monkeypatch.setattr(stage, "load_images", lambda data, split: {"train": train}[split])
    job = job_in(tmp_path, recipe={"ridge": 0.3}, inputs={"data": SimpleNamespace(id="tiny")})
    metadata = stage.make(job)
    images = train.pixels(torch.arange(len(train))).double() / 255
    expected, values = zca(covariance([images]), 0.3)
    stored = load_file(job.out / FILE)["matrix"]
    assert stored.dtype == torch.float32
    torch.testing.assert_close(stored, expected.float(), atol=1e-3, rtol=1e-4)
    assert metadata["digest"] == Whitening.of(stored).digest
    assert metadata["eigenvalues"]["sum"] == pytest.approx(1)
    assert metadata["eigenvalues"]["largest"] == pytest.approx(values[-1].item())


def test_images_of_one_colour_cannot_be_whitened(tmp_path, monkeypatch):
    plain = SimpleNamespace(
        pixels=lambda part: torch.full((len(part), 1, 4, 4), 9, dtype=torch.uint8)
    )

    class Plain(SimpleNamespace):
        def __len__(self):
            return 5

    monkeypatch.setattr(stage, "load_images", lambda data, split: Plain(pixels=plain.pixels))
    job = job_in(tmp_path, recipe={"ridge": 0.1}, inputs={"data": SimpleNamespace(id="grey")})
    with pytest.raises(DataError, match="data grey: its images give no finite whitening"):
        stage.make(job)


def test_a_set_is_read_with_its_own_whitening_alone(tmp_path):
    own, other = Whitening.of(matrix().float()), Whitening.of(matrix(0.2).float())
    loaded = matching_whitening(artefact(tmp_path, own), own.digest, "set x")
    assert torch.equal(loaded.matrix, own.matrix)
    assert matching_whitening(None, None, "set x") is None
    for given, digest in (
        (artefact(tmp_path, own), other.digest),
        (artefact(tmp_path, own), None),
        (None, own.digest),
    ):
        with pytest.raises(ArtefactError, match="set x was made with whitening"):
            matching_whitening(given, digest, "set x")


def test_a_torn_whitening_is_named(tmp_path):
    torn = artefact(tmp_path, Whitening.of(matrix().float()))
    (tmp_path / FILE).write_bytes(b"no")
    with pytest.raises(ArtefactError, match="holds no whitening"):
        Whitening.load(torn)


# --- whitened sets --------------------------------------------------------------------------------

TRAIN, TEST = tiny_set(), tiny_set(seed=1)
STUDENT = {"name": "convnet", "width": 4, "depth": 2, "norm": "instance"}
TRAINING = {"epochs": 3, "batch": 100, "optimizer": {"name": "adam", "lr": 1e-3}, "test_every": 3}


@pytest.fixture
def whitening() -> Whitening:
    return Whitening.of(zca(covariance([TRAIN.images.double() / 255]), 0.1)[0].float())


@pytest.fixture
def whitened(whitening, monkeypatch) -> DistilledSet:
    """A set of whitened images with soft labels of its own, of a method that is not there."""

    def expand(found: DistilledSet) -> Instances:
        soft = (found["soft"] + 1e-8).log()
        return Instances(found["labels"], found["images"].__getitem__, soft)

    monkeypatch.setattr(distilled, "load", lambda kind, name: SimpleNamespace(expand=expand))
    soft = torch.rand(8, 4, generator=torch.Generator().manual_seed(2))
    parts = {
        "images": Part(whitening.apply(TRAIN.images[:8] / 255), Kind.IMAGE),
        "labels": Part(torch.arange(4).repeat(2), Kind.HARD_LABEL, derived=True),
        "soft": Part(soft / soft.sum(1, True), Kind.SOFT_LABEL),
    }
    return DistilledSet(
        "learner", 2, TRAIN.classes, (0.0,), (1.0,), parts, whitening=whitening.digest
    )


def test_real_images_are_whitened_when_they_are_read(whitening):
    expected = whitening.apply(TEST.images / 255)
    for resident in (1 << 30, 0):
        samples = Samples.from_images(
            TEST, "cpu", mean=(0.5,), std=(0.25,), whitening=whitening, resident=resident
        )
        seen = samples.normalise(samples.take(torch.tensor([5, 0])))
        torch.testing.assert_close(seen, expected[[5, 0]])


@pytest.mark.parametrize(("spare", "reads"), [(0, 1), (-1, 2)])
def test_whitened_images_take_four_bytes_a_pixel(whitening, spare, reads, monkeypatch):
    resident, calls = 4 * TEST.images.numel() + spare, []
    monkeypatch.setattr(type(TEST), "pixels", lambda s, i: calls.append(i) or s.images[i])
    samples = Samples.from_images(TEST, "cpu", whitening=whitening, resident=resident)
    for _ in range(2):
        samples.take(torch.tensor([5, 0]))
    assert len(calls) == reads


def test_a_whitened_set_names_its_whitening_and_others_say_nothing_of_it(whitened, tmp_path):
    whitened.save(tmp_path)
    assert DistilledSet.load(tmp_path).whitening == whitened.whitening
    assert whitened.numbers == {"images": 8 * 64, "soft": 32} and whitened.bytes == {
        "images": 4 * 8 * 64,
        "soft": 4 * 32,
    }
    parts = whitened.parts | {"images": Part(TRAIN.images[:8] / 255, Kind.IMAGE)}
    plain = DistilledSet("random", 2, TRAIN.classes, (0.5,), (0.25,), parts)
    plain.save(tmp_path)
    assert (
        "whitening" not in (tmp_path / SIDECAR).read_text()
    )  # what is stored already has no such entry
    assert DistilledSet.load(tmp_path).whitening is None


def job_of(folder, whitened: DistilledSet, labels: str, loss: str, given: Whitening | None):
    (folder / "set").mkdir(parents=True)
    whitened.save(folder / "set")
    inputs = {"distilled": Artefact(folder / "set", {"id": "set", "metadata": {}, "files": {}})}
    inputs |= {"data": data_artefact(folder / "data", TRAIN, test=TEST)}
    inputs |= {"whitening": artefact(folder / "whitening", given)} if given else {}
    recipe = {
        "student": STUDENT,
        "labels": {"name": labels},
        "loss": {"name": loss},
        "training": TRAINING,
    }
    return job_in(folder, recipe=recipe, inputs=inputs)


def test_a_student_of_a_whitened_set_sees_whitened_images_and_the_sets_labels(
    whitened, whitening, tmp_path, monkeypatch
):
    seen = {}

    def watch(student, samples, training, loss, job, *, test, labeller, seeds):
        seen.update(train=samples, test=test, labeller=labeller)
        return trained(
            student, samples, training, loss, job, test=test, labeller=labeller, seeds=seeds
        )

    trained = evaluate.train
    monkeypatch.setattr(evaluate, "train", watch)
    metadata = evaluate.make(job_of(tmp_path, whitened, "learned", "soft-ce", whitening))
    every = torch.arange(len(TEST))
    torch.testing.assert_close(
        seen["test"].normalise(seen["test"].take(every)), whitening.apply(TEST.images / 255)
    )
    first = seen["train"].normalise(seen["train"].take(torch.arange(8)))
    torch.testing.assert_close(first, whitened["images"])
    batch = SimpleNamespace(indices=torch.arange(8), mixing=SimpleNamespace(labels=lambda y: y))
    torch.testing.assert_close(
        seen["labeller"](batch).softmax(1), whitened["soft"], atol=1e-6, rtol=1e-5
    )
    assert metadata["instances"] == 8 and len(metadata["loss"]) == 3


def test_hard_labels_of_a_whitened_set_are_its_classes(whitened, whitening, tmp_path):
    assert len(evaluate.make(job_of(tmp_path, whitened, "hard", "ce", whitening))["loss"]) == 3


def test_a_whitened_set_is_not_evaluated_with_other_images(whitened, tmp_path):
    other = Whitening.of(zca(covariance([TRAIN.images.double() / 255]), 0.2)[0].float())
    for place, given in (("none", None), ("other", other)):
        with pytest.raises(ArtefactError, match="distilled set set was made with whitening"):
            evaluate.make(job_of(tmp_path / place, whitened, "learned", "soft-ce", given))


def test_analyses_see_whitened_test_images_of_a_whitened_set(whitened, whitening):
    inputs = AnalysisInputs(
        TRAIN, TEST, whitened, None, [], None, whitened.mean, whitened.std, whitening
    )
    samples = inputs.test_samples("cpu")
    torch.testing.assert_close(
        samples.normalise(samples.take(torch.arange(3))), whitening.apply(TEST.images[:3] / 255)
    )
