"""Read a table off the store: what each cell of its plan document measured and stored.

Only the meta.json of each evaluation is read, so that a table rebuilds from a partial store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from distillery.sets.parts import Kind
from distillery.sets.sizes import PARTS
from distillery.table.budget import cr_paper, cr_stored
from distillery.table.document import DocumentCell, PrintedTeacher, TableDocument
from distillery.table.gains import Gain, gains
from distillery.table.metadata import Effort, StoreMetadata
from distillery.table.scores import robustness
from distillery.table.stats import Summary, summarize
from distillery.teacher.lineage import BEHIND

# Points over the last quarter of a training: where accuracy rises more it has not levelled off.
STILL_RISING = 1.0


@dataclass(frozen=True)
class StoredSize:
    """What the distilled set and the stored labels of a cell take.

    Attributes:
        cr_paper: compression ratio as the papers count it, percent; None where nobody said how
            many epochs of labels it counts, or the paper of the table counts no ratio.
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
        efforts: what the trainings of its students took.
        stored: what the set and its labels take.
        gain: the difference from the row that it is compared with.
        teachers: those whose accuracy the paper prints, each with its measured one, percent.
        scores: DD-Ranking's accuracies, percent, and scores, fractions, by name.
        artefacts: what each artefact said that was read (`store.artefact.content`), by address.
        versions: of the libraries that made these, by name.
    """

    planned: DocumentCell
    measured: Summary | None = None
    measured_best: float | None = None
    efforts: tuple[Effort, ...] = ()
    stored: StoredSize | None = None
    gain: Gain | None = None
    teachers: tuple[tuple[PrintedTeacher, float], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rise(self) -> float | None:
        """Points by which the students' accuracy rose over the last quarter of their training.

        Their mean; None where it is not known of all.
        """
        rises = [effort.rise for effort in self.efforts]
        known = [rise for rise in rises if rise is not None]
        return fmean(known) if known and len(known) == len(rises) else None

    @property
    def levelled_off(self) -> bool | None:
        """Whether training longer would hardly have helped; None where nobody can tell."""
        return None if self.rise is None else self.rise <= STILL_RISING

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
        lambda cell: _values(cell, metadata),
    )
    return [
        _assembled(cell, gain, document.compression_ratio, metadata)
        for cell, gain in zip(document.cells, differences, strict=True)
    ]


def _assembled(
    cell: DocumentCell, gain: Gain | None, counts_ratio: bool, metadata: StoreMetadata
) -> AssembledCell:
    if not cell.evaluations:
        return AssembledCell(cell)
    measurements = [metadata.measurement(address) for address in cell.students]
    best = [one.best for one in measurements]
    read = list(dict.fromkeys((*cell.students, *chain.from_iterable(cell.scores.values()))))
    return AssembledCell(
        cell,
        measured=summarize(_values(cell, metadata)),
        measured_best=None if None in best else fmean(filter(None, best)),
        efforts=tuple(one.effort for one in measurements if one.effort),
        stored=_stored(cell, counts_ratio, metadata),
        gain=gain,
        teachers=tuple(_teachers(cell, metadata)),
        scores=_scores(cell, metadata),
        artefacts={address: metadata.content(address) for address in read},
        versions=_versions(read, metadata),
    )


def _values(cell: DocumentCell, metadata: StoreMetadata) -> list[list[float]]:
    """The accuracies of the last epoch, percent, or the values of an analysis, by draw."""
    return [[metadata.measurement(address).last for address in draw] for draw in cell.evaluations]


def _teachers(
    cell: DocumentCell, metadata: StoreMetadata
) -> Iterator[tuple[PrintedTeacher, float]]:
    """Teachers of the cell with their accuracies, where its evaluations state them."""
    stated: dict[str, float] = {}
    for address in cell.students:
        stated |= metadata.find(address, BEHIND) or {}
    for teacher in cell.teachers:
        if (accuracy := stated.get(teacher.artefact)) is not None:
            yield teacher, accuracy


def _versions(read: Iterable[str], metadata: StoreMetadata) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for address in read:
        for library, version in metadata.versions(address).items():
            if version is not None:
                found.setdefault(library, set()).add(version)
    return {library: tuple(sorted(versions)) for library, versions in sorted(found.items())}


def _scores(cell: DocumentCell, metadata: StoreMetadata) -> dict[str, float]:
    if not cell.scores:
        return {}
    compared = {"syn_any": cell.students, **cell.scores}
    return robustness(
        {
            f"acc_{name}": fmean(metadata.measurement(address).last for address in addresses)
            for name, addresses in compared.items()
        }
    )


def _stored(cell: DocumentCell, counts_ratio: bool, metadata: StoreMetadata) -> StoredSize | None:
    """What the set and the labels take, as the first student states it; None where it does not.

    All draws of a set take as much, but for files of JPEG.
    """
    sizes = metadata.find(cell.students[0], "sizes") or {}
    parts = [part for part in PARTS if getattr(cell, part)]
    if not {"data", *parts} <= sizes.keys():
        return None
    stored: Counter[str] = Counter()
    for part in parts:
        stored.update(sizes[part]["bytes"])
    data = sizes["data"]
    return StoredSize(
        _cr_paper(cell, data) if counts_ratio else None,
        cr_stored(sum(stored.values()), data["raw_bytes"]),
        dict(sorted(stored.items())),
        **_numbers([sizes[part] for part in parts]),
    )


def _numbers(parts: list[Mapping[str, Any]]) -> dict[str, int]:
    """Numbers stored for images and for labels; nothing where an artefact is older than kinds."""
    counted: Counter[str] = Counter()
    for part in parts:
        if "kinds" not in part:
            return {}
        for name, count in part["numbers"].items():
            counted[part["kinds"][name]] += count
    return {"pixels": counted[Kind.IMAGE], "label_floats": counted[Kind.SOFT_LABEL]}


def _cr_paper(cell: DocumentCell, data: Mapping[str, int]) -> float | None:
    if cell.counted_as == "dynamic" and not cell.label_epochs:
        return None
    return cr_paper(
        cell.place.ipc,
        data["classes"],
        data["train"],
        cell.original_bytes or data["raw_bytes"],
        cell.counted_as,
        epochs=cell.label_epochs or 1,
    )
