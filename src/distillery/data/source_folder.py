"""`folder:DIR`: image files in one folder per class, below `train` and `test` or `val`.

Tiny-ImageNet can be read as it is distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from distillery.data.digest import check_folder
from distillery.data.source import Item, Source, Split
from distillery.errors import DataError

NAMES = ("folder",)
TRAITS = {"on_disk": True}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TESTS = ("test", "val", "validation", "valid")
ANNOTATIONS = "val_annotations.txt"

# Path and label of each image.
LabelledFiles = list[tuple[str, int]]


def read(place: str) -> Source:
    """The data set in folder `place`.

    A class is a folder directly below `train`, sorted by name; its images may lie deeper. The test
    split is `test`, `val`, `validation` or `valid` with the same class folders, or Tiny-ImageNet's
    `val` with `val_annotations.txt`, which comes first, since that set's `test` has no labels.
    Images are known by their suffix, hidden files do not count. Rows are ordered by class, then
    path; those of Tiny-ImageNet's val as annotated.

    Raises:
        DataError: the folder, which the message names, is missing; a split is missing or empty; or
            a test class is not in train.
    """
    root = Path(place)
    check_folder(root, "the images")
    train, test = _existing(root, ("train",)), _test_folder(root)
    classes = _subfolders(train)
    annotations = test / ANNOTATIONS
    tests = _annotated(annotations, classes) if annotations.is_file() else _labelled(test, classes)
    return Source(tuple(classes), _split(train, _labelled(train, classes)), _split(test, tests))


def _test_folder(root: Path) -> Path:
    annotated = root / "val" / ANNOTATIONS
    return annotated.parent if annotated.is_file() else _existing(root, TESTS)


def _existing(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted, found = " or ".join(map(repr, names)), ", ".join(_subfolders(root)[:5])
    raise DataError(
        f"{root}: has no folder {wanted}{f' (it has {found})' if found else ''}; "
        f"add one with a folder per class"
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _labelled(folder: Path, classes: list[str]) -> LabelledFiles:
    unknown = sorted(set(_subfolders(folder)) - set(classes))
    if unknown:
        raise DataError(
            f"{folder / unknown[0]}: class '{unknown[0]}' is not among those of train; "
            f"rename or remove the folder"
        )
    return [(file, label) for label, name in enumerate(classes) for file in _images(folder / name)]


def _images(folder: Path) -> list[str]:
    images = []
    for base, _, names in os.walk(folder):
        images += [
            os.path.join(base, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(images)


def _annotated(annotations: Path, classes: list[str]) -> LabelledFiles:
    """The files that Tiny-ImageNet's val_annotations.txt names.

    Each line is a file, a WordNet id and a bounding box, separated by tabs.
    """
    labels = {name: label for label, name in enumerate(classes)}
    files: dict[str, int] = {}
    for number, line in enumerate(_lines(annotations), 1):
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0].strip()
        where = f"{annotations} line {number}"
        if name not in labels:
            raise DataError(
                f"{where}: class '{name}' is not among those of train; correct or remove the line"
            )
        if not file or file != Path(file).name:
            raise DataError(f"{where}: '{file}' is no file name; write the name of an image alone")
        if file in files:
            raise DataError(f"{where}: '{file}' has a line already; keep one of them")
        files[file] = labels[name]
    return [(str(annotations.parent / "images" / file), label) for file, label in files.items()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 ({error}); store it again as UTF-8") from None


def _split(folder: Path, files: LabelledFiles) -> Split:
    if not files:
        raise DataError(
            f"{folder}: holds no images ({', '.join(SUFFIXES)}) in class folders; add some"
        )

    def items(first: int = 0) -> Iterator[Item]:
        for file, label in files[first:]:
            try:
                yield Item(Path(file).read_bytes(), label, file)
            except OSError as error:
                raise DataError(
                    f"{file}: unreadable ({error.strerror}); restore the file or remove its mention"
                ) from None

    return Split(len(files), items, [label for _, label in files], items)
