"""What a data source is, and how one is found: `kind:place` is read by `source_<kind>.py`, which nothing else lists."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distillery.errors import DataError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

ON_DISK = ("parquet", "folder")  # kinds whose place is a folder with content of its own


class Item(NamedTuple):
    """One image: an encoded file or a Pillow image, its label, and where it came from, for error messages."""

    image: bytes | Image
    label: int
    origin: str


@dataclass(frozen=True)
class Split:
    """`count` images; `items()` starts reading them from the first, one at a time and always in the same order."""

    count: int
    items: Callable[[], Iterator[Item]]


@dataclass(frozen=True)
class Source:
    """Class names in label order and the two splits. Labels are unchecked: the data stage checks those of all sources alike."""

    classes: tuple[str, ...]
    train: Split
    test: Split


def kinds() -> list[str]:
    """All kinds of sources there are."""
    return sorted(
        file.stem.removeprefix("source_") for file in Path(__file__).parent.glob("source_*.py")
    )


def parse(source: str) -> tuple[str, str]:
    """Kind and place of `kind:place`. Raises DataError on an unknown kind or without a place."""
    kind, _, place = source.partition(":")
    if kind not in kinds():
        raise DataError(f"source '{source}': no such kind as '{kind}': {nearest(kind, kinds())}")
    if not place:
        raise DataError(
            f"source '{source}': says no more than its kind; write '{kind}:' and the name or folder"
        )
    return kind, place


def open_source(source: str) -> Source:
    """The source that `kind:place` names; imports the module of that kind alone.

    Raises DataError when the source is missing, empty or inconsistent.
    """
    kind, place = parse(source)
    return importlib.import_module(f"distillery.data.source_{kind}").read(place)
