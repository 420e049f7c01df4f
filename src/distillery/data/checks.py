"""What a data set must be: each check raises a DataError that is one line."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from distillery.data.source import Item, Source, Split
from distillery.errors import DataError


def check_names(source: str, classes: Sequence[str]) -> None:
    """Refuse fewer than two classes, and names that are empty, equal, or cannot be printed."""
    if len(classes) < 2:
        raise DataError(f"{source}: has {len(classes)} class; a data set needs two or more")
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"{source}: {times} classes are named '{name}'; give each class a name of its own"
        )
    for place, name in enumerate(classes):
        if not name.strip():
            raise DataError(f"{source}: class {place} is named '{name}'; give it a name")
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise DataError(
                f"{source}: class {name!r}: its name holds a control character; rename it"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{source}: class '{printable(name)}': its name is not UTF-8; rename it"
            ) from None


def printable(name: str) -> str:
    """A file name in one line: bytes that are not UTF-8 as backslash escapes."""
    return " ".join(os.fsencode(name).decode("utf-8", "backslashreplace").split())


def check_labels(source: str, opened: Source) -> None:
    """Refuse wrong labels and empty classes before any image is decoded.

    Nothing is said of a split whose labels the source does not know beforehand.
    """
    classes = opened.classes
    for name in ("train", "test"):
        split: Split = getattr(opened, name)
        if split.labels is None:
            continue
        labels = np.asarray(split.labels, np.int64)
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(wrong):
            check_label(next(split.starting(int(wrong[0]))), classes)
        per_class = np.bincount(labels, minlength=len(classes))
        check_no_class_empty(source, name, classes, per_class)


def check_no_class_empty(
    source: str, split: str, classes: Sequence[str], per_class: np.ndarray
) -> None:
    """Refuse a class that has no images in a split."""
    if not per_class.all():
        kind = {"train": "training"}.get(split, split)
        absent = np.flatnonzero(per_class == 0)
        others = f" (and {len(absent) - 1} other classes)" if len(absent) > 1 else ""
        raise DataError(
            f"{source}: class '{classes[absent[0]]}'{others} has no {kind} images; "
            f"add some or remove the class"
        )


def checked(items: Iterator[Item], classes: Sequence[str]) -> Iterator[Item]:
    """The items, refused at the first whose label is no class."""
    for item in items:
        check_label(item, classes)
        yield item


def check_label(item: Item, classes: Sequence[str]) -> None:
    """Refuse an image whose label is no class."""
    if not 0 <= item.label < len(classes):
        raise DataError(
            f"{item.origin}: label {item.label} is not one of 0 to {len(classes) - 1}; "
            f"correct it or list its class"
        )
