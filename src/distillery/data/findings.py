"""What is found in a data set that is no error and that a user should know."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from distillery.data.columns import SPLITS
from distillery.data.convert import Canonical
from distillery.data.source import Source, Split
from distillery.store.checkpoint import same_form

# What a remark of `convert.Treatment` says of so many images.
REMARKS = {
    "orientation": "have an EXIF orientation, which is not obeyed; set `orientation` of the data "
    "set to obey or ignore",
    "transparency": "are partly transparent, and the colours stored behind are shown; set "
    "`transparency` of the data set to black, white, drop or refuse",
    "frames": "have several frames, of which the first is taken",
}


class Findings:
    """Collects remarks on images, and finds images that are in both splits.

    It keeps 12 bytes for each image.
    """

    def __init__(self, splits: Sequence[str] = SPLITS) -> None:
        """Start with nothing found in these splits."""
        self._contents = {split: array("Q") for split in splits}
        self._labels = {split: array("i") for split in splits}
        self._remarks: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, split: str, images: Sequence[Canonical]) -> None:
        """Take in the next images of a split."""
        self._contents[split].extend(image.content for image in images)
        self._labels[split].extend(image.label for image in images)
        for image in images:
            for remark in image.remarks:
                count, first = self._remarks.get((split, remark), (0, image.origin))
                self._remarks[split, remark] = count + 1, first

    def state(self, split: str) -> dict[str, Any]:
        """What is known of a split, for a checkpoint."""
        remarks = {r: found for (s, r), found in self._remarks.items() if s == split}
        return {
            "contents": torch.from_numpy(np.array(self._contents[split], np.uint64).view(np.int64)),
            "labels": torch.from_numpy(np.array(self._labels[split], np.int32)),
            "remarks": remarks,
        }

    def is_state(self, state: object, count: int) -> bool:
        """Whether something is what `state` says of a split of so many images."""
        expected = {
            "contents": torch.empty(count, dtype=torch.int64),
            "labels": torch.empty(count, dtype=torch.int32),
            "remarks": {},
        }
        return (
            isinstance(state, dict)
            and isinstance(state.get("remarks"), dict)
            and same_form(state | {"remarks": {}}, expected)
        )

    def restore(self, split: str, state: Mapping[str, Any]) -> None:
        """Take what `state` said of a split of which nothing is known yet."""
        self._contents[split].extend(state["contents"].numpy().view(np.uint64).tolist())
        self._labels[split].extend(state["labels"].tolist())
        self._remarks |= {(split, r): tuple(found) for r, found in state["remarks"].items()}

    def warnings(self, source: Source) -> list[str]:
        """A line for each finding.

        Args:
            source: what the images came from; read again up to an image that is in both splits.
        """
        lines = [
            f"{split}: {count} images {REMARKS[remark]} (first: {first})"
            for (split, remark), (count, first) in self._remarks.items()
        ]
        return lines + self._in_both(source)

    def _in_both(self, source: Source) -> list[str]:
        train, test = (np.array(self._contents[split], np.uint64) for split in SPLITS)
        known, first = np.unique(train, return_index=True)
        places = np.searchsorted(known, test).clip(max=len(known) - 1)
        rows = np.flatnonzero(known[places] == test)
        if not len(rows):
            return []
        own, theirs = (np.array(self._labels[split]) for split in ("test", "train"))
        other = int((own[rows] != theirs[first[places[rows]]]).sum())
        pair = (
            _origin(source.test, int(rows[0])),
            _origin(source.train, int(first[places[rows[0]]])),
        )
        return [
            f"test: {len(rows)} of {len(test)} images are in train too, {other} of them as another "
            f"class (first: {pair[0]} is {pair[1]}); accuracies count them as test images"
        ]


def _origin(split: Split, row: int) -> str:
    return next(split.starting(row)).origin
