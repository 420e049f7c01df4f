"""Find a printed number: the cell of a paper's tables that has exactly the asked setting.

The files of workflow/published keep the papers' own names. Here the names that mean the same are made one, so that a setting is
found whichever table printed it. Standard library alone: the planner calls this thousands of times.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.errors import PlanError

Cell = Mapping[str, str]

_AXES = ("ipc", "eval_arch", "labels")
_SAME = {  # names of the papers that say two things at once, or say one thing in another way
    "method": {
        "infer+dyn": {"method": "infer", "labels": "dynamic"},
        "gift": {"method": "rded", "variant": "gift"},
    },
    "variant": {"refine+loss": {"variant": "gift"}},
    # INFER's "ShuffleNetV2" is V1 with two groups in its authors' code;
    # GIFT's small networks are torchvision's own, with the stem of large images: other networks than INFER's of that name.
    "eval_arch": {
        "convnet128": {"eval_arch": "convnet"},
        "convnet-in": {"eval_arch": "convnet"},
        "shufflenet_v2": {"eval_arch": "shufflenet_v1"},
        "tv-efficientnet_b0": {"eval_arch": "efficientnet_b0"},
        "tv-mobilenet_v2": {"eval_arch": "mobilenet_v2"},
    },
    "distill_arch": {"convnet128": {"distill_arch": "convnet"}},
}
_HARD_WHERE_BLANK = {"random"}  # INFER Table 2 charges it no label bytes
# R of `ensemble=R` makes compensators in INFER Table 3 and labels in Table 6: such a variant means something in its table only.
_BOUND_TO_TABLE = ("ensemble=", "patches=")


def lookup(
    paper: str,
    dataset: str,
    ipc: float | None,
    method: str,
    student: str | None,
    labels: str | None,
    variant: str | None,
    folder: Path,
    prefer_table: str | None = None,
    **keys: str,
) -> dict[str, Any] | None:
    """The printed number of a setting: that of `prefer_table` ("table2", "figure6"), else of the paper's first table with one.

    paper: infer, gift or podd. student: eval_arch of the files. None or "" for ipc, student, labels leaves them open, and so
    does a blank cell: the paper does not say. variant "" is the plain method. keys: further columns (loss, optimizer,
    distill_arch).

    Returns mean, std and compression_ratio in percent (None where nothing is printed), table, and network_stated (False when
    the paper does not name the student, so that no difference may be drawn), or None when no table has the setting.
    Raises PlanError when the preferred table has several different numbers for it; elsewhere such a table is passed over.
    """
    asked = {
        "dataset": dataset,
        "ipc": _number(ipc),
        "method": method,
        "eval_arch": student or "",
        "labels": labels or "",
    }
    preferred = _table_name(prefer_table)
    asked = _bound(_canonical(asked | {"variant": variant or ""} | keys), preferred)
    tables = _index(Path(folder), paper).get(_key(asked), {})
    for table in sorted(tables, key=lambda name: name != preferred):
        best = _best(tables[table], asked, (*_AXES, *keys))
        if len({(cell["mean"], cell["std"]) for cell in best}) == 1:
            return _number_of(best[0])
        if best and table == preferred:
            raise _ambiguous(paper, best)
    return None


def _best(cells: list[Cell], asked: Cell, axes: tuple[str, ...]) -> list[Cell]:
    """The cells that contradict no asked value, and of those the ones that confirm most."""
    fitting = [c for c in cells if all(not asked[a] or not c[a] or asked[a] == c[a] for a in axes)]
    confirmed = [sum(bool(c[a]) and asked[a] == c[a] for a in axes) for c in fitting]
    return [c for c, count in zip(fitting, confirmed, strict=True) if count == max(confirmed)]


def _number_of(cell: Cell) -> dict[str, Any]:
    numbers = {
        name: float(cell[name]) if cell[name] else None
        for name in ("mean", "std", "compression_ratio")
    }
    return {**numbers, "table": cell["table"], "network_stated": bool(cell["eval_arch"])}


def _ambiguous(paper: str, cells: list[Cell]) -> PlanError:
    skipped = ("mean", "std", "compression_ratio", "note")
    differ = {
        k: sorted({c[k] for c in cells})
        for k in cells[0]
        if k not in skipped and len({c[k] for c in cells}) > 1
    }
    choices = "; ".join(f"{column}: {', '.join(values)}" for column, values in differ.items())
    first = cells[0]
    return PlanError(
        f"{paper} table {first['table']} prints {len(cells)} numbers for {first['method']}, {first['dataset']}, "
        f"ipc {first['ipc']}: name one in the row's `published` ({choices})"
    )


@functools.cache
def _index(folder: Path, paper: str) -> dict[tuple[str, ...], dict[str, list[Cell]]]:
    """All accuracy cells of a paper by dataset, method and variant, then by table in the paper's order."""
    found: dict[tuple[str, ...], dict[str, list[Cell]]] = {}
    for file in sorted(folder.glob(f"{paper}_*.csv"), key=lambda f: (len(f.stem), f.stem)):
        for cell in _accuracies(file):
            found.setdefault(_key(cell), {}).setdefault(cell["table"], []).append(cell)
    return found


def _accuracies(file: Path) -> list[Cell]:
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    cells = [_canonical(row | {"ipc": _number(row["ipc"])}) for row in rows if "mean" in row]
    return [_bound(_hard_where_blank(cell), cell["table"]) for cell in cells]


def _canonical(cell: dict[str, str]) -> dict[str, str]:
    for column, same in _SAME.items():
        cell = cell | same.get(cell.get(column, ""), {})
    return cell


def _hard_where_blank(cell: dict[str, str]) -> dict[str, str]:
    return (
        cell | {"labels": "hard"}
        if cell["method"] in _HARD_WHERE_BLANK and not cell["labels"]
        else cell
    )


def _bound(cell: dict[str, str], table: str) -> dict[str, str]:
    bound = cell["variant"].startswith(_BOUND_TO_TABLE)
    return cell | {"variant": f"{cell['variant']} of {table}"} if bound else cell


def _key(cell: Cell) -> tuple[str, ...]:
    return cell["dataset"], cell["method"], cell["variant"]


def _number(ipc: float | str | None) -> str:
    return "" if ipc in (None, "") else f"{float(ipc):g}"


def _table_name(name: str | None) -> str:
    return str(name or "").rpartition("/")[2].removeprefix("table")
