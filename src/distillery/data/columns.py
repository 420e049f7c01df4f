"""The files of a data artefact, which a `parquet:` source may have too: names and columns."""

from __future__ import annotations

SPLITS = ("train", "test")
CLASSES = "classes.json"
IMAGE, LABEL = "image", "label"
ORIGINALS = "originals"  # of the training images, at the sizes that they have in the source


def split_file(split: str) -> str:
    """Name of the file of a split, or of the originals."""
    return f"{split}.parquet"
