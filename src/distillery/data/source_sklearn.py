"""`sklearn:digits`: the 1,797 real 8x8 grey digits that scikit-learn ships.

They need no network and no files.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from distillery.data.source import Item, Source, Split
from distillery.errors import DataError, nearest

NAMES = ("sklearn",)
TRAITS = {"places": ("digits",)}
BRIGHTEST = 16  # of the digits' grey scale


def read(place: str) -> Source:
    """The digits in a fixed split: 1,437 to train, 360 to test, stratified.

    The split is that of scikit-learn's `train_test_split` with random_state 0. Grey values
    v = 0..16 become round(255 v / 16). Rows keep scikit-learn's order.

    Raises:
        DataError: `place` is not "digits".
    """
    if place != "digits":
        raise DataError(
            f"source 'sklearn:{place}': scikit-learn ships no such image set: "
            f"{nearest(place, ['digits'])}"
        )
    digits = load_digits()
    pixels = np.round(digits.images * (255 / BRIGHTEST)).astype(np.uint8)
    labels = digits.target
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )

    def split(rows: np.ndarray) -> Split:
        def items() -> Iterator[Item]:
            for row in np.sort(rows):
                yield Item(
                    Image.fromarray(pixels[row]), int(labels[row]), f"sklearn:digits image {row}"
                )

        return Split(len(rows), items)

    return Source(tuple(map(str, digits.target_names)), split(train), split(test))
