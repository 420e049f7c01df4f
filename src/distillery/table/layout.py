"""A table in the paper's own shape: per panel a grid of measured numbers, then a grid of published ones, never mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from distillery.errors import PlanError
from distillery.table.assemble import Position, setting
from distillery.table.scores import SCORES, SHARE

EMPTY = "–"
LEVEL = 0.05
COUNTED = {
    "pixels": "of images",
    "label_floats": "of labels",
}  # column of the tidy table -> of this one
SCORED = (
    "HLR: accuracy of the student's network on the real data minus that on this set with hard labels, low is good. IOR: "
    "accuracy on this set minus that on as many random real images, treated alike, high is good. LRS and ARS, in 0 to 1, weigh "
    f"HLR against IOR, and IOR with augmentation against IOR without ({SHARE:g} each); 0.269 says: no gain and no loss. All "
    "of the last epoch, on one draw of random images; the accuracies are the columns acc_... of {0}."
)
PAPERS = {"infer": "INFER", "gift": "GIFT", "podd": "PoDD"}

Record = Mapping[str, Any]
Cell = tuple[Record, Position]


@dataclass(frozen=True)
class Block:
    """One grid. columns: (group, name) of each column; rows: the label and the texts of each row."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class View:
    """What a grid shows: the setting that places a position, the column of the ratio beside it, the text of a cell
    with so many decimals."""

    place: Callable[[Position], Position]
    ratio: str | None
    text: Callable[[Record, int], str]


def layout(frame: pd.DataFrame, plan: Mapping[str, Any]) -> dict[str, list[Block]]:
    """The blocks of each panel: measured, published, difference (where any number is comparable), the scores of a table that
    has them, and what is stored.

    Raises PlanError when two positions fall into one place of a grid.
    """
    cells = list(zip(frame.to_dict("records"), plan["positions"], strict=True))
    _check_places(plan)
    axis = _panel_axis(plan)
    panels = {
        name: [c for c in cells if c[1][axis] == name]
        for name in _unique(p[axis] for _, p in cells)
    }
    return {str(name): [b for b in _blocks(plan, panel) if b] for name, panel in panels.items()}


def _panel_axis(plan: Mapping[str, Any]) -> str:
    return plan["shape"].get("panel") or "dataset"


def _blocks(plan: Mapping[str, Any], cells: list[Cell]) -> list[Block | None]:
    records = [record for record, _ in cells]
    datasets = ", ".join(_unique(r["dataset"] for r in records))
    n = "/".join(_unique(str(r["n"]) for r in records if r["n"])) or "0"
    printed = [c for c in cells if c[0]["published"] is not None]
    compared = [c for c in cells if c[0]["difference"] is not None]
    gained = [c for c in cells if c[0].get("gain") is not None]
    last = "" if plan["analysis"] else ", last epoch"
    return [
        _grid(
            f"Measured (scale {plan['scale']}, dataset {datasets}, n={n}{last})",
            plan,
            cells,
            MEASURED,
        ),
        _grid(_published_title(plan, printed), plan, printed, PUBLISHED) if printed else None,
        _grid("Difference (measured − published)", plan, compared, DIFFERENCE)
        if compared
        else None,
        _grid("Gain (row − the row it is compared with; * Welch p < 0.05)", plan, gained, GAIN)
        if gained
        else None,
        _robustness(plan, cells),
        _stored(records),
    ]


def _published_title(plan: Mapping[str, Any], cells: list[Cell]) -> str:
    tables = ", ".join(_unique(_table_title(str(r["published_table"])) for r, _ in cells))
    datasets = ", ".join(_unique(str(r["published_dataset"]) for r, _ in cells))
    return f"Published ({PAPERS.get(plan['paper'], plan['paper'])} {tables}, {datasets})"


def _table_title(table: str) -> str:
    return (
        f"Figure {table.removeprefix('figure')}" if table.startswith("figure") else f"Table {table}"
    )


def _grid(title: str, plan: Mapping[str, Any], cells: list[Cell], view: View) -> Block:
    axes = plan["shape"]["columns"]
    placed = [(record, view.place(position)) for record, position in cells]
    keyed = [
        (record, place["ipc"], tuple(place[axis] for axis in axes)) for record, place in placed
    ]
    keys = _in_axis_order([key for _, _, key in keyed])
    ratios = [
        (r["row"], ipc, f"{r[view.ratio]:.2f}")
        for r, ipc, _ in keyed
        if view.ratio and r[view.ratio] is not None
    ]
    ipcs = _unique(ipc for _, ipc, _ in ratios)
    rows = []
    for label in plan["shape"]["rows"]:
        charged = [
            _joined(text for row, at, text in ratios if (row, at) == (label, ipc)) for ipc in ipcs
        ]
        texts = {
            key: view.text(record, plan["digits"])
            for record, _, key in keyed
            if record["row"] == label
        }
        rows.append((label, charged + [texts.get(key, EMPTY) for key in keys]))
    return Block(
        title,
        [("CR (%)", f"ipc {ipc:g}") for ipc in ipcs] + [_heading(axes, key) for key in keys],
        rows,
    )


def _check_places(plan: Mapping[str, Any]) -> None:
    axes = (_panel_axis(plan), "row", *plan["shape"]["columns"])
    places = Counter(tuple(position[axis] for axis in axes) for position in plan["positions"])
    twice = next((place for place, count in places.items() if count > 1), None)
    if twice:
        raise PlanError(
            f"{plan['table']}: two positions at {' / '.join(map(str, twice))}; give them rows or columns of their own"
        )


def _robustness(plan: Mapping[str, Any], cells: list[Cell]) -> Block | None:
    axes = plan["shape"]["columns"]
    rows = [
        (
            record["row"],
            [
                *(_plain(position[axis]) for axis in axes),
                *(f"{record[score]:.3f}" for score in SCORES),
            ],
        )
        for record, position in cells
        if record.get("lrs") is not None
    ]
    title = "Robustness (DD-Ranking's definitions, fractions; not comparable with its leaderboard)"
    return (
        Block(title, [("", name) for name in (*axes, *map(str.upper, SCORES))], rows)
        if rows
        else None
    )


def _stored(records: list[Record]) -> Block | None:
    made = [r for r in records if r["bytes"] is not None]
    counted = COUNTED if any(r["pixels"] is not None for r in made) else {}
    lines = _unique(
        (
            r["row"],
            (
                f"{r['ipc']:g}",
                *map(_percent, (r["cr_paper"], r["cr_stored"])),
                *_sizes(r, counted),
                r["bytes_by_part"],
            ),
        )
        for r in made
    )
    numbers = [("numbers", name) for name in counted.values()]
    columns = [
        ("", "ipc"),
        ("CR (%)", "paper"),
        ("CR (%)", "stored"),
        ("", "bytes"),
        *numbers,
        ("", "by part"),
    ]
    return Block("Stored", columns, [(row, list(texts)) for row, texts in lines]) if lines else None


def _sizes(record: Record, counted: Mapping[str, str]) -> list[str]:
    return [EMPTY if record[name] is None else str(record[name]) for name in ("bytes", *counted)]


def notes(frame: pd.DataFrame, plan: Mapping[str, Any], csv_name: str) -> list[str]:
    """What the numbers mean, in sentences for the foot of the table."""
    made = frame[frame["n"].notna()]
    protocols = _joined(made["protocol"]) if len(made) else "none was run"
    last = "" if plan["analysis"] else "last epoch, "
    return [
        f"Measured: {plan['quantity']}, {last}mean ± standard deviation (ddof 1) over n student seeds on one distilled set; "
        f"{csv_name} has its 95 % t-interval, ±ci95. Evaluation protocols: {protocols}.",
        *(
            [
                f"measured_best in {csv_name} is the best epoch on the test set: a diagnostic, not a result."
            ]
            if last
            else []
        ),
        "CR: INFER's accounting, images by number and labels by bytes. Stored: all bytes kept over the raw bytes of the "
        "training images. Labels made during training count in the former only.",
        "Published numbers are the paper's, in its own setting; a difference is drawn only where the measured setting is that "
        f"one. {EMPTY}: not measured, or not printed.",
        *([SCORED.format(csv_name)] if plan.get("scores") else []),
        f"The artefacts behind each number: columns ids, distilled_id, label_id and data_id of {csv_name}.",
    ]


def metrics(frame: pd.DataFrame, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Measured means, numbers only: {row: {panel: {"student/ipc": percent}}}, the inner key made of the table's columns."""
    axis, axes = _panel_axis(plan), plan["shape"]["columns"]
    found: dict[str, Any] = {}
    for record, position in zip(frame.to_dict("records"), plan["positions"], strict=True):
        if record["measured"] is not None:
            panel = found.setdefault(record["row"], {}).setdefault(str(position[axis]), {})
            panel["/".join(_plain(position[a]) for a in axes)] = round(
                record["measured"], plan["digits"] + 1
            )
    return found


def _measured(record: Record, digits: int) -> str:
    if record["measured"] is None:
        return EMPTY
    return f"{record['measured']:.{digits}f}" + (
        "" if record["std"] is None else f" ± {record['std']:.{digits}f}"
    )


def _printed(record: Record, digits: int) -> str:
    return f"{float(record['published'])!r}" + (
        "" if record["published_std"] is None else f" ± {float(record['published_std'])!r}"
    )


def _signed(record: Record, digits: int) -> str:
    return f"{record['difference']:+.{digits}f}"


def _gained(record: Record, digits: int) -> str:
    star = "*" if record["gain_p"] is not None and record["gain_p"] < LEVEL else ""
    return f"{record['gain']:+.{digits}f}{star}"


MEASURED = View(lambda position: position, "cr_paper", _measured)
PUBLISHED = View(
    lambda position: {**position, **(setting(position) or {})}, "cr_published", _printed
)
GAIN = View(lambda position: position, None, _gained)
DIFFERENCE = View(lambda position: position, None, _signed)


def _percent(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.2f}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _heading(axes: list[str], key: tuple) -> tuple[str, str]:
    number = (int, float)
    names = [
        f"{axis} {_plain(value)}" if isinstance(value, number) else _plain(value)
        for axis, value in zip(axes, key, strict=True)
    ]
    return " ".join(names[:-1]), names[-1]


def _in_axis_order(keys: list[tuple]) -> list[tuple]:
    """The distinct keys, sorted along each axis by first appearance: a row that lacks a column does not reorder them."""
    ranks = [
        {value: i for i, value in enumerate(_unique(axis))} for axis in zip(*keys, strict=True)
    ]
    return sorted(
        set(keys), key=lambda key: [rank[value] for rank, value in zip(ranks, key, strict=True)]
    )


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(_unique(texts)) or EMPTY


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
