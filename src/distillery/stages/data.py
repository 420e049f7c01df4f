"""The data stage: any source becomes one parquet file per split, of images of one form."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.components import registry
from distillery.components.fields import Count, Positive, read
from distillery.data.columns import CLASSES, IMAGE, LABEL, SPLITS, split_file
from distillery.data.convert import Canonical, Form, decode
from distillery.data.digest import folder_digest
from distillery.data.parallel import ordered_map
from distillery.data.source import Item, Source, Split, open_source, parse
from distillery.errors import DataError
from distillery.store.canonical import class_order_hash

if TYPE_CHECKING:
    from distillery.store.job import Job

SCHEMA = pa.schema(
    [pa.field(IMAGE, pa.binary(), nullable=False), pa.field(LABEL, pa.int32(), nullable=False)]
)
# Of a row group, decoded: what one random access to a large set reads.
GROUP_ROWS, GROUP_BYTES = 5000, 4 << 20


@dataclass(frozen=True)
class FitRecipe:
    """How an image of another size becomes `size` x `size`, per split: a name in `convert.FITS`.

    Attributes:
        train: for training images.
        test: for test images.
    """

    train: Literal["stretch", "crop"] = "stretch"
    test: Literal["stretch", "crop"] = "stretch"


@dataclass(frozen=True)
class DataRecipe:
    """A data set: which source, and what its images become.

    Attributes:
        source: "kind:place", read by `data/source_<kind>.py`; the planner keeps the place of a
            source on disk out of the identity.
        digest: of the content of a source on disk (`data.digest.place_digest`); other sources name
            a fixed release and are their own digest.
        size: height and width in pixels; None: the images' own, which must then be square and the
            same for all.
        fit: read only where a size is stated.
        channels: 1 grey, 3 RGB; None: grey when the first training image is, RGB otherwise.
        mean: per channel, of pixels in [0, 1]; None: measured over the training pixels.
        std: per channel, of pixels in [0, 1]; None: measured over the training pixels.
    """

    source: str
    digest: str
    size: Count | None = None
    fit: FitRecipe = FitRecipe()
    channels: Literal[1, 3] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None


def make(job: Job) -> dict[str, Any]:
    """Write train.parquet, test.parquet and classes.json.

    Columns: `image`, an encoded file, and `label`, int32; rows in the source's order. All row
    groups of a file but the last have the same number of rows, at most 5000. Memory does not grow
    with the number of images. The recipe that a job gets has the place of a source on disk in
    `source`.

    Returns:
        classes; class_order; shape [C, H, W]; mean and std per channel of pixels in [0, 1]
        (population values over all training pixels, 6 digits, unless stated); counts and bytes (of
        the files) by split; per_class_train; raw_bytes (decoded training pixels); source.

    Raises:
        DataError: the source is missing, changed since planning, unreadable or inconsistent; the
            message names the file or row.
    """
    recipe = read(DataRecipe, job.recipe)
    source = _opened(recipe)
    first = next(source.train.items())
    picture = decode(first)
    form = Form.of(picture, first.origin, recipe.size, recipe.channels)
    pixels = picture.width * picture.height
    _check_stated(recipe, form)
    per_class, histogram = _write(job, "train", source, form, recipe.fit.train, pixels)
    _check_no_class_empty(recipe.source, source.classes, per_class)
    _write(job, "test", source, form, recipe.fit.test, pixels)
    (job.out / CLASSES).write_text(json.dumps(source.classes) + "\n")
    return {
        "classes": list(source.classes),
        "class_order": class_order_hash(source.classes),
        "shape": list(form.shape),
        **_statistics(recipe, histogram),
        "counts": {"train": source.train.count, "test": source.test.count},
        "per_class_train": per_class.tolist(),
        "bytes": {split: (job.out / split_file(split)).stat().st_size for split in SPLITS},
        "raw_bytes": source.train.count * form.bytes,
        "source": _without_path(recipe.source),
    }


def _opened(recipe: DataRecipe) -> Source:
    kind, place = parse(recipe.source)
    if _is_on_disk(kind):
        _check_content(Path(place), recipe.digest)
    source = open_source(recipe.source)
    _check_names(recipe.source, source.classes)
    return source


def _is_on_disk(kind: str) -> bool:
    return bool(registry.trait(registry.load("source", kind), "on_disk", False))


def _without_path(source: str) -> str:
    """The source as the metadata names it: equal on every machine."""
    kind, place = parse(source)
    return f"{kind}:{Path(place).name}" if _is_on_disk(kind) else source


def _write(
    job: Job, name: str, source: Source, form: Form, fit: str, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Write the split `name`, whose images have about so many `pixels` before they are fitted.

    Returns images per class (classes,) and the histogram (C, 256) of its pixels, both int64.
    """
    split: Split = getattr(source, name)
    per_class = np.zeros(len(source.classes), np.int64)
    histogram = np.zeros((form.channels, 256), np.int64)
    rows = min(GROUP_ROWS, max(1, GROUP_BYTES // form.bytes))
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with (
        pq.ParquetWriter(job.out / split_file(name), SCHEMA, **options) as writer,
        job.progress(split.count, f"data {name}") as bar,
    ):
        items = _checked(split.items(), source.classes)
        images = ordered_map(lambda item: form.apply(item, fit), items, pixels)
        for group in _groups(images, rows):
            labels = [image.label for image in group]
            writer.write_table(
                pa.table([[image.encoded for image in group], labels], schema=SCHEMA),
                row_group_size=rows,
            )
            per_class += np.bincount(labels, minlength=len(per_class))
            _count_pixels(histogram, group)
            bar.update(len(group))
    return per_class, histogram


def _groups(images: Iterable[Canonical], rows: int) -> Iterator[list[Canonical]]:
    images = iter(images)
    while group := list(itertools.islice(images, rows)):
        yield group


def _count_pixels(histogram: np.ndarray, group: list[Canonical]) -> None:
    joined = b"".join(image.pixels for image in group)
    pixels = np.frombuffer(joined, np.uint8).reshape(-1, len(histogram))
    for channel, counts in enumerate(histogram):
        counts += np.bincount(pixels[:, channel], minlength=256)


def _statistics(recipe: DataRecipe, histogram: np.ndarray) -> dict[str, list[float]]:
    """The mean and std, stated or measured; a measured std of 0 could divide no image."""
    mean, std = _mean_and_std(histogram)
    if recipe.std is None and not all(std):
        raise DataError(
            f"{recipe.source}: all training pixels of a channel are equal (std {std}); "
            f"check the images or state std"
        )
    return {"mean": list(recipe.mean or mean), "std": list(recipe.std or std)}


def _mean_and_std(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Per channel, of values / 255, to 6 digits."""
    # From integer counts, so that the order of the images does not matter.
    values, total = np.arange(256) / 255, histogram.sum(1)
    mean = histogram @ values / total
    variance = (histogram * (values - mean[:, None]) ** 2).sum(1) / total
    return mean.round(6).tolist(), np.sqrt(variance).round(6).tolist()


def _checked(items: Iterator[Item], classes: tuple[str, ...]) -> Iterator[Item]:
    for item in items:
        if not 0 <= item.label < len(classes):
            raise DataError(
                f"{item.origin}: label {item.label} is not one of 0 to {len(classes) - 1}; "
                f"correct it or list its class"
            )
        yield item


def _check_content(folder: Path, planned: str) -> None:
    present = folder_digest(folder)
    if present != planned:
        raise DataError(
            f"{folder}: content changed since planning (it was {planned}, it is {present}); "
            f"run the same command again, "
            f"after `dvc checkout` or `dvc add` when DVC tracks the folder"
        )


def _check_names(source: str, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"{source}: has {len(classes)} class; a data set needs two or more")
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"{source}: {times} classes are named '{name}'; give each class a name of its own"
        )


def _check_no_class_empty(source: str, classes: tuple[str, ...], per_class: np.ndarray) -> None:
    if not per_class.all():
        raise DataError(
            f"{source}: class '{classes[per_class.argmin()]}' has no training images; "
            f"add some or remove the class"
        )


def _check_stated(recipe: DataRecipe, form: Form) -> None:
    for name in ("mean", "std"):
        stated = getattr(recipe, name)
        if stated is not None and len(stated) != form.channels:
            raise DataError(
                f"{recipe.source}: {name} has {len(stated)} values, "
                f"the images have {form.channels} channels; state one each"
            )
