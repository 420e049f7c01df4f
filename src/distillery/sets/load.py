"""Read a distilled set from its files, and hold it to what every set must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distillery.components.registry import trait
from distillery.data.images import load_images
from distillery.errors import ArtefactError, SetError
from distillery.sets.contract import check_loaded
from distillery.sets.distilled import DistilledSet

if TYPE_CHECKING:
    from distillery.store.artefact import Artefact


def load_set(folder: Path, data: Artefact | None = None) -> DistilledSet:
    """The distilled set of a folder, checked.

    Args:
        folder: of the artefact.
        data: the data artefact, for a set that refers to its training images.

    Raises:
        ArtefactError: a file is missing or corrupt, one holds other parts than the other, or the
            set is not what a set must be (`sets.contract`).
        ClassOrderError: the sidecar's hash is not that of its classes.
    """
    distilled = DistilledSet.load(folder)
    if data is not None and trait(distilled.module, "whole_data", False):
        distilled = replace(distilled, train=load_images(data, "train"))
    try:
        check_loaded(distilled, f"{folder}")
    except SetError as error:
        raise ArtefactError(f"{error}; or delete the folder and run again") from None
    return distilled
