"""Read a table off the store: what each cell of its plan document measured and stored.

Only the meta.json of each artefact is read, so that a table rebuilds from a partial store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distillery.sets.parts import Kind
from distillery.table.budget import cr_paper, cr_stored
from distillery.table.document import DocumentCell, TableDocument
from distillery.table.gains import Gain, gains
from distillery.table.metadata import StoreMetadata
from distillery.table.scores import robustness
from distillery.table.stats import Summary, summarize


@dataclass(frozen=True)
class StoredSize:
    """What the distilled set and the stored labels of a cell take.

    Attributes:
        cr_paper: compression ratio as the papers count it, percent; None where nobody said how
            many epochs of labels it counts.
        cr_stored: bytes really stored over the raw bytes of the training images, percent.
        bytes_by_part: bytes of each part of the set, and of the labels.
        pixels: numbers stored for images; None where an artefact is older than this count.
        label_floats: numbers stored for soft labels; None as for `pixels`.
    """

    cr_paper: float | None
    cr_stored: float
    bytes_by_part: Mapping[str, int]
    pixels: int | None = None
    label_floats: int | None = None

    @property
    def bytes(self) -> int:
        """All bytes stored."""
        return sum(self.bytes_by_part.values())


@dataclass(frozen=True)
class AssembledCell:
    """A cell with what its artefacts state; nothing of it where only a number is printed.

    Attributes:
        planned: the cell of the plan document.
        measured: accuracies of the last epoch over the students, percent, or values of an analysis.
        measured_best: mean of each student's best epoch on the test set, percent: a diagnostic.
        stored: what the set and its labels take.
        gain: the difference from the row that it is compared with.
        scores: DD-Ranking's accuracies, percent, and scores, fractions, by name.
    """

    planned: DocumentCell
    measured: Summary | None = None
    measured_best: float | None = None
    stored: StoredSize | None = None
    gain: Gain | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether the printed number is of this very setting and of a network that it names."""
        published = self.planned.published
        return published is not None and self.planned.comparable and published.network_stated

    @property
    def difference(self) -> float | None:
        """Measured - published; None where they are not comparable or nothing was measured."""
        published = self.planned.published
        if not self.comparable or published is None or self.measured is None:
            return None
        return self.measured.mean - published.mean


def assemble(document: TableDocument, store: Path) -> list[AssembledCell]:
    """The cells of a plan document, in its order, with what their artefacts in `store` state.

    Raises:
        ArtefactError: an artefact is missing, or lacks an entry.
        PlanError: a cell lacks an axis of the table.
    """
    metadata = StoreMetadata(store)
    differences = gains(
        document,
        lambda cell: [metadata.measurement(address).last for address in cell.evaluations],
    )
    return [
        _assembled(cell, gain, metadata)
        for cell, gain in zip(document.cells, differences, strict=True)
    ]


def _assembled(cell: DocumentCell, gain: Gain | None, metadata: StoreMetadata) -> AssembledCell:
    if not cell.evaluations:
        return AssembledCell(cell)
    measurements = [metadata.measurement(address) for address in cell.evaluations]
    best = [one.best for one in measurements if one.best is not None]
    return AssembledCell(
        cell,
        measured=summarize([one.last for one in measurements]),
        measured_best=summarize(best).mean if best else None,
        stored=_stored(cell, metadata),
        gain=gain,
        scores=_scores(cell, metadata),
    )


def _scores(cell: DocumentCell, metadata: StoreMetadata) -> dict[str, float]:
    if not cell.scores:
        return {}
    compared = {"syn_any": cell.evaluations, **cell.scores}
    return robustness(
        {
            f"acc_{name}": summarize([metadata.measurement(a).last for a in addresses]).mean
            for name, addresses in compared.items()
        }
    )


def _stored(cell: DocumentCell, metadata: StoreMetadata) -> StoredSize | None:
    if cell.data is None:
        return None
    parts: dict[str, int] = {}
    for address in filter(None, (cell.distilled, cell.label)):
        for part, size in metadata.stated(address, "bytes").items():
            parts[part] = parts.get(part, 0) + size
    raw = metadata.stated(cell.data, "raw_bytes")
    return StoredSize(
        _cr_paper(cell, cell.data, metadata, raw),
        cr_stored(sum(parts.values()), raw),
        dict(sorted(parts.items())),
        **_numbers(cell, metadata),
    )


def _numbers(cell: DocumentCell, metadata: StoreMetadata) -> dict[str, int]:
    """Numbers stored for images and for labels; nothing where an artefact is older than kinds."""
    counted: Counter[str] = Counter()
    for address in filter(None, (cell.distilled, cell.label)):
        kinds = metadata.find(address, "kinds")
        if kinds is None:
            return {}
        for part, count in metadata.stated(address, "numbers").items():
            counted[kinds[part]] += count
    return {"pixels": counted[Kind.IMAGE], "label_floats": counted[Kind.SOFT_LABEL]}


def _cr_paper(
    cell: DocumentCell, data: str, metadata: StoreMetadata, raw_bytes: int
) -> float | None:
    if cell.counted_as == "dynamic" and not cell.label_epochs:
        return None
    return cr_paper(
        cell.place.ipc,
        len(metadata.stated(data, "classes")),
        metadata.stated(data, "counts")["train"],
        cell.original_bytes or raw_bytes,
        cell.counted_as,
        epochs=cell.label_epochs or 1,
    )
