"""Write the parquet file of a split, so that a killed job goes on after the last rows it saved.

Converting ImageNet takes hours. The file grows in the job's scratch folder; what it was when its
state was last saved is what counts. Parquet puts the places of all rows at its end, when the file
is closed. They follow from the sizes of the images alone, without statistics and dictionaries: a
job that goes on hands its writer images of the same sizes, and throws away what the writer writes
until it comes to the end of what is there.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distillery.data.columns import IMAGE, LABEL, split_file
from distillery.store.checkpoint import AT_END, Checkpoint, same_form

if TYPE_CHECKING:
    from distillery.data.convert import Canonical, Form
    from distillery.data.findings import Findings
    from distillery.store.job import Job

SCHEMA = pa.schema(
    [pa.field(IMAGE, pa.binary(), nullable=False), pa.field(LABEL, pa.int32(), nullable=False)]
)
# Of a row group, decoded: what one random access to a large set reads.
GROUP_ROWS, GROUP_BYTES = 5000, 4 << 20


class GrowingFile(io.RawIOBase):
    """A file that is written on from its `length`; what comes before that is thrown away."""

    def __init__(self, file: Path | None, length: int):
        """Open `file`, which is that long or longer, and cut it to the length.

        None: all is thrown away.
        """
        super().__init__()
        place = Path(os.devnull) if file is None else file
        self._file: BinaryIO = place.open("r+b" if length else "wb")
        if file is not None:
            self._file.truncate(length)
        self._file.seek(length)
        self._length, self._place = length, 0

    def write(self, data: Any) -> int:
        """Take the next bytes."""
        view = memoryview(data).cast("B")
        known = min(len(view), max(0, self._length - self._place))
        self._file.write(view[known:])
        self._place += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes that were taken."""
        return self._place

    def writable(self) -> bool:
        """It is."""
        return True

    def sync(self) -> None:
        """Have what was taken put on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@dataclass
class Written:
    """What is known of the rows of a split that are written.

    Attributes:
        per_class: images per class, (classes,) int64.
        histogram: of the pixels, (C, 256) int64.
        findings: remarks on the images, and more.
        split: its name.
        sizes: of the images in the file, in bytes.
        length: of the file without its end, in bytes.
    """

    per_class: np.ndarray
    histogram: np.ndarray
    findings: Findings
    split: str
    sizes: array[int] = field(default_factory=lambda: array("i"))
    length: int = 0

    @classmethod
    def none(cls, split: str, form: Form, classes: int, findings: Findings) -> Written:
        """Before the first row."""
        counts = np.zeros(classes, np.int64), np.zeros((form.channels, 256), np.int64)
        return cls(*counts, findings, split)

    def add(self, group: Sequence[Canonical], length: int) -> None:
        """Take in a row group, with which the file is so long."""
        labels = [image.label for image in group]
        self.per_class += np.bincount(labels, minlength=len(self.per_class))
        _count_pixels(self.histogram, group)
        self.findings.add(self.split, group)
        self.sizes.extend(len(image.encoded) for image in group)
        self.length = length

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "per_class": torch.from_numpy(self.per_class),
            "histogram": torch.from_numpy(self.histogram),
            "findings": self.findings.state(self.split),
            "sizes": torch.from_numpy(np.array(self.sizes, np.int32)),
            "length": self.length,
        }

    def resume(self, stored: Mapping[str, Any] | None, file: Path, rows: int) -> None:
        """Go on with the file of an earlier run, if what its checkpoint holds fits it.

        Args:
            stored: what the checkpoint holds.
            file: what the earlier run wrote.
            rows: of a row group.
        """
        if stored is None or not self._is_of(stored):
            return
        sizes = stored["sizes"].tolist()
        if not file.is_file() or file.stat().st_size < stored["length"]:
            return
        if _length(sizes, rows) != stored["length"]:  # another version of the library wrote it
            return
        self.sizes.extend(sizes)
        self.per_class += stored["per_class"].numpy()
        self.histogram += stored["histogram"].numpy()
        self.findings.restore(self.split, stored["findings"])
        self.length = stored["length"]

    def _is_of(self, stored: Mapping[str, Any]) -> bool:
        sizes = stored.get("sizes")
        return (
            same_form(stored.get("per_class"), torch.from_numpy(self.per_class))
            and same_form(stored.get("histogram"), torch.from_numpy(self.histogram))
            and isinstance(sizes, torch.Tensor)
            and isinstance(stored.get("length"), int)
            and int(stored["per_class"].sum()) == len(sizes)
            and self.findings.is_state(stored.get("findings"), len(sizes))
        )


def write_split(
    job: Job,
    written: Written,
    images_from: Callable[[int], Iterator[Canonical]],
    count: int,
    form: Form,
) -> Path:
    """Write the parquet file of a split into the job's scratch folder.

    Args:
        job: gives the scratch folder and the progress bar.
        written: of no rows; afterwards of all.
        images_from: starts the images at a row.
        count: of the images.
        form: of the images.

    Returns:
        The file.
    """
    file, checkpoint = job.scratch / split_file(written.split), Checkpoint(job, written.split)
    rows = min(GROUP_ROWS, max(1, GROUP_BYTES // form.bytes))
    written.resume(checkpoint.load(), file, rows)
    with (
        GrowingFile(file, written.length) as sink,
        _writer(sink) as writer,
        job.progress(count, f"data {written.split}") as bar,
    ):

        def state() -> dict[str, Any]:
            sink.sync()
            return written.state()

        for table in _tables(written.sizes, rows):
            writer.write_table(table, row_group_size=rows)
        bar.update(len(written.sizes))
        for group in _groups(images_from(len(written.sizes)), rows):
            columns = [[image.encoded for image in group], [image.label for image in group]]
            writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=rows)
            written.add(group, sink.tell())
            bar.update(len(group))
            checkpoint.offer(state, math.inf if len(written.sizes) < count else AT_END)
    return file


def _writer(sink: Any) -> pq.ParquetWriter:
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    return pq.ParquetWriter(sink, SCHEMA, **options)


def _tables(sizes: Sequence[int], rows: int) -> Iterator[pa.Table]:
    """Row groups of images of these sizes, all bytes 0, and labels 0."""
    for start in range(0, len(sizes), rows):
        ends = np.cumsum([0, *sizes[start : start + rows]], dtype=np.int32)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(bytes(int(ends[-1])))]
        images = pa.Array.from_buffers(pa.binary(), len(ends) - 1, buffers)
        labels = pa.array(np.zeros(len(images), np.int32))
        yield pa.table([images, labels], schema=SCHEMA)


def _length(sizes: Sequence[int], rows: int) -> int:
    """Bytes of a file with images of these sizes, without its end."""
    with GrowingFile(None, 0) as counter, _writer(counter) as writer:
        for table in _tables(sizes, rows):
            writer.write_table(table, row_group_size=rows)
        return counter.tell()


def _groups(images: Iterable[Canonical], rows: int) -> Iterator[list[Canonical]]:
    images = iter(images)
    while group := list(itertools.islice(images, rows)):
        yield group


def _count_pixels(histogram: np.ndarray, group: Sequence[Canonical]) -> None:
    joined = b"".join(image.pixels for image in group)
    pixels = np.frombuffer(joined, np.uint8).reshape(-1, len(histogram))
    for channel, counts in enumerate(histogram):
        counts += np.bincount(pixels[:, channel], minlength=256)
