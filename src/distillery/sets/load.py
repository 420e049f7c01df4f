"""Read a distilled set from its files, and hold it to what every set must be."""

from __future__ import annotations

from pathlib import Path

from distillery.errors import ArtefactError, SetError
from distillery.sets.contract import check_loaded
from distillery.sets.distilled import DistilledSet


def load_set(folder: Path) -> DistilledSet:
    """The distilled set of a folder, checked.

    Raises:
        ArtefactError: a file is missing or corrupt, one holds other parts than the other, or the
            set is not what a set must be (`sets.contract`).
        ClassOrderError: the sidecar's hash is not that of its classes.
    """
    distilled = DistilledSet.load(folder)
    try:
        check_loaded(distilled, f"{folder}")
    except SetError as error:
        raise ArtefactError(f"{error}; or delete the folder and run again") from None
    return distilled
