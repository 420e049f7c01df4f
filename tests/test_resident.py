"""What is kept whole and what is read again: by one limit, and with the same bits."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distillery.data import images as data_images
from distillery.data.images import ImageSet, load_images
from distillery.errors import ArtefactError
from distillery.sets import distilled as distilled_sets
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.jpeg import image_parts
from distillery.training import samples as training_samples
from distillery.training.batches import ROLES, Batches
from distillery.training.loop import predictions
from distillery.training.read_ahead import ReadAhead
from distillery.training.recipe import Training
from distillery.training.samples import Samples
from helpers.jobs import job_in
from helpers.labels import infer_set
from helpers.tiny import data_artefact, tiny_net, tiny_set

TEST = tiny_set(per_class=5, seed=3)


@pytest.fixture
def two_threads(monkeypatch):
    """A job of two threads, one of which may read ahead."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.fixture
def opened(tmp_path: Path):
    """Opens the test images in a data artefact: all kept, or none."""
    artefact = data_artefact(tmp_path / "data", tiny_set(), test=TEST)
    return lambda kept: load_images(artefact, "test", None if kept else 0)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Numbers of the rows that are decoded."""
    rows, decode = [], data_images._EncodedRows.decode

    def counted(self, numbered, mode=None):
        rows.append(numbered[0])
        return decode(self, numbered, mode)

    monkeypatch.setattr(data_images._EncodedRows, "decode", counted)
    return rows


def logits(samples: Samples, size: int) -> Tensor:
    """Of a network, as `predictions` computes them before it takes the largest."""
    found: list[Tensor] = []
    model = tiny_net(TEST).eval()
    handle = model.register_forward_hook(lambda module, inputs, out: found.append(out))
    predictions(model, samples, size)
    handle.remove()
    return torch.cat(found)


def test_kept_read_and_read_ahead_give_the_same_logits_to_the_bit(opened, two_threads):
    kept = Samples.from_images(opened(True), "cpu")
    ahead = Samples.from_images(opened(False), "cpu", resident=0)
    copied = Samples.from_images(opened(False), "cpu")
    by_batch = replace(ahead, slow=False)
    assert ahead.slow and not kept.slow and not copied.slow
    expected = tiny_net(TEST).eval()((TEST.images.float() / 255 - 0.5) / 0.25)
    for samples in (kept, ahead, copied, by_batch):
        assert logits(samples, 7).equal(logits(kept, 7))
        torch.testing.assert_close(logits(samples, 7), expected, rtol=1e-4, atol=1e-4)


def test_test_images_that_fit_are_decoded_once_and_are_there_once(opened, decoded):
    images = opened(True)
    samples = Samples.from_images(images, "cpu")
    model = tiny_net(TEST)
    for _ in range(3):
        predictions(model, samples, 7)
    assert decoded == list(range(20))
    first = samples.read(torch.tensor([4]))
    images._all[4] = 9  # what `samples` reads is what `images` keeps
    assert samples.read(torch.tensor([4])).unique().tolist() == [9] != first.unique().tolist()


def test_what_is_not_kept_is_decoded_in_each_pass(opened, decoded):
    samples = Samples.from_images(opened(False), "cpu", resident=0)
    for _ in range(2):
        predictions(tiny_net(TEST), samples, 7)
    assert decoded == 2 * list(range(20))


def test_whether_images_are_kept_is_asked_when_they_are_first_read(opened, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(data_images, "fits", lambda size: asked.append(size) or False)
    images: ImageSet = opened(True)
    assert asked == []
    images.pixels(torch.tensor([1]))
    images.pixels(torch.tensor([2]))
    assert asked == [20 * 64] and images._all is None


def test_a_killed_pass_over_images_that_are_read_ahead_goes_on(opened, two_threads, tmp_path):
    samples = Samples.from_images(opened(False), "cpu", resident=0)
    model, job = tiny_net(TEST), job_in(tmp_path / "job")
    whole = predictions(model, samples, 3)
    calls: list[int] = []

    def killed(indices: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) > 4:
            raise KeyboardInterrupt
        return samples.read(indices)

    with pytest.raises(KeyboardInterrupt):
        predictions(model, replace(samples, read=killed), 3, job=job)
    assert predictions(model, samples, 3, job=job).equal(whole)


# ---- reading ahead -------------------------------------------------------------------------------


def test_a_thread_reads_the_next_part_while_one_is_used():
    started = {part: threading.Event() for part in "abc"}
    by: dict[str, int] = {}

    def read(part: str) -> str:
        started[part].set()
        by[part] = threading.get_ident()
        return part.upper()

    ahead = ReadAhead(read, "abc")
    assert not any(event.is_set() for event in started.values())
    assert ahead(0) == "A"
    assert started["b"].wait(10) and not started["c"].is_set()
    assert ahead(1) == "B" and started["c"].wait(10) and ahead(2) == "C"
    assert by["a"] == threading.get_ident() != by["b"] == by["c"]


def test_parts_may_be_asked_for_from_the_middle_again_or_out_of_turn():
    ahead = ReadAhead(lambda part: part * part, [1, 2, 3, 4])
    assert [ahead(i) for i in (2, 3, 3, 0, 1, 0, 2)] == [9, 16, 16, 1, 4, 1, 9]


def test_an_error_of_a_part_comes_when_that_part_is_asked_for():
    def read(part: int) -> int:
        if part == 2:
            raise ArtefactError("row 2")
        return part

    ahead = ReadAhead(read, [1, 2, 3])
    assert ahead(0) == 1
    with pytest.raises(ArtefactError, match="row 2"):
        ahead(1)
    assert ahead(2) == 3


@pytest.mark.parametrize(
    ("slow", "threads", "device", "ahead"),
    [
        (True, 2, "cpu", True),
        (True, 1, "cpu", False),
        (False, 2, "cpu", False),
        (True, 1, "meta", True),
        (False, 1, "meta", False),
    ],
)
def test_a_thread_reads_ahead_where_that_takes_no_time_of_what_computes(
    slow, threads, device, ahead, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    made: list[int] = []
    monkeypatch.setattr(
        training_samples, "ReadAhead", lambda read, parts: made.append(1) or ReadAhead(read, parts)
    )
    images, none = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(1)
    samples = Samples(torch.zeros(4, device=device), images.__getitem__, none, none, slow)
    assert samples.taking([torch.tensor([1])])(0).dtype == torch.float32
    assert bool(made) == ahead


@pytest.mark.parametrize("first", [0, 2])
def test_batches_that_are_read_ahead_are_the_same(opened, two_threads, first):
    def batches(samples: Samples) -> list[Tensor]:
        generators = {role: torch.Generator().manual_seed(3) for role in ROLES}
        recipe = Training(1, 6, augment=("crop:1", "flip"))
        found = Batches(samples, recipe, generators).epoch(0, first)
        return [batch.images for batch in found]

    kept = batches(Samples.from_images(opened(True), "cpu"))
    ahead = batches(Samples.from_images(opened(False), "cpu", resident=0))
    assert len(kept) == len(ahead) == 4 - first
    assert all(map(torch.equal, kept, ahead))


# ---- sets ----------------------------------------------------------------------------------------


def real_set(quality: int | None = None) -> DistilledSet:
    parts = image_parts(TEST.images, TEST.labels, quality)
    return DistilledSet("random", 5, TEST.classes, (0.5,), (0.25,), parts)


@pytest.mark.parametrize("quality", [None, 90])
def test_levels_are_kept_as_bytes_and_read_as_the_same_floats(quality):
    instances = real_set(quality).expand()
    samples = Samples.from_instances(instances, (0.5,), (0.25,), "cpu")
    assert samples.read(torch.arange(20)).dtype == torch.uint8
    indices = torch.tensor([7, 0, 7])
    assert samples.take(indices).equal(instances.take(indices))
    if quality is None:
        assert samples.take(indices).equal(TEST.images[indices].float() / 255)


def test_a_set_of_other_parts_keeps_its_floats():
    instances = infer_set().expand()
    samples = Samples.from_instances(instances, (0.5,), (0.25,), "cpu")
    assert samples.read(torch.arange(5)).dtype == torch.float32
    assert samples.take(torch.arange(36)).equal(instances.images)


@pytest.mark.parametrize("most", [4 * 64 * 4, 5 * 64 * 4, 10**9])
def test_images_are_put_together_part_by_part(most, monkeypatch):
    monkeypatch.setattr(training_samples, "COPIED", most)
    parts: list[int] = []
    instances = infer_set().expand()

    def take(indices: Tensor) -> Tensor:
        parts.append(len(indices))
        return instances.take(indices)

    samples = Samples.from_instances(replace(instances, take=take), (0.5,), (0.25,), "cpu")
    assert samples.take(torch.arange(36)).equal(instances.images)
    assert max(parts) == min(36, most // 256) and sum(parts) == 1 + 36


def test_a_set_goes_to_the_device_where_it_fits_there(monkeypatch):
    made, asked = infer_set(), []

    def answer(fitting: bool) -> None:
        monkeypatch.setattr(
            distilled_sets, "fits", lambda size, device: asked.append((size, device)) or fitting
        )

    answer(True)
    assert made.expand("meta").labels.device.type == "meta"
    answer(False)
    instances = made.expand("meta")
    assert instances.labels.device.type == "cpu" and instances.images.equal(made.expand().images)
    size = 3 * 4 * 64 + 2 * 2 * 3 * 64  # bytes of natural images, of compensators in float16
    assert asked[:2] == [(size, "meta"), (size, "meta")]


def test_instances_beside_the_device_are_brought_there_when_they_are_taken():
    labels, images = torch.arange(3), torch.zeros(3, 1, 2, 2)
    asked: list[torch.device] = []
    instances = Instances(
        labels, lambda i: asked.append(i.device) or images[:1].expand(len(i), -1, -1, -1)
    )
    samples = Samples.from_instances(instances, (0.5,), (0.25,), "meta", resident=0)
    assert samples.slow and samples.device.type == "meta"
    assert samples.take(torch.arange(2)).device.type == "meta"
    assert {device.type for device in asked} == {"cpu"}
