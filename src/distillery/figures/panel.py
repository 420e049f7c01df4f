"""What a figure is drawn from: measured entries of a table, with the rows and arrays that an analysis stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from distillery.errors import PlanError


@dataclass(frozen=True)
class Entry:
    """One position of a table. row: its label. value, std, n: mean and standard deviation over n repeats, None where
    nothing was measured. values: the tidy rows of the analysis, of one repeat or of several. arrays: those of one repeat.
    extra: where it stands on the table's own axes, by their names.
    """

    row: str
    dataset: str
    ipc: float | None
    student: str | None
    value: float | None
    std: float | None
    n: int
    values: pd.DataFrame | None = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """What a figure shows.

    Attributes:
        title: stands above it.
        entries: in the order of the table.
        printed: facts that the paper prints about it, by name (`workflow/tables/<paper>/paper.yaml`).
    """

    title: str
    entries: list[Entry]
    printed: Mapping[str, float] = field(default_factory=dict)

    def having(self, part: str) -> list[Entry]:
        """The entries that have a "value", "values" or "arrays". Raises PlanError when none has."""
        found = [entry for entry in self.entries if _there(getattr(entry, part))]
        if not found:
            raise PlanError(f"figure '{self.title}': no entry has {part}; make its analyses first")
        return found


def _there(part: object) -> bool:
    return part is not None and (not hasattr(part, "__len__") or len(part) > 0)


def setting(entry: Entry, axes: Sequence[str] = ("dataset", "student", "ipc")) -> str:
    """Where an entry stands, in words: "cifar100, resnet18, ipc 10"; `axes` are the fields to name, or axes of the table."""
    texts = {
        "dataset": entry.dataset,
        "student": entry.student,
        "ipc": entry.ipc is not None and f"ipc {entry.ipc:g}",
    }
    texts |= {axis: f"{axis} {value}" for axis, value in entry.extra.items()}
    return ", ".join(texts[axis] for axis in axes if texts.get(axis))


def facets(
    entries: Sequence[Entry], axes: Sequence[str] = ("dataset", "student")
) -> dict[str, list[Entry]]:
    """Entries by `setting`, in order of first appearance."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(setting(entry, axes), []).append(entry)
    return found


def names(entries: Sequence[Entry]) -> list[str]:
    """A name for each entry: its row, and of its setting, the table's own axes included, only what differs between entries."""
    axes = dict.fromkeys(
        ["dataset", "student", "ipc", *(axis for entry in entries for axis in entry.extra)]
    )
    differing = [axis for axis in axes if len({setting(entry, [axis]) for entry in entries}) > 1]
    return [", ".join(filter(None, (entry.row, setting(entry, differing)))) for entry in entries]
