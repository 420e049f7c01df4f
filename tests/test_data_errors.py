"""Every bad data source is one line that names the file, class or row and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision import datasets

from distillery.data.digest import folder_digest
from distillery.errors import DataError
from helpers.sources import encoded, folders, parquet, parquets, picture, run, write


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def _mixed_sizes(root: Path) -> str:
    write(folders(root) / "train/dog/5.png", picture(5, 9, 8))
    return f"folder:{root}"


def _mixed_colours(root: Path) -> str:
    write(folders(root, mode="L") / "train/dog/5.png", picture(5))
    return f"folder:{root}"


def _truncated(root: Path) -> str:
    write(folders(root) / "train/dog/5.jpg", encoded(picture(5, 64, 64), "JPEG")[:-200])
    return f"folder:{root}"


def _not_an_image(root: Path) -> str:
    write(folders(root) / "test/dog/5.jpg", b"<html>404</html>")
    return f"folder:{root}"


def _sixteen_bits(root: Path) -> str:
    write(folders(root) / "train/dog/5.png", Image.fromarray(np.full((8, 8), 40000, np.uint16)))
    return f"folder:{root}"


def _floats(root: Path) -> str:
    image = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    write(folders(root) / "train/dog/5.tif", encoded(image, "TIFF"))
    return f"folder:{root}"


def _empty_split(root: Path) -> str:
    folders(root)
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    return f"folder:{root}"


def _strange_test_class(root: Path) -> str:
    write(folders(root) / "test/cow/0.png", picture(5))
    return f"folder:{root}"


def _class_without_images(root: Path) -> str:
    (folders(root) / "train/emu").mkdir()
    return f"folder:{root}"


def _strange_annotation(root: Path) -> str:
    write(folders(root) / "val/val_annotations.txt", b"a.JPEG\tcat\t0\t0\nb.JPEG\tcow\t0\t0\n")
    return f"folder:{root}"


def _annotated_but_missing(root: Path) -> str:
    write(folders(root) / "val/val_annotations.txt", b"a.JPEG\tcat\t0\t0\n")
    return f"folder:{root}"


def _empty(root: Path, kind: str) -> str:
    root.mkdir(parents=True)
    return f"{kind}:{root}"


def _unequal(root: Path, **shape) -> str:
    return f"folder:{folders(root, **shape)}"


def _named(root: Path, text: str, **labels) -> str:
    (parquets(root, **labels) / "classes.json").write_text(text)
    return f"parquet:{root}"


def _broken_row(root: Path, image: bytes | None) -> str:
    parquet(parquets(root) / "train.parquet", [encoded(picture(0)), image], [0, 1])
    return f"parquet:{root}"


def _labels(root: Path, labels: list, split: str = "train", kind: pa.DataType | None = None) -> str:
    parquet(
        parquets(root) / f"{split}.parquet",
        [encoded(picture(i)) for i in range(len(labels))],
        pa.array(labels, kind),
    )
    return f"parquet:{root}"


def _cut_off(root: Path) -> str:
    file = parquets(root) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    return f"parquet:{root}"


def _renamed_column(root: Path) -> str:
    file = parquets(root) / "train.parquet"
    pq.write_table(pq.read_table(file).rename_columns(["img", "label"]), file)
    return f"parquet:{root}"


def _paths_for_images(root: Path) -> str:
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), parquets(root) / "train.parquet")
    return f"parquet:{root}"


def _missing_shard(root: Path) -> str:
    (parquets(root) / "train.parquet").rename(root / "train-00000-of-00002.parquet")
    return f"parquet:{root}"


def _without(root: Path, name: str) -> str:
    (parquets(root) / name).unlink()
    return f"parquet:{root}"


BAD = {
    "unknown kind": (lambda r: "parkett:x", "no such kind as 'parkett': did you mean 'parquet'?"),
    "no place": (lambda r: "parquet", "source 'parquet': says no more than its kind"),
    "unknown digits": (lambda r: "sklearn:digit", "'sklearn:digit': .* did you mean 'digits'"),
    "unknown torchvision": (lambda r: "torchvision:CIFAR11", "did you mean 'CIFAR10"),
    "unsplit torchvision": (
        lambda r: "torchvision:FakeData",
        "FakeData': has no train and test split",
    ),
    "no parquet folder": (lambda r: f"parquet:{r}/no", "/no: no such folder; put"),
    "no image folder": (lambda r: f"folder:{r}/no", "/no: no such folder; put"),
    "empty parquet folder": (
        lambda r: _empty(r, "parquet"),
        "has no train split; add train.parquet",
    ),
    "empty image folder": (lambda r: _empty(r, "folder"), "has no folder 'train'; add"),
    "no test split": (
        lambda r: _without(r, "test.parquet"),
        "no test split; add test.parquet or val.parquet or",
    ),
    "empty split": (_empty_split, "/test: holds no images"),
    "no rows": (
        lambda r: _labels(r, [], "test", pa.int64()),
        "test.parquet: the test split has no rows; add",
    ),
    "truncated": (_truncated, r"train/dog/5.jpg: a broken image \(.*truncated.*\); replace"),
    "not an image": (_not_an_image, "test/dog/5.jpg: not an image of a known format; replace"),
    "sixteen bits": (_sixteen_bits, "train/dog/5.png: has more than 8 bits per channel"),
    "floats": (_floats, r"train/dog/5.tif: has more than 8 bits per channel \(mode F\)"),
    "mixed sizes": (
        _mixed_sizes,
        "train/dog/5.png: is 9x8 pixels, the images before it are 8x8; set `size`",
    ),
    "mixed colours": (
        _mixed_colours,
        "train/dog/5.png: is in colour, the images before it are grey; set `channels`",
    ),
    "not square": (
        lambda r: _unequal(r, width=9),
        "train/cat/0.png: is 9x8 pixels, not square; set `size`",
    ),
    "strange class": (_strange_test_class, "test/cow: class 'cow' is not among those of train"),
    "empty class": (_class_without_images, "class 'emu' has no training images; add"),
    "strange annotation": (
        _strange_annotation,
        "val_annotations.txt line 2: class 'cow' is not among",
    ),
    "missing annotated": (_annotated_but_missing, r"images/a.JPEG: unreadable \(No such file"),
    "one class": (lambda r: _unequal(r, classes=("cat",)), "has 1 class; a data set needs two"),
    "broken row": (
        lambda r: _broken_row(r, encoded(picture(1))[:-40]),
        "train.parquet row 1: a broken image",
    ),
    "null row": (lambda r: _broken_row(r, None), "train.parquet row 1: holds no image bytes"),
    "null label": (lambda r: _labels(r, [0, 1, None]), "train.parquet row 2: has no label"),
    "negative label": (
        lambda r: _labels(r, [0, 1, -1]),
        "train.parquet row 2: label -1 is not one of 0 to 1",
    ),
    "high test label": (
        lambda r: _labels(r, [0, 2], "test"),
        "test.parquet row 1: label 2 is not one of 0 to 1",
    ),
    "gap in labels": (lambda r: _labels(r, [0, 2]), "train.parquet: labels up to 2 with gaps"),
    "text labels": (
        lambda r: _labels(r, ["cat", "dog"]),
        "column 'label' is string, expected integers",
    ),
    "no train image": (
        lambda r: _named(r, '["a","b","c"]', train=(0, 2)),
        "class 'b' has no training images",
    ),
    "too many names": (
        lambda r: _named(r, '["a","b","c"]'),
        "classes.json: lists 3 classes, the training labels go up to 1",
    ),
    "too few names": (
        lambda r: _named(r, '["a"]'),
        "classes.json: lists 1 classes, the training labels go up to 1",
    ),
    "same name": (lambda r: _named(r, '["a","a"]'), "2 classes are named 'a'; give each"),
    "no list": (lambda r: _named(r, '{"a": 0}'), "classes.json: is not a list of class names"),
    "no json": (lambda r: _named(r, "a, b"), "classes.json: not JSON"),
    "cut off": (_cut_off, "train.parquet: not a readable parquet file"),
    "renamed": (
        _renamed_column,
        r"train.parquet: has no column 'image' \(it has img, label\); rename",
    ),
    "paths": (
        _paths_for_images,
        "train.parquet: column 'image' is string, expected encoded images",
    ),
    "missing shard": (_missing_shard, "is one of 2 shards, 1 are there; fetch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_source_is_one_line_that_names_it(tmp_path, case):
    source, message = BAD[case]
    with pytest.raises(DataError) as caught:
        run(source(tmp_path / "set"))
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"mean": [0.5]}, "mean has 1 values, the images have 3 channels"),
        ({"std": [0.5, 0.5]}, "std has 2 values, the images have 3 channels"),
        ({"digest": "absent"}, "content changed since planning"),
    ],
)
def test_bad_recipe_is_an_error(tmp_path, recipe, message):
    with pytest.raises(DataError, match=message):
        run(f"folder:{folders(tmp_path / 'set')}", **recipe)


def test_images_without_contrast_are_an_error(tmp_path):
    root = folders(tmp_path / "set")
    for file in root.rglob("*.png"):
        write(file, picture(0).point(lambda value: 7))
    with pytest.raises(DataError, match="all training pixels of a channel are equal"):
        run(f"folder:{root}")
    assert run(f"folder:{root}", std=[1.0, 1.0, 1.0]).metadata["mean"] == [round(7 / 255, 6)] * 3


def test_changed_content_is_an_error(tmp_path):
    made = folders(tmp_path / "set")
    planned = folder_digest(made)
    write(made / "train/cat/0.png", picture(77))
    with pytest.raises(DataError, match=rf"content changed since planning \(it was {planned}"):
        run(f"folder:{made}", digest=planned)


def test_failed_download_says_where_the_files_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path / "here"))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"file://{tmp_path}/nothing/"])
    with pytest.raises(
        DataError,
        match=r"'torchvision:MNIST': cannot be opened or downloaded .*; "
        r"put its files into '.*here'",
    ):
        run("torchvision:MNIST")


class _Boxes:
    """A data set whose targets are no classes."""

    classes = ("cat", "dog")

    def __init__(self, root, train=True, download=False):
        pass

    def __len__(self):
        return 1

    def __getitem__(self, row):
        return picture(row), [{"box": (0, 0, 3, 3)}]


def test_targets_that_are_no_classes_are_an_error(monkeypatch):
    monkeypatch.setattr(datasets, "Boxes", _Boxes, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Boxes"))
    with pytest.raises(
        DataError, match="torchvision:Boxes train image 0: its target is a list, not a class"
    ):
        run("torchvision:Boxes")
