"""The data stage: any source becomes one parquet file per split, of images of one form."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distillery.components import registry
from distillery.components.fields import Count, Positive, read
from distillery.data import checks
from distillery.data.columns import CLASSES, ORIGINALS, SPLITS, split_file
from distillery.data.convert import Canonical, Form, Treatment, decode
from distillery.data.digest import folder_digest
from distillery.data.expected import contradiction
from distillery.data.findings import Findings
from distillery.data.parallel import ordered_map
from distillery.data.source import Item, Source, Split, open_source, parse
from distillery.data.write import Written, write_split
from distillery.errors import DataError
from distillery.store.atomic import copier
from distillery.store.canonical import class_order_hash

if TYPE_CHECKING:
    from distillery.store.job import Job


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
        orientation: whether an image is turned as its EXIF tag says ("obey") or not ("ignore");
            None: it is not, and a warning says how many have one.
        originals: "keep": the training images are stored at their own size, too, for methods that
            cut crops out of them (RDED, G-VBSM); read only where a size is stated.
        transparency: what is behind transparent pixels: "black", "white", or the colours that are
            stored there ("drop"); "refuse": such an image is an error; None: as "drop", and a
            warning says how many there are.
    """

    source: str
    digest: str
    size: Count | None = None
    fit: FitRecipe = FitRecipe()
    channels: Literal[1, 3] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    orientation: Literal["obey", "ignore"] | None = None
    transparency: Literal["black", "white", "drop", "refuse"] | None = None
    originals: Literal["keep"] | None = None


EXPECTED = (
    "expected"  # of a job's recipe: what the scale says of the data (`expected.contradiction`)
)


def make(job: Job) -> dict[str, Any]:
    """Write train.parquet, test.parquet, classes.json and, where they are kept, originals.parquet.

    Columns: `image`, an encoded file, and `label`, int32; rows in the source's order. All row
    groups of a file but the last have the same number of rows, at most 5000. Memory does not grow
    with the number of images. The recipe that a job gets has the place of a source on disk in
    `source`.

    Returns:
        classes; class_order; shape [C, H, W]; mean and std per channel of pixels in [0, 1]
        (population values over all training pixels, 6 digits, unless stated); counts and bytes (of
        the files) by split; per_class_train; raw_bytes (decoded training pixels); source; warnings
        (lines, which also go to the log); originals (bytes of that file), if it is there.

    Raises:
        DataError: the source is missing, changed since planning, unreadable, inconsistent, or not
            what the scale expects; the message names the file or row.
    """
    recipe = read(DataRecipe, {k: v for k, v in job.recipe.items() if k != EXPECTED})
    source = _opened(recipe, job.recipe.get(EXPECTED, {}))
    first = next(source.train.items())
    picture = decode(first)
    treatment = Treatment(recipe.orientation, recipe.transparency)
    form = Form.of(picture, first.origin, recipe.size, recipe.channels, treatment)
    pixels = picture.width * picture.height
    _check_stated(recipe, form)
    _check_expected(job.recipe.get(EXPECTED, {}), {"shape": list(form.shape)})
    findings = Findings()
    splits = {name: Written.none(name, form, len(source.classes), findings) for name in SPLITS}
    for name, written in splits.items():
        split, fit = getattr(source, name), getattr(recipe.fit, name)
        _write(job, written, source.classes, split, form, partial(form.apply, fit=fit), pixels)
        checks.check_no_class_empty(recipe.source, name, source.classes, written.per_class)
    kept = _write_originals(job, recipe, source, form, pixels)
    (job.out / CLASSES).write_text(json.dumps(source.classes) + "\n")
    return {
        "classes": list(source.classes),
        "class_order": class_order_hash(source.classes),
        "shape": list(form.shape),
        **_statistics(recipe, splits["train"].histogram),
        "counts": {"train": source.train.count, "test": source.test.count},
        "per_class_train": splits["train"].per_class.tolist(),
        "bytes": {split: (job.out / split_file(split)).stat().st_size for split in SPLITS},
        "raw_bytes": source.train.count * form.bytes,
        **kept,
        "source": _without_path(recipe.source),
        "warnings": _reported(findings.warnings(source), recipe.source),
    }


def _reported(warnings: list[str], source: str) -> list[str]:
    """Warnings for the metadata, without the place of the source; with it they go to the log."""
    for line in warnings:
        print(f"warning: {source}: {checks.printable(line)}", file=sys.stderr)
    place = parse(source)[1]
    return [checks.printable(line.replace(f"{place}/", "")) for line in warnings]


def _opened(recipe: DataRecipe, expected: Mapping[str, Any]) -> Source:
    kind, place = parse(recipe.source)
    if _is_on_disk(kind):
        _check_content(Path(place), recipe.digest)
    source = open_source(recipe.source)
    checks.check_names(recipe.source, source.classes)
    sizes = {"train": source.train.count, "test": source.test.count}
    _check_expected(expected, {"classes": len(source.classes), **sizes})
    checks.check_labels(recipe.source, source)
    return source


def _check_expected(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if problem := contradiction(expected, found):
        raise DataError(problem)


def _is_on_disk(kind: str) -> bool:
    return bool(registry.trait(registry.load("source", kind), "on_disk", False))


def _without_path(source: str) -> str:
    """The source as the metadata names it: equal on every machine."""
    kind, place = parse(source)
    return f"{kind}:{Path(place).name}" if _is_on_disk(kind) else source


def _write(
    job: Job,
    written: Written,
    classes: Sequence[str],
    split: Split,
    form: Form,
    convert: Callable[[Item], Canonical],
    pixels: int,
) -> None:
    """Write a split, whose images have about so many `pixels` before they are converted."""

    def images_from(row: int) -> Iterator[Canonical]:
        return ordered_map(convert, checks.checked(split.starting(row), classes), pixels)

    try:
        file = write_split(job, written, images_from, split.count, form)
    except DataError:  # with other images it is another job
        (job.scratch / split_file(written.split)).unlink(missing_ok=True)
        raise
    copier(file)(job.out / file.name)


def _write_originals(
    job: Job, recipe: DataRecipe, source: Source, form: Form, pixels: int
) -> dict[str, int]:
    """Write the training images at their own size, where they are to be kept and have another."""
    if recipe.originals is None or recipe.size is None:
        return {}
    findings = Findings((ORIGINALS,))
    written = Written.none(ORIGINALS, form, len(source.classes), findings)
    _write(job, written, source.classes, source.train, form, form.original, pixels)
    return {ORIGINALS: (job.out / split_file(ORIGINALS)).stat().st_size}


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


def _check_content(folder: Path, planned: str) -> None:
    present = folder_digest(folder)
    if present != planned:
        raise DataError(
            f"{folder}: content changed since planning (it was {planned}, it is {present}); "
            f"run the same command again, "
            f"after `dvc checkout` or `dvc add` when DVC tracks the folder"
        )


def _check_stated(recipe: DataRecipe, form: Form) -> None:
    for name in ("mean", "std"):
        stated = getattr(recipe, name)
        if stated is not None and len(stated) != form.channels:
            raise DataError(
                f"{recipe.source}: {name} has {len(stated)} values, "
                f"the images have {form.channels} channels; state one each"
            )
