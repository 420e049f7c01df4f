"""Whitening: ZCA worked by hand on a small set, its room, and what a set that was whitened asks of its readers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_methods import job_in, tiny_set

from distillery.artefact import Artefact
from distillery.errors import ArtefactError, DataError
from distillery.whiten import room
from distillery.whitening import FILE, Whitening, covariance, fitting, unit, zca

IMAGES = torch.rand(40, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def matrix(ridge: float = 0.1) -> torch.Tensor:
    return zca(covariance(IMAGES.split(7)), ridge)[0]


def artefact(folder, whitening: Whitening) -> Artefact:
    folder.mkdir(exist_ok=True)
    save_file({"matrix": whitening.matrix}, folder / FILE)
    return Artefact(folder, {"id": "digits-zca-1", "files": {FILE: {}}})


def test_vectors_have_no_mean_and_length_one_and_a_plain_image_is_nothing():
    images = torch.cat([IMAGES, torch.full((1, 2, 3, 3), 0.3)])
    vectors = unit(images)
    assert vectors[:-1].mean(1).abs().max() < 1e-7
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0] * 40 + [0.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(unit(255 * IMAGES), unit(IMAGES))  # 0..255 or 0..1
    by_hand = torch.tensor([[0.0, 1.0], [2.0, 5.0]])[None, None]  # mean 2; (-2, -1, 0, 3) of length sqrt(14)
    torch.testing.assert_close(unit(by_hand), torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / 14**0.5)


def test_the_covariance_is_not_centred_and_has_trace_one():
    sigma = covariance(IMAGES.split(7))
    vectors = unit(IMAGES.double())
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
    torch.testing.assert_close(whitened, torch.diag(expected / (expected + 0.1 / 18)), atol=1e-9, rtol=1e-9)


def test_restoring_gives_the_unit_images_back():
    whitening = Whitening.of(matrix().float())
    whitened = whitening.apply(IMAGES)
    assert whitened.shape == IMAGES.shape and whitened.dtype == torch.float32
    torch.testing.assert_close(whitened.flatten(1), (unit(IMAGES.double()) @ matrix()).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whitening.restore(whitened).flatten(1), unit(IMAGES), atol=1e-5, rtol=1e-4)


def test_the_digest_is_that_of_the_bytes_whatever_the_layout():
    one = Whitening.of(matrix().float())
    assert one.digest == Whitening.of(matrix().float().T).digest and len(one.digest) == 64
    assert one.digest != Whitening.of(matrix(0.2).float()).digest


def test_the_room_writes_the_whitening_of_the_training_images(tmp_path, monkeypatch):
    train = tiny_set()
    monkeypatch.setattr(room, "load_images", lambda data, split: {"train": train}[split])
    job = job_in(tmp_path, recipe={"ridge": 0.3}, inputs={"data": SimpleNamespace(id="tiny")})
    facts = room.make(job)
    images = train.pixels(torch.arange(len(train))).double() / 255
    expected, values = zca(covariance([images]), 0.3)
    stored = load_file(job.out / FILE)["matrix"]
    assert stored.dtype == torch.float32
    torch.testing.assert_close(stored, expected.float(), atol=1e-3, rtol=1e-4)
    assert facts["digest"] == Whitening.of(stored).digest
    assert facts["eigenvalues"]["sum"] == pytest.approx(1)
    assert facts["eigenvalues"]["largest"] == pytest.approx(values[-1].item())


def test_images_of_one_colour_cannot_be_whitened(tmp_path, monkeypatch):
    plain = SimpleNamespace(pixels=lambda part: torch.full((len(part), 1, 4, 4), 9, dtype=torch.uint8))

    class Plain(SimpleNamespace):
        def __len__(self):
            return 5

    monkeypatch.setattr(room, "load_images", lambda data, split: Plain(pixels=plain.pixels))
    job = job_in(tmp_path, recipe={"ridge": 0.1}, inputs={"data": SimpleNamespace(id="grey")})
    with pytest.raises(DataError, match="data grey: its images give no finite whitening"):
        room.make(job)


def test_a_set_is_read_with_its_own_whitening_alone(tmp_path):
    own, other = Whitening.of(matrix().float()), Whitening.of(matrix(0.2).float())
    loaded = fitting(artefact(tmp_path, own), own.digest, "set x")
    assert torch.equal(loaded.matrix, own.matrix)
    assert fitting(None, None, "set x") is None
    for given, digest in ((artefact(tmp_path, own), other.digest), (artefact(tmp_path, own), None), (None, own.digest)):
        with pytest.raises(ArtefactError, match="set x was made with whitening"):
            fitting(given, digest, "set x")


def test_a_torn_whitening_is_named(tmp_path):
    torn = artefact(tmp_path, Whitening.of(matrix().float()))
    (tmp_path / FILE).write_bytes(b"no")
    with pytest.raises(ArtefactError, match="holds no whitening"):
        Whitening.load(torn)
