"""The images of a data artefact as tensors: all in memory where that is cheap, read at random from the file where it is not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from distillery.data.parallel import ordered_map
from distillery.errors import ArtefactError, ClassOrderError
from distillery.store.artefact import Artefact
from distillery.store.canonical import class_order_hash

RESIDENT_LIMIT = 2 << 30  # bytes of decoded pixels; CIFAR has 150 MB, ImageNet at 224 pixels 190 GB
CACHED_GROUPS = 8
READ = 1024  # rows


class ImageSet:
    """One split of a data artefact.

    labels: (N,) int64. classes: names in label order, `class_order` their hash. mean, std: per channel, of training pixels in
    [0, 1]. shape: (C, H, W). Everything lies on the CPU.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], limit: int = RESIDENT_LIMIT):
        """path: parquet file as `stages.data` writes it. limit: decoded bytes up to which all pixels are kept in memory."""
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.class_order: str = metadata["class_order"]
        self.mean: tuple[float, ...] = tuple(metadata["mean"])
        self.std: tuple[float, ...] = tuple(metadata["std"])
        self.shape: tuple[int, int, int] = tuple(metadata["shape"])
        self._path = path
        self._file = pq.ParquetFile(path, memory_map=True)
        self._group_rows = self._file.metadata.row_group(0).num_rows
        self._group = lru_cache(CACHED_GROUPS)(self._read_group)
        self._all: Tensor | None = None
        self.labels: Tensor = torch.from_dlpack(
            self._file.read(["label"])["label"].combine_chunks()
        ).long()
        channels, height, width = self.shape
        self.resident: bool = len(self) * channels * height * width <= limit

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, label: int) -> Tensor:
        """Indices (n,) int64, ascending, of the images with this label."""
        return (self.labels == label).nonzero().flatten()

    def pixels(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W) uint8 at `indices` (B,) int64, in that order; a copy.

        A small set is decoded whole at the first call and stays in memory; of a large one only what is asked for is read.
        Raises IndexError outside 0..N-1, ArtefactError when an image cannot be decoded.
        """
        indices = indices.cpu()
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(
                f"{self._path}: image {int(indices.min())} to {int(indices.max())} asked for, it has {len(self)}"
            )
        if not self.resident:
            return self._decoded(self._encoded(indices), len(indices))
        if self._all is None:
            self._all = self._decoded(self._all_encoded(), len(self))
        return self._all[indices]

    def _decoded(self, encoded: Iterator[tuple[int, bytes]], count: int) -> Tensor:
        """Pixels (count, C, H, W) of (row, encoded) pairs."""
        channels, height, width = self.shape
        found = np.empty((count, channels, height, width), np.uint8)
        for place, pixels in enumerate(ordered_map(self._decode, encoded, height * width)):
            found[place] = (
                np.frombuffer(pixels, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
            )
        return torch.from_numpy(found)

    def _decode(self, numbered: tuple[int, bytes]) -> bytes:
        row, encoded = numbered
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                return image.tobytes()
        except Exception as error:  # a broken file makes each format's decoder raise something else
            raise ArtefactError(
                f"{self._path} row {row}: unreadable image ({error}); delete the folder, run again"
            ) from None

    def _all_encoded(self) -> Iterator[tuple[int, bytes]]:
        batches = self._file.iter_batches(READ, columns=["image"])
        return enumerate(value.as_py() for batch in batches for value in batch["image"])

    def _encoded(self, indices: Tensor) -> Iterator[tuple[int, bytes]]:
        """Rows in the order of `indices`, each row group read once."""
        wanted = indices.tolist()
        found = {
            row: self._group(row // self._group_rows)[row % self._group_rows].as_py()
            for row in sorted(set(wanted))
        }
        return ((row, found[row]) for row in wanted)

    def _read_group(self, group: int) -> pa.ChunkedArray:
        return self._file.read_row_group(group, ["image"])["image"]


def load_images(artefact: Artefact, split: str, limit: int = RESIDENT_LIMIT) -> ImageSet:
    """The split "train" or "test" of a data artefact.

    Raises ArtefactError when the artefact has no such file, ClassOrderError when the recorded order is not that of its classes.
    """
    metadata = artefact.metadata
    if class_order_hash(list(metadata["classes"])) != metadata["class_order"]:
        raise ClassOrderError(
            f"{artefact.path}: its class order is not that of its class names; delete it and run again"
        )
    return ImageSet(artefact.file(f"{split}.parquet"), metadata, limit)
