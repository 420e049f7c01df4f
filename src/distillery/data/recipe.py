"""The recipe of a data set: which source, and what its images become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distillery.components.fields import Count, Positive

Way = Literal["stretch", "crop"]


@dataclass(frozen=True)
class Fit:
    """How an image of another size becomes `size` x `size`, per split: `data.convert.FITS`."""

    train: Way = "stretch"
    test: Way = "stretch"


@dataclass(frozen=True)
class Recipe:
    """A data set.

    source: "kind:place", read by `data/source_<kind>.py`; the planner keeps the place of a source on disk out of the identity.
    digest: of the source's content (`data.digest.source_digest`).
    size: height and width in pixels; None: the images' own, which must then be square and the same for all. fit: read only
    where a size is stated. channels: 1 grey, 3 RGB; None: grey when the first training image is, RGB otherwise.
    mean, std: per channel, of pixels in [0, 1]; None: measured over the training pixels.
    """

    source: str
    digest: str
    size: Count | None = None
    fit: Fit = Fit()
    channels: Literal[1, 3] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
