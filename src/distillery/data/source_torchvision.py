"""`torchvision:NAME`: data sets that torchvision downloads (CIFAR10, CIFAR100, MNIST, SVHN...)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torchvision import datasets

from distillery.data.source import Item, Source, Split
from distillery.errors import DataError, nearest

NAMES = ("torchvision",)
# Environment variable: where downloads lie; `data` when it is not set.
FOLDER = "DISTILLERY_DATA"
Arguments = dict[str, Any]
# By an argument of the data set's constructor: how it asks for each split, in the order of trial.
SPLIT_ARGUMENTS: dict[str, dict[str, tuple[Arguments, ...]]] = {
    "train": {"train": ({"train": True},), "test": ({"train": False},)},
    "split": {"train": ({"split": "train"},), "test": ({"split": "test"}, {"split": "val"})},
}


def read(place: str) -> Source:
    """The data set `torchvision.datasets.<place>` with its own train and test (or val) split.

    It is downloaded where it is missing.

    Raises:
        DataError: torchvision has no such data set, it has no two such splits, or it cannot be
            downloaded.
    """
    kind = getattr(datasets, place, None)
    if place not in datasets.__all__ or kind is None:
        raise DataError(
            f"source 'torchvision:{place}': no such data set: {nearest(place, datasets.__all__)}"
        )
    accepted = inspect.signature(kind.__init__).parameters
    splits = next((SPLIT_ARGUMENTS[key] for key in SPLIT_ARGUMENTS if key in accepted), None)
    if splits is None:
        raise DataError(
            f"source 'torchvision:{place}': has no train and test split; "
            f"export it to folders and use 'folder:'"
        )
    train, test = (_open(place, kind, splits[split]) for split in ("train", "test"))
    return Source(
        _classes(place, train), _split(place, "train", train), _split(place, "test", test)
    )


def _open(place: str, kind: Callable[..., Any], trials: tuple[Arguments, ...]) -> Any:
    root = os.environ.get(FOLDER, "data")
    problem: Exception | None = None
    for arguments in trials:
        try:
            return kind(root, download=True, **arguments)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            problem = error
    raise DataError(
        f"source 'torchvision:{place}': cannot be opened or downloaded "
        f"({type(problem).__name__}: {problem}); "
        f"put its files into '{root}', or set {FOLDER} to the folder that has them"
    )


def _classes(place: str, dataset: Any) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if names:
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if labels is None:
        raise DataError(
            f"source 'torchvision:{place}': names no classes; "
            f"export it to folders and use 'folder:'"
        )
    return tuple(str(label) for label in range(int(max(labels)) + 1))


def _split(place: str, split: str, dataset: Any) -> Split:
    def items(first: int = 0) -> Iterator[Item]:
        for row in range(first, len(dataset)):
            image, label = dataset[row]
            origin = f"torchvision:{place} {split} image {row}"
            if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
                raise DataError(
                    f"{origin}: its target is a {type(label).__name__}, not a class; "
                    f"this data set is not for classification"
                )
            yield Item(image, int(label), origin)

    return Split(len(dataset), items, items_from=items)
