"""What artefacts state of themselves: their meta.json alone, never a tensor."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.store.artefact import Meta, content, read_meta


@dataclass(frozen=True)
class Effort:
    """What the training of a student took.

    Attributes:
        instances: images that it saw in an epoch.
        epochs: passes over them.
        steps: of the optimiser.
        rise: points by which the accuracy rose over the last quarter of the training: that of the
            last epoch minus that of the last one measured up to three quarters of the epochs. Where
            that one lies further back, the points are those of a quarter at the same pace; None
            where none was measured in the second and third quarter.
    """

    instances: int
    epochs: int
    steps: int
    rise: float | None


@dataclass(frozen=True)
class Measurement:
    """The number of one repeat.

    Attributes:
        last: accuracy of the last epoch, percent, or the value of an analysis.
        best: accuracy of the best epoch on the test set, percent; None for an analysis.
        effort: what its training took; None where nothing was trained, or nobody said.
    """

    last: float
    best: float | None
    effort: Effort | None = None


class StoreMetadata:
    """The metadata of the artefacts of a store; each meta.json is read once."""

    def __init__(self, store: Path):
        """store: the folder results/store."""
        self._store = store
        self._read = functools.cache(self._meta)

    def content(self, address: str) -> str:
        """What an artefact says and holds, as `store.artefact.content`; errors as of `find`."""
        return content(self._read(address))

    def versions(self, address: str) -> dict[str, str | None]:
        """Versions of the libraries that made an artefact, by name; errors as of `find`."""
        return self._read(address).get("versions", {})

    def find(self, address: str, name: str) -> Any:
        """What the artefact `stage/id` states under `name`, or None.

        Raises:
            ArtefactError: the artefact is missing, or another one lies in its folder.
        """
        return self._read(address)["metadata"].get(name)

    def stated(self, address: str, name: str) -> Any:
        """What the artefact `stage/id` states under `name`.

        Raises:
            ArtefactError: the artefact is missing, states nothing of that name, or another one
                lies in its folder.
        """
        metadata = self._read(address)["metadata"]
        if name not in metadata:
            raise ArtefactError(
                f"{address}: its meta.json states no '{name}'; delete the folder and run again"
            )
        return metadata[name]

    def measurement(self, address: str) -> Measurement:
        """The number of an evaluation, a teacher or an analysis; errors as of `stated`."""
        value = self.find(address, "value")
        if value is not None:
            return Measurement(value, None)
        accuracy = self.stated(address, "accuracy")
        return Measurement(accuracy["last"], accuracy["best"], self._effort(address))

    def _effort(self, address: str) -> Effort | None:
        steps = self.find(address, "steps")
        if steps is None:
            return None
        epochs, accuracy = self.stated(address, "epochs"), self.stated(address, "accuracy")
        rise = _rise(accuracy["curve"], accuracy["last"], epochs)
        return Effort(self.stated(address, "instances"), epochs, steps, rise)

    def _meta(self, address: str) -> Meta:
        return read_meta(self._store / address)


def _rise(curve: list[list[float]], last: float, epochs: int) -> float | None:
    quarter = epochs / 4
    before = [point for point in curve if quarter <= point[0] <= 3 * quarter]
    if not before:
        return None
    epoch, accuracy = before[-1]
    return (last - accuracy) * quarter / (epochs - epoch)
