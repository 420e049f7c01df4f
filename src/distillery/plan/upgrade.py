"""Artefacts of earlier formats in the words and files of the present one: what `adopt` keeps.

The format is a number in meta.json, none meaning 1. It rises when the words of meta.json or the
files of an artefact change without changing what they say; nothing else reads an old format.

Format 1 said `room` and `facts` for `stage` and `metadata`. A distilled set of it had no kinds, its
flags were tensors, and the log of its meta-steps called the start of the window `offset`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.sets.parts import PARTS, SIDECAR, Kind
from distillery.sets.sizes import stated_sizes
from distillery.store.artefact import FORMAT
from distillery.store.atomic import write_file, write_text
from distillery.store.canonical import file_sha256
from distillery.store.spec import KEY_NAMES

if TYPE_CHECKING:
    import numpy as np

JsonMeta = dict[str, Any]  # a meta.json, of any format

_WORDS = {"room": "stage", "facts": "metadata"}
_FIELDS = {old: new for new, old in KEY_NAMES.items()}
# The parts of sets of format 1. It counted all that it did not know as pixels.
_KINDS = {
    "labels": Kind.HARD_LABEL,
    "soft": Kind.SOFT_LABEL,
    "jpeg_ends": Kind.INDEX,
    "order": Kind.INDEX,
}
_DERIVED = ("labels", "jpeg_ends")
_FLAGS = ("natural_instances", "patches")
_META_STEPS = "meta.csv"
# The warning of data that were read before any were kept: what is not known is not "none".
NOT_LOOKED_FOR = (
    "read by an earlier version, which did not look for equal images in train and test, "
    "orientation tags, transparency and several frames"
)
_SIZED = ("evaluate", "analyse")  # stages that state the sizes of what they read


def upgraded(meta: JsonMeta) -> JsonMeta:
    """A meta.json of any format in the present words; `format` stays that of its files."""
    if meta.get("format", 1) >= FORMAT:
        return meta
    new = {_WORDS.get(key, key): value for key, value in meta.items()} | {"format": 1}
    spec = {_WORDS.get(key, key): value for key, value in meta["spec"].items()}
    new["spec"] = spec | {"recipe": _with_present_names(spec["recipe"])}
    if new["stage"] == "embed" and "found" in new["metadata"]:
        names = {"found": "provenance"}
        new["metadata"] = {names.get(key, key): value for key, value in new["metadata"].items()}
    if new["stage"] == "label" and "numbers" in new["metadata"]:
        kinds = {
            name: Kind.SOFT_LABEL if name == "labels" else Kind.INDEX
            for name in new["metadata"]["numbers"]
        }
        new["metadata"] = new["metadata"] | {"kinds": kinds}
    return new


def _with_present_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {_FIELDS.get(key, key): _with_present_names(item) for key, item in value.items()}
    return [_with_present_names(item) for item in value] if isinstance(value, list) else value


def with_sizes(meta: JsonMeta, metadata: Callable[[str], Mapping[str, Any] | None]) -> JsonMeta:
    """A meta.json that states the sizes of what was read, as an earlier evaluation did not.

    Args:
        meta: of an artefact, as `upgraded` gives it.
        metadata: of its input of a role; None where it has none, or where that is not at hand.
    """
    if meta["stage"] not in _SIZED or "sizes" in meta["metadata"]:
        return meta
    sizes = (metadata("student") or {}).get("sizes", {}) | stated_sizes(metadata)
    return meta | {"metadata": meta["metadata"] | {"sizes": sizes}}


def convert(meta: JsonMeta, source: Path, target: Path) -> JsonMeta:
    """Write the files of an artefact that another format stores otherwise.

    Args:
        meta: of the artefact, as `upgraded` gives it.
        source: its folder, left alone.
        target: an existing folder, which gets the files that change.

    Returns:
        The meta.json of the present format, with the sizes and checksums of the files in `target`;
        the other files are those of `source`.
    """
    if meta["format"] < FORMAT and meta["stage"] == "distill":
        meta = _convert_set(meta, source, target)
    if meta["stage"] == "data" and "warnings" not in meta["metadata"]:
        meta = meta | {"metadata": meta["metadata"] | {"warnings": [NOT_LOOKED_FOR]}}
    return meta | {"format": FORMAT}


def _convert_set(meta: JsonMeta, source: Path, target: Path) -> JsonMeta:
    from safetensors.numpy import load_file, save_file  # a plan does without

    tensors, sidecar = load_file(source / PARTS), json.loads((source / SIDECAR).read_text())
    if "parts" in sidecar:
        return meta
    changed = [PARTS, SIDECAR]
    layout = _layout(tensors)
    parts = {name: tensor for name, tensor in tensors.items() if name not in _FLAGS}
    kinds = {name: _KINDS.get(name, Kind.IMAGE) for name in parts}
    stated = {
        name: {"kind": kind, "derived": name in _DERIVED} for name, kind in sorted(kinds.items())
    }
    text = json.dumps(sidecar | {"layout": layout, "parts": stated}, indent=1, sort_keys=True)
    write_text(target / SIDECAR, text + "\n")
    write_file(target / PARTS, lambda aside: save_file(parts, aside))
    counted = {name: tensor for name, tensor in parts.items() if name not in _DERIVED}
    metadata = {
        "bytes": {name: tensor.nbytes for name, tensor in counted.items()},
        "numbers": {name: tensor.size for name, tensor in counted.items()},
        "kinds": {name: kinds[name] for name in counted},
    }
    if _META_STEPS in meta["files"]:
        header, rows = (source / _META_STEPS).read_text().split("\n", 1)
        table = f"{header.replace('offset', 'window_start')}\n{rows}"
        write_text(target / _META_STEPS, table)
        changed.append(_META_STEPS)
    files = {name: _recorded(target / name) for name in changed}
    return meta | {"metadata": meta["metadata"] | metadata, "files": meta["files"] | files}


def _layout(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the flags of format 1 say.

    They are a uint8 0 for no natural instances, and int16 numbers for PoDD's patches.
    """
    if "compensators" in tensors:
        return {"natural_instances": "natural_instances" not in tensors}
    if "patches" not in tensors:
        return {}
    columns, rows, side, cyclic, *reference = tensors["patches"].tolist()
    return {
        "columns": columns,
        "rows": rows,
        "side": side,
        "cyclic": bool(cyclic),
        "reference": bool(reference),
    }


def _recorded(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
