"""The data stage: what comes out is what went in, whatever the source."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.transforms import v2

from distillery.components.fields import read
from distillery.data.images import load_images
from distillery.data.parallel import ordered_map
from distillery.data.source import open_source
from distillery.errors import ArtefactError, ClassOrderError
from distillery.stages.data import DataRecipe, FitRecipe
from distillery.store.canonical import class_order_hash
from helpers.sources import arrays, encoded, folders, parquet, parquets, picture, rows, run, write


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_digits_are_scikit_learns_split_by_class():
    made = run("sklearn:digits")
    everything = load_digits()
    (train, test), counts = (arrays(made, s) for s in ("train", "test")), made.metadata["counts"]
    assert counts == {"train": 1437, "test": 360} and made.metadata["shape"] == [1, 8, 8]
    original = [
        np.floor(image * 255 / 16 + 0.5).astype(np.uint8).tobytes() for image in everything.images
    ]
    assert sorted(image.tobytes() for image in np.concatenate([train, test])) == sorted(original)
    in_order = iter(original)
    assert all(image.tobytes() in in_order for image in train)
    fifth = np.bincount(everything.target) / 1797 * 360
    assert np.abs(np.bincount(rows(made, "test")[1]) - fifth).max() <= 1
    assert made.metadata["per_class_train"] == np.bincount(rows(made, "train")[1]).tolist()


def test_same_source_same_bytes():
    first, second = run("sklearn:digits", size=6), run("sklearn:digits", size=6)
    for name in ("train.parquet", "test.parquet", "classes.json"):
        assert first.file(name).read_bytes() == second.file(name).read_bytes()
    assert first.metadata == second.metadata


def test_images_of_the_right_form_keep_their_bytes(tmp_path):
    root = folders(tmp_path / "set")
    write(root / "train/cat/9.jpg", encoded(picture(9), "JPEG"))
    files = [
        root / "train" / name
        for name in (
            "cat/0.png",
            "cat/1.png",
            "cat/2.png",
            "cat/9.jpg",
            "dog/0.png",
            "dog/1.png",
            "dog/2.png",
        )
    ]
    made = run(f"folder:{root}")
    assert rows(made, "train") == ([file.read_bytes() for file in files], [0, 0, 0, 0, 1, 1, 1])
    assert rows(run(f"folder:{root}", size=8, channels=3), "train") == rows(made, "train")
    assert (tmp_path / "set").name in made.metadata["source"] and str(
        tmp_path
    ) not in made.metadata["source"]


def test_facts_agree_with_numpy(tmp_path):
    made = run(f"folder:{folders(tmp_path / 'set', ('b', 'a', 'c'), 5)}")
    metadata, pixels = made.metadata, arrays(made, "train") / 255
    assert metadata["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=5.1e-7)
    assert metadata["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=5.1e-7)
    assert (
        metadata["classes"] == ["a", "b", "c"] == json.loads(made.file("classes.json").read_text())
    )
    assert metadata["class_order"] == class_order_hash(["a", "b", "c"])
    assert (
        metadata["shape"] == [3, 8, 8]
        and metadata["raw_bytes"] == pixels.size
        and metadata["per_class_train"] == [5, 5, 5]
    )
    assert metadata["bytes"] == {
        s: made.file(f"{s}.parquet").stat().st_size for s in ("train", "test")
    }


def test_stated_normalisation_is_kept(tmp_path):
    made = run(f"folder:{folders(tmp_path / 'set')}", mean=[0.5, 0.5, 0.5], std=[0.1, 0.2, 0.3])
    assert made.metadata["mean"] == [0.5, 0.5, 0.5] and made.metadata["std"] == [0.1, 0.2, 0.3]


# 13 pixels are cut from round(14.86), 14 from exactly 16; 25x16 has its centre at half a pixel.
@pytest.mark.parametrize(
    ("width", "height", "size"), [(40, 21, 14), (21, 40, 13), (9, 13, 14), (25, 16, 14)]
)
def test_fits_are_torchvisions(tmp_path, width, height, size):
    root = folders(tmp_path / "set", width=width, height=height, count=1)
    made = run(f"folder:{root}", size=size, fit={"train": "stretch", "test": "crop"})
    crop, stretch = (
        v2.Compose([v2.Resize(15 if size == 13 else 16), v2.CenterCrop(size)]),
        v2.Resize((size, size)),
    )
    assert (arrays(made, "train")[1] == np.asarray(stretch(picture(100, width, height)))).all()
    assert (arrays(made, "test")[1] == np.asarray(crop(picture(1100, width, height)))).all()


def test_grey_stays_grey(tmp_path):
    made = run(f"folder:{folders(tmp_path / 'set', mode='L')}")
    assert made.metadata["shape"] == [1, 8, 8] and len(made.metadata["mean"]) == 1
    assert (
        load_images(made, "test").pixels(torch.tensor([1]))[0, 0].numpy()
        == np.asarray(picture(1001, mode="L"))
    ).all()


def test_grey_and_transparent_images_of_a_colour_set_become_rgb(tmp_path):
    root = folders(tmp_path / "set")
    write(root / "train/cat/8.png", grey := picture(8, mode="L"))
    write(root / "train/cat/9.png", transparent := picture(9, mode="RGBA"))
    pixels = arrays(run(f"folder:{root}"), "train")
    assert (pixels[3] == np.asarray(grey)[..., None]).all() and (
        pixels[4] == np.asarray(transparent)[..., :3]
    ).all()


def test_colour_becomes_luma_when_one_channel_is_stated(tmp_path):
    made = run(f"folder:{folders(tmp_path / 'set')}", channels=1)
    luma = np.asarray(picture(0)) @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert np.abs(arrays(made, "train")[0] - luma).max() <= 1


def test_hugging_face_layout_equals_ours(tmp_path):
    plain, theirs = parquets(tmp_path / "plain"), tmp_path / "theirs"
    (plain / "classes.json").write_text('["cat", "dog"]')
    features = {
        "info": {
            "features": {
                "image": {"_type": "Image"},
                "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
            }
        }
    }
    for shard, (seeds, labels) in enumerate([((0, 1, 2), [0, 0, 1]), ((3,), [1])]):
        file = theirs / f"train-{shard:05}-of-00002.parquet"
        images = [encoded(picture(s)) for s in seeds]
        parquet(file, images, labels, struct=True, metadata={"huggingface": json.dumps(features)})
    parquet(
        theirs / "validation.parquet",
        [encoded(picture(100 + i)) for i in (0, 1)],
        [0, 1],
        struct=True,
    )
    ours, made = run(f"parquet:{plain}"), run(f"parquet:{theirs}")
    for name in ("train.parquet", "test.parquet", "classes.json"):
        assert made.file(name).read_bytes() == ours.file(name).read_bytes()


def test_classes_without_names_are_numbers(tmp_path):
    made = run(f"parquet:{parquets(tmp_path, (2, 1, 0), (0, 1, 2))}")
    assert made.metadata["classes"] == ["0", "1", "2"]


def test_folder_ignores_what_is_no_image_and_looks_deeper(tmp_path):
    root = folders(tmp_path / "set", count=1)
    write(root / "train/cat/deeper/a.PNG", picture(7))
    for name in (
        "train/cat/notes.txt",
        "train/cat/.hidden.png",
        "train/.cache/x.png",
        "train/stray.txt",
    ):
        write(root / name, b"not an image")
    made = run(f"folder:{root}")
    assert made.metadata["classes"] == ["cat", "dog"] and made.metadata["per_class_train"] == [2, 1]


def test_tiny_imagenet_as_distributed(tmp_path):
    for c, name in enumerate(("n02", "n01")):
        write(tmp_path / f"train/{name}/images/{name}_0.JPEG", encoded(picture(c), "JPEG"))
        write(tmp_path / f"train/{name}/{name}_boxes.txt", b"n02_0.JPEG\t0\t0\t8\t8\n")
        write(tmp_path / f"val/images/val_{c}.JPEG", encoded(picture(10 + c), "JPEG"))
    write(tmp_path / "test/images/test_0.JPEG", encoded(picture(20), "JPEG"))
    write(
        tmp_path / "val/val_annotations.txt",
        b"val_0.JPEG\tn02\t0\t0\t8\t8\nval_1.JPEG\tn01\t0\t0\t8\t8\n",
    )
    made = run(f"folder:{tmp_path}")
    assert made.metadata["classes"] == ["n01", "n02"]
    assert rows(made, "train") == (
        [encoded(picture(1), "JPEG"), encoded(picture(0), "JPEG")],
        [0, 1],
    )
    assert rows(made, "test") == (
        [encoded(picture(10), "JPEG"), encoded(picture(11), "JPEG")],
        [1, 0],
    )


def test_torchvision_data_set_by_name(tmp_path, monkeypatch):
    """MNIST's own file format, written by hand: big-endian magic number, sizes, then bytes."""
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    for stem in ("train", "t10k"):
        write(
            tmp_path / f"MNIST/raw/{stem}-images-idx3-ubyte",
            struct.pack(">4I", 2051, 10, 28, 28) + images.tobytes(),
        )
        write(
            tmp_path / f"MNIST/raw/{stem}-labels-idx1-ubyte",
            struct.pack(">2I", 2049, 10) + bytes(range(10)),
        )
    made = run("torchvision:MNIST")
    assert (arrays(made, "train") == images).all() and rows(made, "test")[1] == list(range(10))
    assert made.metadata["shape"] == [1, 28, 28] and made.metadata["classes"][3] == "3 - three"


class _Toy:
    """A torchvision data set with `split`, without a `test` split and class names, as some are."""

    def __init__(self, root, split="train", download=False):
        if split not in ("train", "val"):
            raise ValueError(f"no split {split}")
        self.labels = np.array([2, 0, 1]) if split == "train" else np.array([1, 0, 2])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return picture(row), self.labels[row]


def test_torchvision_data_set_with_named_splits(monkeypatch):
    monkeypatch.setattr(datasets, "Toy", _Toy, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Toy"))
    made = run("torchvision:Toy")
    assert (
        made.metadata["classes"] == ["0", "1", "2"]
        and rows(made, "train")[1] == [2, 0, 1]
        and rows(made, "test")[1] == [1, 0, 2]
    )
    assert (arrays(made, "train")[2] == np.asarray(picture(2))).all()


class _ToyWithBoth(_Toy):
    """A torchvision data set that has a test split beside the one for validation."""

    def __init__(self, root, split="train", download=False):
        super().__init__(root, "val" if split == "test" else split)
        self.labels = np.array([0, 1, 2]) if split == "test" else self.labels


def test_torchvision_test_split_comes_before_the_one_for_validation(monkeypatch):
    monkeypatch.setattr(datasets, "Toy", _ToyWithBoth, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Toy"))
    assert rows(run("torchvision:Toy"), "test")[1] == [0, 1, 2]


def test_threads_change_no_byte(tmp_path):
    root = folders(tmp_path / "set", width=70, height=65, count=20)
    alone = run(f"folder:{root}", size=66)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = run(f"folder:{root}", size=66)
        assert (
            together.file("train.parquet").read_bytes() == alone.file("train.parquet").read_bytes()
        )
        assert together.metadata == alone.metadata
        assert torch.equal(
            *(load_images(a, "train").pixels(torch.arange(40)) for a in (alone, together))
        )
    finally:
        torch.set_num_threads(threads)


def test_few_images_are_under_way_at_once():
    taken: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        doubled = ordered_map(lambda i: 2 * i, (taken.append(i) or i for i in range(1000)), 1 << 20)
        assert [next(doubled) for _ in range(5)] == [0, 2, 4, 6, 8] and len(taken) <= 5 + 8
        assert list(doubled) == list(range(10, 2000, 2))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("pixels", "threads"), [(32 * 32, 1), (224 * 224, 2)])
def test_large_images_are_read_on_threads_and_small_ones_are_not(pixels, threads):
    """Two at a time are under way only where there are two threads."""
    before, together = torch.get_num_threads(), threading.Barrier(2)

    def meet(_: int) -> int:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.2)
        return threading.get_ident()

    torch.set_num_threads(2)
    try:
        found = set(ordered_map(meet, range(4), pixels))
    finally:
        torch.set_num_threads(before)
    assert len(found) == threads and (threading.get_ident() in found) == (threads == 1)


@pytest.fixture
def grouped(tmp_path, monkeypatch):
    """A set of three row groups: 3, 3 and 2 images."""
    monkeypatch.setattr("distillery.data.write.GROUP_ROWS", 3)
    return run(f"folder:{folders(tmp_path / 'set', count=4)}")


def test_lazy_and_resident_pixels_are_those_that_went_in(grouped):
    file = pq.ParquetFile(grouped.file("train.parquet"))
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [3, 3, 2]
    resident, lazy = load_images(grouped, "train"), load_images(grouped, "train", limit=0)
    assert resident.resident and not lazy.resident and len(lazy) == 8
    indices = torch.tensor([7, 0, 3, 3, 5, 0])
    truth = np.stack([np.asarray(picture([0, 1, 2, 3, 100, 101, 102, 103][i])) for i in indices])
    for images in (resident, lazy):
        pixels = images.pixels(indices)
        assert pixels.dtype == torch.uint8 and (pixels.numpy() == truth.transpose(0, 3, 1, 2)).all()
        assert images.pixels(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 8, 8)
        pixels.zero_()
        assert (images.pixels(indices).numpy() == truth.transpose(0, 3, 1, 2)).all()


def test_a_row_group_is_read_once_however_its_rows_are_asked_for(grouped, monkeypatch):
    monkeypatch.setattr("distillery.data.images.CACHED_GROUPS", 1)
    lazy, read = load_images(grouped, "train", limit=0), []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, group, columns: read.append(group) or original(file, group, columns),
    )
    lazy.pixels(torch.tensor([7, 0, 3, 6, 1, 4, 2]))
    assert read == [0, 1, 2]


def test_image_set_knows_its_classes(grouped):
    images = load_images(grouped, "train")
    assert images.labels.dtype == torch.int64 and images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (
        images.of_class(1).tolist() == [4, 5, 6, 7]
        and images.classes == ("cat", "dog")
        and images.shape == (3, 8, 8)
    )
    assert (
        list(images.mean) == grouped.metadata["mean"]
        and list(images.std) == grouped.metadata["std"]
    )
    assert images.class_order == grouped.metadata["class_order"]


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize("index", [-1, 8])
def test_an_index_outside_is_an_error(grouped, limit, index):
    with pytest.raises(IndexError, match="it has 8"):
        load_images(grouped, "train", limit).pixels(torch.tensor([0, index]))


def test_damaged_artefacts_are_errors(grouped):
    with pytest.raises(ArtefactError, match=r"has no file 'val\.parquet'"):
        load_images(grouped, "val")
    file = grouped.file("test.parquet")
    file.write_bytes(file.read_bytes().replace(b"IDAT", b"idat"))
    with pytest.raises(ArtefactError, match="row 0: unreadable image"):
        load_images(grouped, "test").pixels(torch.tensor([0]))
    grouped.metadata["classes"].reverse()
    with pytest.raises(ClassOrderError, match="not that of its class names"):
        load_images(grouped, "train")


def test_recipe_reads_what_the_planner_writes():
    values = {
        "source": "sklearn:digits",
        "digest": "d",
        "fit": {"train": "crop", "test": "stretch"},
        "mean": [0.5],
    }
    assert read(DataRecipe, values) == DataRecipe(
        "sklearn:digits", "d", fit=FitRecipe("crop", "stretch"), mean=(0.5,)
    )


def test_a_source_imports_only_its_own_libraries(tmp_path):
    folders(tmp_path / "set")
    program = (
        "import sys; from distillery.data.source import open_source;"
        "import distillery.data.digest;"
        "heavy = {'torch', 'numpy', 'PIL', 'pyarrow', 'sklearn', 'torchvision', 'yaml'};"
        "heavy |= {'pydantic'};"
        f"open_source('folder:{tmp_path / 'set'}'); print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("kind", ["folder", "parquet", "shards", "sklearn", "torchvision"])
def test_a_source_starts_at_any_row(kind, tmp_path, monkeypatch):
    place = tmp_path / "source"
    if kind == "folder":
        folders(place, count=4)
    elif kind == "parquet":
        parquets(place, (0, 1, 1, 0, 1, 0, 0), rows=3)
    elif kind == "shards":
        for s in range(3):
            images = [encoded(picture(10 * s + i)) for i in range(4)]
            parquet(place / f"train-{s}.parquet", images, [0, 1, 0, 1], rows=2)
        parquet(place / "test.parquet", images, [0, 1, 0, 1])
    elif kind == "torchvision":
        monkeypatch.setattr(datasets, "FakeDigits", FakeDigits, raising=False)
        monkeypatch.setattr(datasets, "__all__", [*datasets.__all__, "FakeDigits"])
    names = {"sklearn": "sklearn:digits", "torchvision": "torchvision:FakeDigits"}
    source = open_source(names.get(kind, f"{kind.replace('shards', 'parquet')}:{place}"))
    for split in (source.train, source.test):
        whole = [(str(item.image), item.label, item.origin) for item in split.items()]
        for row in (*range(min(split.count, 13)), split.count):
            found = [(str(item.image), item.label, item.origin) for item in split.starting(row)]
            if kind in ("sklearn", "torchvision"):  # Pillow's images are new ones
                assert [item[1:] for item in found] == [item[1:] for item in whole[row:]]
            else:
                assert found == whole[row:], row


class FakeDigits:
    """A data set of torchvision's kind."""

    classes = ("a", "b")

    def __init__(self, root: str, train: bool = True, download: bool = False):
        self.count = 5 if train else 3

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple:
        return picture(row), row % 2
