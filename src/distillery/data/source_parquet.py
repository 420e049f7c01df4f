"""`parquet:DIR`: parquet files of encoded images and labels.

Their layout is our own or that of a Hugging Face data set.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.data.columns import CLASSES, IMAGE, LABEL, split_file
from distillery.data.digest import check_folder
from distillery.data.source import Item, Source, Split
from distillery.errors import DataError
from distillery.store.canonical import loads

NAMES = ("parquet",)
TRAITS = {"on_disk": True}
# The names that a split may have, in the order of trial.
SPLIT_NAMES = {"train": ("train",), "test": ("test", "val", "validation", "valid")}
READ_ROWS = 256  # in memory at a time


def read(place: str) -> Source:
    """The data set in folder `place`.

    Files: `train.parquet` and `test.parquet` (or val, validation, valid), or shards,
    `train-*.parquet`.
    Columns: `image`, the encoded file as binary or as Hugging Face's struct with `bytes`, and
    `label`, an integer. Class names come from classes.json (a list), else from Hugging Face's
    metadata in the schema, else they are "0", "1", ... Rows keep their order.

    Raises:
        DataError: something is missing, unreadable or inconsistent; the message names the file.
    """
    folder = Path(place)
    check_folder(folder, "parquet files")
    train, test = (_shards(folder, split) for split in ("train", "test"))
    labels = {"train": _labels(train), "test": _labels(test)}
    splits = _split("train", train, labels["train"]), _split("test", test, labels["test"])
    return Source(_classes(folder, train, labels["train"]), *splits)


def _split(name: str, shards: list[Path], labels: np.ndarray) -> Split:
    count = sum(_open(file).metadata.num_rows for file in shards)
    if count == 0:
        raise DataError(
            f"{shards[0]}: the {name} split has no rows; add images or take another file"
        )
    known = labels.tolist() if len(labels) == count else None  # a row without one is named later
    items = partial(_items, shards)
    return Split(count, items, known, items)


def _shards(folder: Path, split: str) -> list[Path]:
    names = SPLIT_NAMES[split]
    for name in names:
        whole, shards = folder / split_file(name), sorted(folder.glob(f"{name}-*.parquet"))
        if whole.is_file() and shards:
            raise DataError(
                f"{whole}: stands beside {shards[0].name}, which is of the same split; keep one"
            )
        if whole.is_file():
            return [whole]
        if shards:
            _check_complete(shards)
            _check_different(shards)
            return shards
    wanted = " or ".join(split_file(name) for name in names)
    raise DataError(f"{folder}: has no {split} split; add {wanted}")


def _check_complete(shards: list[Path]) -> None:
    stated = [file.stem.rpartition("-of-")[2] for file in shards]
    last = next((count for count in stated if count.isdigit()), "")
    if last and len(shards) != int(last):
        problem = "fetch the rest" if len(shards) < int(last) else "remove what is no part of it"
        raise DataError(
            f"{shards[-1]}: is one of {int(last)} shards, {len(shards)} are there; {problem}"
        )


def _check_different(shards: list[Path]) -> None:
    """Refuse a shard that is there twice; files of one size are compared by content."""
    sizes = defaultdict(list)
    for file in shards:
        sizes[file.stat().st_size].append(file)
    for files in sizes.values():
        seen: dict[bytes, Path] = {}
        for file in files if len(files) > 1 else []:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "md5").digest()
            if content in seen:
                raise DataError(
                    f"{file}: is the same as {seen[content].name}; remove it or fetch the right one"
                )
            seen[content] = file


def _open(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a readable parquet file ({error}); fetch it again") from None
    schema = opened.schema_arrow
    for column, fits in ((IMAGE, _holds_images), (LABEL, pa.types.is_integer)):
        if column not in schema.names:
            raise DataError(
                f"{file}: has no column '{column}' (it has {', '.join(schema.names)}); "
                f"rename the one you mean"
            )
        kind = schema.field(column).type
        if not fits(kind):
            images = "encoded images (binary, or a struct with 'bytes')"
            wanted = "integers" if column == LABEL else images
            raise DataError(f"{file}: column '{column}' is {kind}, expected {wanted}")
    return opened


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _batches(
    file: Path, columns: list[str], groups: list[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of some row groups; None: of all."""
    try:
        yield from _open(file).iter_batches(READ_ROWS, row_groups=groups, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: unreadable, probably cut off ({error}); fetch it again") from None


def _items(shards: list[Path], first: int = 0) -> Iterator[Item]:
    for file in shards:
        row, groups = _groups_with(file, first)
        for batch in _batches(file, [IMAGE, LABEL], groups):
            left = batch.slice(max(0, first - row))
            row += len(batch) - len(left)
            for image, label in zip(left[IMAGE], left[LABEL], strict=True):
                yield _item(image.as_py(), label.as_py(), f"{file} row {row}")
                row += 1
        first = max(0, first - _open(file).metadata.num_rows)


def _groups_with(file: Path, first: int) -> tuple[int, list[int]]:
    """The row groups that hold the rows from `first` on, and the first row of them."""
    metadata = _open(file).metadata
    start, groups = 0, list(range(metadata.num_row_groups))
    while groups and start + metadata.row_group(groups[0]).num_rows <= first:
        start += metadata.row_group(groups.pop(0)).num_rows
    return start, groups


def _item(image: bytes | dict[str, Any] | None, label: int | None, origin: str) -> Item:
    encoded = image.get("bytes") if isinstance(image, dict) else image
    if not encoded:
        raise DataError(
            f"{origin}: holds no image bytes; embed the images in the file, or drop the row"
        )
    if label is None:
        raise DataError(f"{origin}: has no label; add one, or drop the row")
    return Item(encoded, label, origin)


def _labels(shards: list[Path]) -> np.ndarray:
    columns = [
        batch[LABEL].drop_null().to_numpy(zero_copy_only=False)
        for file in shards
        for batch in _batches(file, [LABEL])
    ]
    return np.concatenate([np.zeros(0, np.int64), *(c.astype(np.int64) for c in columns)])


def _classes(folder: Path, shards: list[Path], labels: np.ndarray) -> tuple[str, ...]:
    """Names that fit the training labels: as many as there are labels, 0 to the highest."""
    highest = int(labels.max(initial=-1))
    listed = folder / CLASSES
    names = _listed(listed) if listed.is_file() else _described(shards[0])
    if names is None:
        if len(np.unique(labels[labels >= 0])) != highest + 1:
            raise DataError(
                f"{shards[0]}: labels up to {highest} with gaps between; "
                f"number the classes 0, 1, ..."
            )
        return tuple(str(label) for label in range(highest + 1))
    if len(names) != highest + 1:
        where = listed if listed.is_file() else f"{shards[0]} (its metadata)"
        raise DataError(
            f"{where}: lists {len(names)} classes, the training labels go up to {highest}; "
            f"list one name per label"
        )
    return tuple(names)


def _listed(file: Path) -> list[str]:
    try:
        names = loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error}); write a list of class names") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{file}: is not a list of class names, such as ["cat", "dog"]')
    return names


def _described(file: Path) -> list[str] | None:
    """Class names from the metadata that Hugging Face's library writes into the schema, if any."""
    try:
        described = loads((_open(file).schema_arrow.metadata or {})[b"huggingface"])
        return [str(name) for name in described["info"]["features"][LABEL]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
