"""Read a table off the store: one row per position, published and measured side by side in separate columns.

Only the meta.json of each artefact is read, never a tensor, so that a table rebuilds from a partial store, without torch.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from distillery.errors import ArtefactError, PlanError
from distillery.sets.parts import Kind
from distillery.store.artefact import read_meta
from distillery.table.budget import cr_paper, cr_stored
from distillery.table.gains import COLUMNS as gain_columns
from distillery.table.gains import gains
from distillery.table.scores import ACCURACIES, SCORES, robustness
from distillery.table.stats import summarize

Position = Mapping[str, Any]
MetadataOf = Callable[
    [str], dict[str, Any]
]  # address of an artefact -> the metadata of its meta.json

COLUMNS = (
    *(
        "paper",
        "table",
        "row",
        "method",
        "variant",
        "labels",
        "protocol",
        "scale",
        "dataset",
        "ipc",
        "student",
    ),
    *(
        "published",
        "published_std",
        "published_table",
        "published_dataset",
        "published_student",
        "published_ipc",
        "comparable",
    ),
    *("measured", "std", "n", "ci95", "measured_best", "difference"),
    *("cr_published", "cr_paper", "cr_stored", "bytes", "bytes_by_part", "pixels", "label_floats"),
    *("ids", "distilled_id", "label_id", "data_id"),
)


AXES = COLUMNS.index("student") + 1  # where a table's own axes stand


def assemble(plan: Mapping[str, Any], store: Path) -> pd.DataFrame:
    """The tidy table of a plan document: a row per position in the plan's order, None for nothing. Columns: `COLUMNS`, the
    table's own axes behind "student"; those of `gains` where a row is compared with another; with scores, the accuracies that
    they compare, acc_... in percent, and the scores, fractions.

    Accuracies and ratios are in percent, sizes in bytes; pixels and label_floats count the numbers stored for images and for
    soft labels. measured: the mean accuracy of the last epoch over n students, or the mean value of an analysis; std (ddof 1)
    and ci95 are their spread; measured_best: the mean of each student's best epoch on the test set, a diagnostic; difference:
    measured - published, only where the setting is the paper's own. Rows without evaluations have published numbers only.

    Raises ArtefactError when an artefact is missing or lacks an entry, PlanError when the plan lacks a key.
    """
    metadata = functools.cache(lambda address: _metadata(store, address))
    try:
        rows = [_row(plan, position, metadata) for position in plan["positions"]]
        compared = any(position["against"] for position in plan["positions"])
        found = (
            gains(plan, lambda position: [_value(metadata, a)[0] for a in position["evaluations"]])
            if compared
            else []
        )
    except KeyError as error:
        raise PlanError(
            f"plan of {plan.get('table', 'a table')}: lacks {error}; write it again with `distillery plan --write`"
        ) from None
    scored = (*ACCURACIES, *SCORES) if plan.get("scores") else ()
    columns = [
        *COLUMNS[:AXES],
        *plan["axes"],
        *COLUMNS[AXES:],
        *(gain_columns if found else ()),
        *scored,
    ]
    rows = [row | gain for row, gain in zip(rows, found or [{}] * len(rows), strict=True)]
    return pd.DataFrame(
        [{name: row.get(name) for name in columns} for row in rows], columns=columns, dtype=object
    )


def setting(position: Position) -> Position | None:
    """Where a position's published number stands: in this very setting, or in the paper's setting that it stands for."""
    comparable = (position["published"] or {}).get("comparable")
    return position if comparable else position["paper"]


def _row(plan: Mapping[str, Any], position: Position, metadata: MetadataOf) -> dict[str, Any]:
    row = {
        "paper": plan["paper"],
        "table": plan["table"].rpartition("/")[2],
        "scale": plan["scale"],
    }
    row |= {
        key: position[key]
        for key in ("row", "method", "variant", "labels", "protocol", "dataset", "ipc", "student")
    }
    row |= {axis: position[axis] for axis in plan["axes"]}
    row |= _published(position)
    if position["evaluations"]:
        row |= (
            _measured(position, metadata)
            | _budget(position, metadata)
            | _scores(position, metadata)
        )
        if row["comparable"] == "yes":
            row["difference"] = row["measured"] - row["published"]
    return row


def _published(position: Position) -> dict[str, Any]:
    printed = position["published"]
    if not printed:
        return {"comparable": "no"}
    place = setting(position) or {}
    return {
        "published": printed["mean"],
        "published_std": printed.get("std"),
        "published_table": printed["table"],
        **{f"published_{axis}": place.get(axis) for axis in ("dataset", "student", "ipc")},
        "comparable": "yes"
        if printed["comparable"] and printed.get("network_stated", True)
        else "no",
        "cr_published": printed.get("compression_ratio"),
    }


def _measured(position: Position, metadata: MetadataOf) -> dict[str, Any]:
    found = [_value(metadata, address) for address in position["evaluations"]]
    last = summarize([value for value, _ in found])
    numbers = {"measured": last.mean, "std": last.std, "n": last.n, "ci95": last.ci95}
    best = [value for _, value in found if value is not None]
    numbers |= {"measured_best": summarize(best).mean} if best else {}
    upstream = {f"{stage}_id": _id(position[stage]) for stage in ("distilled", "label", "data")}
    return numbers | {"ids": ";".join(map(_id, position["evaluations"]))} | upstream


def _scores(position: Position, metadata: MetadataOf) -> dict[str, float]:
    if not position.get("scores"):
        return {}
    compared = {"syn_any": position["evaluations"], **position["scores"]}
    means = {
        name: summarize([_value(metadata, address)[0] for address in found]).mean
        for name, found in compared.items()
    }
    return robustness({f"acc_{name}": mean for name, mean in means.items()})


def _value(metadata: MetadataOf, address: str) -> tuple[float, float | None]:
    """What an artefact says a cell holds: accuracy of the last and of the best epoch, or an analysis' value."""
    if "value" in metadata(address):
        return metadata(address)["value"], None
    accuracy = _stated(metadata, address, "accuracy")
    return accuracy["last"], accuracy["best"]


def _budget(position: Position, metadata: MetadataOf) -> dict[str, Any]:
    parts: dict[str, int] = {}
    for address in filter(None, (position["distilled"], position["label"])):
        for part, size in _stated(metadata, address, "bytes").items():
            parts[part] = parts.get(part, 0) + size
    raw, stored = _stated(metadata, position["data"], "raw_bytes"), sum(parts.values())
    return {
        "cr_paper": _cr_paper(position, metadata, raw),
        "cr_stored": cr_stored(stored, raw),
        "bytes": stored,
        "bytes_by_part": ";".join(f"{part}={size}" for part, size in sorted(parts.items())),
        **_numbers(position, metadata),
    }


def _numbers(position: Position, metadata: MetadataOf) -> dict[str, int]:
    """Numbers stored for images and for labels; nothing where an artefact was made before they were counted."""
    counted: Counter[str] = Counter()
    for address in filter(None, (position["distilled"], position["label"])):
        stated = metadata(address)
        if "kinds" not in stated:
            return {}
        for part, count in stated["numbers"].items():
            counted[stated["kinds"][part]] += count
    return {"pixels": counted[Kind.IMAGE], "label_floats": counted[Kind.SOFT_LABEL]}


def _cr_paper(position: Position, metadata: MetadataOf, raw_bytes: int) -> float | None:
    if position["charged"] == "dynamic" and not position["label_epochs"]:
        return None  # nobody said how many epochs of labels the paper would charge
    return cr_paper(
        position["ipc"],
        len(_stated(metadata, position["data"], "classes")),
        _stated(metadata, position["data"], "counts")["train"],
        position.get("original_bytes") or raw_bytes,
        position["charged"],
        epochs=position["label_epochs"] or 1,
    )


def _metadata(store: Path, address: str) -> dict[str, Any]:
    meta = read_meta(store / address)
    if f"{meta['stage']}/{meta['id']}" != address:
        raise ArtefactError(
            f"{store / address}: holds {meta['stage']}/{meta['id']}; delete the folder and run again"
        )
    return meta["metadata"]


def _stated(metadata: MetadataOf, address: str, name: str) -> Any:
    found = metadata(address)
    if name not in found:
        raise ArtefactError(
            f"{address}: its meta.json states no '{name}'; delete the folder and run again"
        )
    return found[name]


def _id(address: str | None) -> str | None:
    return address and address.partition("/")[2]
