"""The images of a data artefact as tensors.

A small set is held in memory as a whole, of a large one only what is asked for is read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.utils.dlpack
from PIL import Image
from torch import Tensor

from distillery.data.columns import IMAGE, LABEL, ORIGINALS, split_file
from distillery.data.convert import MODES
from distillery.data.parallel import ordered_map
from distillery.errors import ArtefactError, ClassOrderError
from distillery.store.artefact import Artefact
from distillery.store.canonical import class_order_hash
from distillery.store.memory import fits

CACHED_GROUPS = 8
READ_ROWS = 1024


class ImageSet:
    """One split of a data artefact; everything lies on the CPU.

    Attributes:
        labels: (N,) int64.
        classes: names in label order.
        class_order: the hash of `classes`.
        mean: per channel, of training pixels in [0, 1].
        std: per channel, of training pixels in [0, 1].
        shape: (C, H, W) of an image.
        keeps_originals: whether the images are there at the sizes of the source, too.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, Any],
        limit: int | None = None,
        originals: Path | None = None,
    ):
        """Open a split.

        Args:
            path: parquet file as `stages.data` writes it.
            metadata: of the data artefact.
            limit: decoded bytes up to which all pixels are kept in memory; None: what fits
                (`store.memory`).
            originals: a file of the same images at the sizes of the source, if there is one.
        """
        channels, height, width = metadata["shape"]
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.class_order: str = metadata["class_order"]
        self.mean: tuple[float, ...] = tuple(metadata["mean"])
        self.std: tuple[float, ...] = tuple(metadata["std"])
        self.shape: tuple[int, int, int] = (channels, height, width)
        self._rows = _EncodedRows(path)
        self._originals = None if originals is None else _EncodedRows(originals)
        self.keeps_originals: bool = originals is not None
        self._all: Tensor | None = None
        self.labels: Tensor = self._rows.labels()
        self._limit = limit

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def resident(self) -> bool:
        """Whether all pixels are kept in memory; decided when that is first asked."""
        size = len(self) * math.prod(self.shape)
        return fits(size) if self._limit is None else size <= self._limit

    def of_class(self, label: int) -> Tensor:
        """Indices (n,) int64, ascending, of the images with this label."""
        return (self.labels == label).nonzero().flatten()

    def pixels(self, indices: Tensor) -> Tensor:
        """Pixels of some images; a copy.

        A small set is decoded as a whole at the first call.

        Args:
            indices: (B,) int64, each in 0..N-1.

        Returns:
            (B, C, H, W) uint8, in the order of `indices`.

        Raises:
            IndexError: an index lies outside.
            ArtefactError: an image cannot be decoded.
        """
        indices = indices.cpu()
        if len(indices):
            self._check_range(int(indices.min()), int(indices.max()))
        if not self.resident:
            return self._decoded(self._rows.some(indices), len(indices))
        if self._all is None:
            with torch.inference_mode(False):  # they outlive whatever asked for them first
                self._all = self._decoded(self._rows.all(), len(self))
        return self._all.index_select(0, indices)

    def originals(self, indices: Tensor) -> Iterator[Tensor]:
        """Some images at the sizes that they have in the source, one by one.

        Where the data keep none, or had one size already, they are those of `pixels`.

        Args:
            indices: (B,) int64, each in 0..N-1.

        Yields:
            (C, h, w) uint8 each, in the order of `indices`.

        Raises:
            IndexError: an index lies outside.
            ArtefactError: an image cannot be decoded.
        """
        if self._originals is None:
            yield from self.pixels(indices)
            return
        indices = indices.cpu()
        if len(indices):
            self._check_range(int(indices.min()), int(indices.max()))
        channels, height, width = self.shape
        convert = partial(self._originals.decode, mode=MODES[channels])
        for image in ordered_map(convert, self._originals.some(indices), height * width):
            yield torch.from_numpy(np.array(image).reshape(*image.size[::-1], -1)).movedim(2, 0)

    def _check_range(self, lowest: int, highest: int) -> None:
        if not 0 <= lowest <= highest < len(self):
            raise IndexError(
                f"{self._rows.path}: image {lowest} to {highest} asked for, it has {len(self)}"
            )

    def _decoded(self, encoded: Iterator[tuple[int, bytes]], count: int) -> Tensor:
        """Pixels (count, C, H, W) of (row, encoded) pairs."""
        channels, height, width = self.shape
        images = np.empty((count, channels, height, width), np.uint8)

        def decode(numbered: tuple[int, bytes]) -> bytes:
            return self._rows.decode(numbered).tobytes()

        for i, pixels in enumerate(ordered_map(decode, encoded, height * width)):
            interleaved = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
            images[i] = interleaved.transpose(2, 0, 1)
        return torch.from_numpy(images)


class _EncodedRows:
    """The rows of a parquet file as `stages.data` writes it."""

    def __init__(self, path: Path):
        self.path = path
        self._file = pq.ParquetFile(path, memory_map=True)
        self._group_rows = self._file.metadata.row_group(0).num_rows
        self._group = lru_cache(CACHED_GROUPS)(self._read_group)

    def labels(self) -> Tensor:
        """(N,) int64."""
        column = self._file.read([LABEL])[LABEL].combine_chunks()
        return torch.utils.dlpack.from_dlpack(column).long()

    def decode(self, numbered: tuple[int, bytes], mode: str | None = None) -> Image.Image:
        """The image of a row; `mode`: what it is converted to."""
        row, encoded = numbered
        try:
            image = Image.open(io.BytesIO(encoded))
            image.load()
            return image.convert(mode) if mode else image
        except Exception as error:  # a broken file makes each format's decoder raise something else
            raise ArtefactError(
                f"{self.path} row {row}: unreadable image ({error}); delete the folder, run again"
            ) from None

    def all(self) -> Iterator[tuple[int, bytes]]:
        """All rows with their numbers."""
        batches = self._file.iter_batches(READ_ROWS, columns=[IMAGE])
        return enumerate(value.as_py() for batch in batches for value in batch[IMAGE])

    def some(self, indices: Tensor) -> Iterator[tuple[int, bytes]]:
        """Rows in the order of `indices`, each row group read once."""
        wanted = indices.tolist()
        # In ascending order, so that each row group is read once while it is cached.
        by_row = {
            row: self._group(row // self._group_rows)[row % self._group_rows].as_py()
            for row in sorted(set(wanted))
        }
        return ((row, by_row[row]) for row in wanted)

    def _read_group(self, group: int) -> pa.ChunkedArray:
        return self._file.read_row_group(group, [IMAGE])[IMAGE]


def load_images(artefact: Artefact, split: str, limit: int | None = None) -> ImageSet:
    """One split of a data artefact.

    Args:
        artefact: of the data stage.
        split: one of `data.columns.SPLITS`.
        limit: decoded bytes up to which all pixels are kept in memory; None: what fits.

    Raises:
        ArtefactError: the artefact has no such file.
        ClassOrderError: the recorded class order is not that of the recorded classes.
    """
    metadata = artefact.metadata
    if class_order_hash(metadata["classes"]) != metadata["class_order"]:
        raise ClassOrderError(
            f"{artefact.path}: its class order is not that of its class names; "
            f"delete it and run again"
        )
    keeps = split == "train" and metadata.get(ORIGINALS) is not None
    originals = artefact.file(split_file(ORIGINALS)) if keeps else None
    return ImageSet(artefact.file(split_file(split)), metadata, limit, originals)
