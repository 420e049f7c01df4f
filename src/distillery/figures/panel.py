"""What a figure is drawn from: measured cells of a table, with what an analysis stored."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from distillery.errors import PlanError

# What the papers call the networks that scales name otherwise.
NETWORKS = {
    "convnet": "ConvNet",
    "convnet128": "ConvNet128",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "mobilenet_v2": "MobileNetV2",
    "tv-mobilenet_v2": "MobileNet-V2",
    "efficientnet_b0": "EfficientNet-B0",
    "tv-efficientnet_b0": "EfficientNet-B0",
    "shufflenet_v1": "ShuffleNetV2",  # INFER's name of it: docs/protocols.md
    "swin_v2_t": "Swin-V2-T",
}
DEVIATION = "error bars: standard deviation (ddof 1)"
LETTERS = 100  # of a line of a figure's title


@dataclass(frozen=True)
class Entry:
    """One measured cell of a table.

    Attributes:
        row: its label.
        dataset: where it stands; likewise `ipc` and `student`.
        ipc: images per class.
        student: a network; None where the table has no such axis.
        value: mean over draws and students; None where nothing was measured.
        std: standard deviation (ddof 1) over draws where there are several, else over students;
            None for one value.
        n: number of values that the spread is over.
        over: what these are: "students" or "draws"; empty where there is one.
        ratio: compression ratio as the table states it, percent; None where it states none.
        values: the tidy rows of the analysis, of all draws and students; none where nothing was
            analysed.
        arrays: the arrays of the analysis, of the first draw and student.
        extra: where it stands on the table's own axes, by their names.
    """

    row: str
    dataset: str
    ipc: float
    student: str | None
    value: float | None
    std: float | None
    n: int
    values: pd.DataFrame = field(default_factory=pd.DataFrame)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    over: str = ""
    ratio: float | None = None


@dataclass(frozen=True)
class Panel:
    """What a figure shows.

    Attributes:
        title: stands above it.
        entries: in the order of the table.
        printed: facts that the paper prints about it, by name, from the paper's `paper.yaml`.
    """

    title: str
    entries: list[Entry]
    printed: Mapping[str, float] = field(default_factory=dict)

    def having(self, part: str) -> list[Entry]:
        """The entries that have a "value", "values" or "arrays".

        Raises:
            PlanError: none has.
        """
        entries = [entry for entry in self.entries if _is_there(getattr(entry, part))]
        if not entries:
            raise PlanError(f"figure '{self.title}': no entry has {part}; make its analyses first")
        return entries


def spread(values: pd.DataFrame, of: str, by: Sequence[str] = ()) -> pd.DataFrame:
    """Mean and standard deviation of a column of an entry's values, as a table states them.

    Args:
        values: tidy rows with the columns `draw` and `student_of_draw`.
        of: the column.
        by: columns; each of their values gets a row of its own.

    Returns:
        Columns mean and std (ddof 1; 0 for one value), indexed by `by`. Of several draws each
        counts once, with the mean of its students; of one draw its students count.
    """
    if values["draw"].nunique() > 1:
        values = values.groupby([*by, "draw"], as_index=False)[of].mean()
    grouped = values.groupby(list(by)) if by else values.groupby(lambda _: of)
    return grouped[of].agg(["mean", "std"]).fillna(0.0)


def heading(panel: Panel, entries: Sequence[Entry], *notes: str) -> str:
    """The title, and below it data sets, students, ipc and n of the entries, and what is said more.

    Args:
        panel: whose title it is.
        entries: that are drawn.
        *notes: what the bars are, and what a reader would stumble over.
    """
    places = [_listed(part) for part in _places(entries)]
    counts = sorted({entry.n for entry in entries})
    over = " or ".join(sorted({_over(entry) for entry in entries} - {""}))
    n = f"n = {' to '.join(f'{n:g}' for n in {counts[0]: 0, counts[-1]: 0})} {over}".strip()
    if counts[-1] == 1:
        n = n.replace("draws", "draw").replace("students", "student")
    below = "; ".join([*(text for text in places if text), n, *filter(None, notes)])
    return f"{panel.title}\n{textwrap.fill(below, LETTERS)}"


def _over(entry: Entry) -> str:
    return "" if entry.over == "students" and entry.student is None else entry.over


def _places(entries: Sequence[Entry]) -> Iterator[list[str]]:
    yield [entry.dataset for entry in entries]
    yield [network(entry.student) for entry in entries if entry.student]
    yield [f"ipc {ipc:g}" for ipc in sorted({entry.ipc for entry in entries})]


def _listed(texts: Sequence[str]) -> str:
    """Each text once, in order of first appearance; "ipc" is said once."""
    found = list(dict.fromkeys(texts))
    return ", ".join([*found[:1], *(text.removeprefix("ipc ") for text in found[1:])])


def network(name: str) -> str:
    """What the papers call a network of a scale; its own name where they do not have it."""
    return NETWORKS.get(name, name)


def _is_there(part: object) -> bool:
    return part is not None and (not hasattr(part, "__len__") or len(part) > 0)


def setting(entry: Entry, axes: Sequence[str] = ("dataset", "student", "ipc")) -> str:
    """Where an entry stands, in words: "cifar100, resnet18, ipc 10".

    Args:
        entry: the entry.
        axes: what to name: fields of the entry, or axes of the table.
    """
    texts = {"dataset": entry.dataset, "ipc": f"ipc {entry.ipc:g}"}
    texts |= {"student": network(entry.student)} if entry.student else {}
    texts |= {axis: f"{axis} {value}" for axis, value in entry.extra.items()}
    return ", ".join(text for axis in axes if (text := texts.get(axis)))


def facets(
    entries: Sequence[Entry], axes: Sequence[str] = ("dataset", "student")
) -> dict[str, list[Entry]]:
    """Entries by `setting`, in order of first appearance."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(setting(entry, axes), []).append(entry)
    return groups


def names(entries: Sequence[Entry]) -> list[str]:
    """A name for each entry: its row, and of its setting only what differs between the entries.

    The table's own axes belong to the setting.
    """
    axes = dict.fromkeys(
        ["dataset", "student", "ipc", *(axis for entry in entries for axis in entry.extra)]
    )
    differing = [axis for axis in axes if len({setting(entry, [axis]) for entry in entries}) > 1]
    return [", ".join(filter(None, (entry.row, setting(entry, differing)))) for entry in entries]
