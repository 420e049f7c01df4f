"""What a data source is, and how one is opened: `kind:place` is read by `source_<kind>.py`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from distillery.components import registry
from distillery.errors import DataError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image


class Item(NamedTuple):
    """One image of a source.

    Attributes:
        image: an encoded file, or a Pillow image.
        label: index of its class; unchecked.
        origin: where it came from, for error messages.
    """

    image: bytes | Image
    label: int
    origin: str


@dataclass(frozen=True)
class Split:
    """The training or the test images of a source.

    Attributes:
        count: how many there are.
        items: starts reading them from the first, one at a time and always in the same order.
        labels: of all items, where they are known before any is read; unchecked.
        items_from: as `items`, from a row on; None: those before are read and left out.
    """

    count: int
    items: Callable[[], Iterator[Item]]
    labels: Sequence[int] | None = None
    items_from: Callable[[int], Iterator[Item]] | None = None

    def starting(self, row: int) -> Iterator[Item]:
        """The items from a row on."""
        if self.items_from is not None:
            return self.items_from(row)
        return itertools.islice(self.items(), row, None)


@dataclass(frozen=True)
class Source:
    """A data set as a source gives it; the data stage checks the labels of all sources alike.

    Attributes:
        classes: names in label order.
        train: the training images.
        test: the test images.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split


def parse(source: str) -> tuple[str, str]:
    """Kind and place of `kind:place`.

    Raises:
        DataError: the kind is unknown, or there is no place.
    """
    kind, _, place = source.partition(":")
    kinds = registry.index("source")
    if kind not in kinds:
        raise DataError(f"source '{source}': no such kind as '{kind}': {nearest(kind, kinds)}")
    if not place:
        raise DataError(
            f"source '{source}': says no more than its kind; write '{kind}:' and the name or folder"
        )
    return kind, place


def open_source(source: str) -> Source:
    """The source that `kind:place` names; imports the module of that kind alone.

    Raises:
        DataError: the source is missing, empty or inconsistent.
    """
    kind, place = parse(source)
    return registry.load("source", kind).read(place)
