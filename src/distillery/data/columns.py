"""The files of a data artefact, which a `parquet:` source may have too: names and columns."""

from __future__ import annotations

SPLITS = ("train", "test")
CLASSES = "classes.json"
IMAGE, LABEL = "image", "label"


def split_file(split: str) -> str:
    """Name of the file of a split."""
    return f"{split}.parquet"
