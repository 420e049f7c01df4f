"""JPEG files as stored parts: Pillow's files, byte by byte, and what methods make of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distillery.methods import infer
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import decoder, encode, image_parts, quantised
from helpers.jobs import job_in
from helpers.methods import INFER, SRE2L, distil, two_teachers
from helpers.tiny import TinySet, tiny_set, tiny_teacher

SETS = {
    "sre2l": SRE2L,
    "cda": {**SRE2L, "name": "cda", "augment": ["batch-resized-crop"]},
    "rded": {"name": "rded", "teachers": ["net"], "factor": 2, "pool": 12},
    "infer": {**INFER, "iterations": 2},
}


def pillow_file(levels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", **options)
    return file.getvalue()


def pillow(image: Tensor) -> bytes:
    """Pillow's file, by its defaults, of a (C, H, W) float image that numpy truncates."""
    levels = (image.numpy() * 255).astype(np.uint8)
    return pillow_file(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))


def decoded(file: bytes) -> Tensor:
    levels = np.array(Image.open(io.BytesIO(file)))
    return torch.from_numpy(levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 9, 13)], ids=str)
def test_parts_are_pillows_files_one_after_the_other(shape):
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    files = [pillow(image) for image in images]
    parts = image_parts(quantised(images, 75), torch.arange(5), 75)
    jpeg, ends, hard = (parts[name].tensor for name in ("jpeg", "jpeg_ends", "labels"))
    assert bytes(jpeg.numpy()) == b"".join(files)
    assert ends.tolist() == np.cumsum([len(file) for file in files]).tolist()
    assert ends.dtype == torch.int64 and hard.tolist() == list(range(5))
    found = decoder(jpeg, ends)(torch.tensor([4, 0, 2, 2]))
    assert found.shape == (4, *shape) and torch.equal(
        found, torch.stack([decoded(files[i]) for i in (4, 0, 2, 2)])
    )


def test_files_of_several_batches_follow_each_other():
    images = torch.randint(
        0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    whole, split = encode([images], 75), encode(images.split(2), 75)
    assert all(
        torch.equal(whole[name].tensor, split[name].tensor) for name in ("jpeg", "jpeg_ends")
    )


def test_large_images_decode_in_order_on_several_threads():
    images = torch.arange(0, 240, 10, dtype=torch.uint8)[:, None, None, None].expand(24, 1, 64, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parts = encode([images], 100)
        found = decoder(parts["jpeg"].tensor, parts["jpeg_ends"].tensor)(torch.arange(24).flip(0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found, images.flip(0))


def test_quality_is_the_one_asked_for():
    levels = torch.randint(
        0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    for quality in (1, 75, 100):
        expected = pillow_file(levels[0].permute(1, 2, 0).numpy(), quality=quality)
        assert bytes(encode([levels], quality)["jpeg"].tensor.numpy()) == expected


def test_truncation_by_hand():
    # 0.999 of 255 is 254.7, half of it 127.5, 0.0039 of it 0.99
    images = torch.tensor([0.0, 0.0039, 0.5, 0.999, 1.0])
    assert quantised(images, 75).tolist() == [0, 0, 127, 254, 255]
    assert quantised(images, None).tolist() == [0, 1, 128, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantised(every.float() / 255, 75), every), (
        "a stored level is truncated to itself"
    )


def made(folder: Path, train: TinySet, name: str, **fields: object) -> DistilledSet:
    teachers = two_teachers(train) if name == "infer" else [tiny_teacher(train)]
    return distil({**SETS[name], **fields}, train, 3, job_in(folder), teachers)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SETS)
def test_a_set_of_files_expands_to_what_they_decode_to(name, channels, tmp_path):
    train = tiny_set(channels=channels)
    lossless, stored = (
        made(tmp_path / "a", train, name),
        made(tmp_path / "b", train, name, jpeg=100),
    )
    assert set(stored.parts) == {"jpeg", "jpeg_ends", "labels"}
    assert stored.layout == {}, "the files are the instances, whatever they were made of"
    stored.save(tmp_path)
    loaded = DistilledSet.load(tmp_path)
    instances, expected = loaded.expand(), lossless.expand()
    assert instances.labels.tolist() == expected.labels.tolist()
    files = np.split(loaded["jpeg"].numpy(), loaded["jpeg_ends"].numpy()[:-1])
    assert torch.equal(
        instances.images, torch.stack([decoded(file.tobytes()) for file in files]).float() / 255
    )
    assert loaded.bytes == {"jpeg": sum(len(file) for file in files)}
    # one channel loses a level to truncation and little to quality 100; chroma is subsampled in
    # noise of three
    assert (instances.images - expected.images).abs().mean() < (2 / 255 if channels == 1 else 0.25)


def test_infer_stores_a_file_of_each_instance_in_the_order_of_its_expansion(tmp_path, monkeypatch):
    train, seen, as_files = tiny_set(), [], infer.as_files
    monkeypatch.setattr(
        infer, "as_files", lambda exact, quality: seen.append(exact) or as_files(exact, quality)
    )
    monkeypatch.setattr(infer, "BATCH", 7)
    written = {}
    for natural in (True, False):
        seen.clear()
        stored = made(tmp_path / str(natural), train, "infer", jpeg=75, natural_instances=natural)
        assert seen[0]["compensators"].dtype == torch.float32
        instances = infer.expand(seen[0])
        assert (
            len(instances) == 2 * 4 * (2 + natural)
            and stored["labels"].tolist() == instances.labels.tolist()
        )
        written[natural] = [pillow(image) for image in instances.images]
        assert bytes(stored["jpeg"].numpy()) == b"".join(written[natural])
    assert written[True][8:] == written[False]
