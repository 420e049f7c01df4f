"""Training images at their own size beside the stored ones, and the crops cut out of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from distillery.data.images import ImageSet, load_images
from distillery.errors import ArtefactError, PlanError
from distillery.methods import g_vbsm
from distillery.methods.shared.crops import random_crops
from distillery.store.artefact import Artefact
from distillery.teacher.load import Teacher
from distillery.training.boxes import draw_boxes
from helpers.jobs import job_in
from helpers.methods import distil
from helpers.planning import at
from helpers.sources import encoded, folders, picture, rows, run, write

CPU = torch.device("cpu")
SIZES = [(24, 16), (16, 16), (40, 9), (13, 31)]  # width, height of the images of a class
# in the order of the files: by class, then name
PICTURES = [picture(10 * c + i, *size) for c in (0, 1) for i, size in enumerate(SIZES)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = folders(tmp_path / "set", count=1, width=20, height=12)
    for number, image in enumerate(PICTURES):
        write(root / f"train/{('cat', 'dog')[number // 4]}/{number % 4}.png", image)
    return root


@pytest.fixture
def kept(source: Path) -> Artefact:
    return run(f"folder:{source}", size=16, originals="keep", mean=[0.5] * 3, std=[0.25] * 3)


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).movedim(2, 0)


def test_originals_keep_their_bytes_and_the_stored_images_are_as_without_them(source, kept):
    stored, labels = rows(kept, "originals")
    assert stored == [encoded(image) for image in PICTURES] and labels == [0] * 4 + [1] * 4
    assert kept.metadata["originals"] == kept.file("originals.parquet").stat().st_size
    plain = run(f"folder:{source}", size=16, mean=[0.5] * 3, std=[0.25] * 3)
    assert "originals" not in plain.metadata and "originals.parquet" not in plain.meta["files"]
    for split in ("train", "test"):
        assert rows(kept, split) == rows(plain, split)
    assert {key: kept.metadata[key] for key in plain.metadata} == plain.metadata


def test_images_of_one_size_are_their_own_originals(tmp_path):
    made = run(f"folder:{folders(tmp_path / 'set')}", originals="keep")
    assert "originals" not in made.metadata
    images, indices = load_images(made, "train"), torch.tensor([4, 0, 4])
    assert not images.keeps_originals
    assert torch.equal(torch.stack(list(images.originals(indices))), images.pixels(indices))


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_originals_are_read_in_the_order_asked_for(kept, limit):
    images = load_images(kept, "train", limit)
    assert images.keeps_originals and not load_images(kept, "test").keeps_originals
    found = list(images.originals(torch.tensor([7, 2, 2, 0])))
    for image, number in zip(found, (7, 2, 2, 0), strict=True):
        assert image.dtype == torch.uint8 and torch.equal(image, pixels_of(PICTURES[number]))
    with pytest.raises(IndexError, match="image 8 to 8 asked for, it has 8"):
        list(images.originals(torch.tensor([8])))


def test_originals_are_treated_and_have_the_set_s_channels(tmp_path):
    root = folders(tmp_path / "set", count=1, width=6, height=4)
    tags, turned, cmyk = Image.Exif(), io.BytesIO(), io.BytesIO()
    tags[0x0112] = 6  # a quarter turn
    picture(1, 6, 4).save(turned, "PNG", exif=tags)
    picture(2, 6, 4).convert("CMYK").save(cmyk, "JPEG", exif=tags)
    write(root / "train/cat/1.png", turned.getvalue())
    write(root / "train/cat/2.jpg", cmyk.getvalue())
    write(root / "train/cat/3.png", picture(3, 6, 4, mode="L"))
    write(root / "train/cat/4.png", picture(4, 6, 4, mode="RGBA"))
    recipe = {"orientation": "obey", "transparency": "drop", "channels": 3}
    images = load_images(run(f"folder:{root}", size=8, originals="keep", **recipe), "train")
    found = list(images.originals(torch.arange(5)))
    assert [tuple(image.shape) for image in found] == [
        (3, 4, 6),
        *[(3, 6, 4)] * 2,
        *[(3, 4, 6)] * 2,
    ]
    assert torch.equal(found[1], pixels_of(picture(1, 6, 4)).rot90(-1, (1, 2)))
    assert torch.equal(found[3], pixels_of(picture(3, 6, 4, mode="L")))
    assert torch.equal(found[4], pixels_of(picture(4, 6, 4, mode="RGBA")))


def test_originals_that_are_gone_or_broken_are_named(kept):
    kept.meta["files"].pop("originals.parquet")
    with pytest.raises(ArtefactError, match=r"originals\.parquet"):
        load_images(kept, "train")


def cut(images: list[Image.Image], boxes: list, side: list[int]) -> Tensor:
    """The boxes (start, size) of images, cut and resized by torchvision."""
    return torch.stack(
        [
            tv.resized_crop(
                pixels_of(image).float() / 255,
                *[int(v) for v in (*start, *size)],
                size=side,
                antialias=True,
            )
            for image, (start, size) in zip(images, boxes, strict=True)
        ]
    )


def boxes_of(images: list[Image.Image], count: int, stream: torch.Generator, *settings) -> list:
    found = []
    for image in images:
        start, size = draw_boxes(count, image.size[::-1], stream, *settings)
        found += list(zip(start.T, size.T, strict=True))
    return found


def test_crops_are_torchvisions_of_the_originals(kept):
    chosen, streams = [6, 1, 7], [torch.Generator().manual_seed(3) for _ in range(2)]
    found = random_crops(
        load_images(kept, "train"), torch.tensor(chosen), 2, streams[0], CPU, smallest=0.3
    )
    images = [PICTURES[i] for i in chosen]
    expected = cut(
        [i for i in images for _ in (0, 1)], boxes_of(images, 2, streams[1], 0.3), [16, 16]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def first_pixel_teacher(train: ImageSet) -> Teacher:
    """Sure of class 1 where the middle of an image is bright, of class 0 where it is dark."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x[:, :, 4:-4, 4:-4].mean((1, 2, 3))
            return torch.stack([-bright, bright], 1)

    return Teacher("net", Net(), train.mean, train.std, train.classes, train.class_order, 90.0)


def test_rded_cuts_the_originals(kept, tmp_path):
    train = load_images(kept, "train")
    recipe = {"name": "rded", "teachers": ["net"], "factor": 2, "pool": 9, "crops": 3}
    job = job_in(tmp_path / "job")
    images = distil(recipe, train, 1, job, [first_pixel_teacher(train)])["images"]
    for label in (0, 1):
        stream = job.generator(f"class/{label}")
        members = 4 * label + torch.randperm(4, generator=stream)
        own = [PICTURES[i] for i in members]
        boxes = boxes_of(own, 3, stream, 0.08, (1, 1))
        crops = cut([i for i in own for _ in range(3)], boxes, [8, 8])
        brightness = ((crops - 0.5) / 0.25).mean((1, 2, 3)).view(4, 3) * (1 if label else -1)
        best = crops.view(4, 3, 3, 8, 8)[torch.arange(4), brightness.argmax(1)]
        ranked = best[brightness.max(1).values.argsort(descending=True)]
        rows = [torch.cat([ranked[i], ranked[i + 1]], 2) for i in (0, 2)]
        expected = torch.cat(rows, 1) * 255
        assert (images[label].float() - expected).abs().max() < 0.51


def g_vbsm_reads(
    train: ImageSet, folder: Path, *names: str
) -> tuple[Tensor, Tensor, torch.Generator]:
    """A batch of references and its indices, and the stream as it was before the batch."""
    recipe, job = g_vbsm.Recipe(("a",), reference_augment=names, reference_batch=5), job_in(folder)
    batches, read, stream = g_vbsm.real_batches(0, train, recipe, job)
    before = torch.Generator()
    before.set_state(stream.get_state())
    return read(batches[0]), batches[0], before


def test_g_vbsms_references_are_cut_out_of_the_originals_then_mirrored(kept, tmp_path):
    train = load_images(kept, "train")
    found, indices, stream = g_vbsm_reads(train, tmp_path / "a", "resized-crop:0.2", "flip")
    images = [PICTURES[i] for i in indices]
    crops = (cut(images, boxes_of(images, 1, stream, 0.2), [16, 16]) - 0.5) / 0.25
    same = [(found - other).abs().amax((1, 2, 3)) < 1e-4 for other in (crops, crops.flip(3))]
    assert (same[0] | same[1]).all() and same[0].any() and same[1].any()


@pytest.mark.parametrize("names", [(), ("roll:0",)])
def test_g_vbsms_other_references_are_the_stored_images(kept, names, tmp_path):
    train = load_images(kept, "train")
    found, indices, _ = g_vbsm_reads(train, tmp_path / "a", *names)
    torch.testing.assert_close(found, (train.pixels(indices).float() / 255 - 0.5) / 0.25)


def test_crops_of_originals_hold_more_detail(tmp_path):
    """Fine stripes: what is shrunk to a third first has few of them left in a crop."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    root = folders(tmp_path / "set", count=1, width=96, height=96)
    write(root / "train/cat/0.png", Image.fromarray(stripes))
    energies = []
    for fields in ({}, {"originals": "keep"}):
        train = load_images(run(f"folder:{root}", size=32, **fields), "train")
        stream, first = torch.Generator().manual_seed(0), torch.tensor([0])
        crops = random_crops(train, first, 20, stream, CPU, smallest=0.1, ratios=(1, 1))
        energies.append(crops.diff(dim=3).square().mean().item())
    assert energies[1] > 3 * energies[0]


def test_imagenet_keeps_its_originals_at_paper_scale():
    plan = at("paper")
    recipes = {name: plan.settings.dataset(name).originals for name in plan.settings.scale.datasets}
    assert recipes.pop("imagenet-1k") == recipes.pop("imagenet-1k-64") == "keep"
    assert set(recipes.values()) == {None}
    with pytest.raises(PlanError, match="originals"):
        at("paper", datasets={"imagenet-1k": {"originals": "drop"}}).cells("infer/table2")
