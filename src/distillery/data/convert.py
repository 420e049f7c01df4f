"""Bring one image into the form all images of a data set have; those that have it keep their bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from distillery.data.recipe import Recipe
from distillery.data.source import Item
from distillery.errors import DataError

MODES = {1: "L", 3: "RGB"}
GREY = ("1", "L", "LA")
BILINEAR = (
    Image.Resampling.BILINEAR
)  # Pillow widens it by the scale when shrinking, which is what others call antialias


class Canonical(NamedTuple):
    """An image as it is stored: the encoded file, its decoded pixels (H x W x C bytes, row by row) and its label."""

    encoded: bytes
    pixels: bytes
    label: int


def stretch(image: Image.Image, size: int) -> Image.Image:
    """Resize to exactly `size` x `size`, whatever the proportions."""
    return image.resize((size, size), BILINEAR)


def crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to round(256 size / 224), then cut out the centre: ImageNet's test transform (torchvision)."""
    shorter = round(size * 256 / 224)
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), BILINEAR).crop((left, top, left + size, top + size))


FITS: dict[str, Callable[[Image.Image, int], Image.Image]] = {"stretch": stretch, "crop": crop}


def decode(item: Item) -> Image.Image:
    """The item's picture, fully decoded. Raises DataError when it is broken or has more than 8 bits per channel."""
    try:
        image = Image.open(io.BytesIO(item.image)) if isinstance(item.image, bytes) else item.image
        image.load()
    except UnidentifiedImageError:  # its own message says no more, and names a memory address
        raise DataError(
            f"{item.origin}: not an image of a known format; replace or remove it"
        ) from None
    except Exception as error:  # each format's decoder raises something else
        raise DataError(
            f"{item.origin}: a broken image ({error or type(error).__name__}); replace or remove it"
        ) from None
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{item.origin}: has more than 8 bits per channel (mode {image.mode}); convert it to 8"
        )
    return image


@dataclass(frozen=True)
class Form:
    """What every image becomes: size x size pixels with 1 or 3 channels of 8 bits.

    resizes, recolours: whether the recipe states the size and the channels, so that other images are converted; otherwise the
    first training image sets them, and an image of another size, or a colour image in a grey set, is an error.
    """

    size: int
    channels: int
    resizes: bool
    recolours: bool

    @classmethod
    def of(cls, first: Image.Image, origin: str, recipe: Recipe) -> Form:
        """The form that `recipe` states, completed from the first training image, which `origin` names.

        Raises DataError when that image is not square and no size is stated.
        """
        if recipe.size is None and first.width != first.height:
            raise DataError(
                f"{origin}: is {first.width}x{first.height} pixels, not square; set `size` for this data set"
            )
        channels = recipe.channels or (1 if first.mode in GREY else 3)
        return cls(
            recipe.size or first.width,
            channels,
            recipe.size is not None,
            recipe.channels is not None,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size

    @property
    def bytes(self) -> int:
        """Bytes of the decoded pixels of one image."""
        return self.channels * self.size * self.size

    def apply(self, item: Item, fit: str) -> Canonical:
        """`item` in this form; the encoded file stays as it is where the picture already has the form, else it is a new PNG.

        fit: the name in `FITS` of how another size is met. Transparency is dropped, orientation tags are not obeyed.
        Raises DataError as `decode`, and for an image that differs from the first where the recipe does not say what to do.
        Deviation: an image of the right size is never cropped, where torchvision would enlarge and crop it.
        """
        image = original = decode(item)
        self._check(item.origin, image)
        if image.mode != MODES[self.channels]:
            image = image.convert(MODES[self.channels])
        if image.size != (self.size, self.size):
            image = FITS[fit](image, self.size)
        untouched = image is original and isinstance(item.image, bytes)
        return Canonical(item.image if untouched else _png(image), image.tobytes(), item.label)

    def _check(self, origin: str, image: Image.Image) -> None:
        if not self.resizes and image.size != (self.size, self.size):
            raise DataError(
                f"{origin}: is {image.width}x{image.height} pixels, the images before it are {self.size}x{self.size}; "
                f"set `size` for this data set"
            )
        if not self.recolours and self.channels == 1 and image.mode not in GREY:
            raise DataError(
                f"{origin}: is in colour, the images before it are grey; set `channels` to 3 or 1 for this data set"
            )


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(
        file, "PNG", compress_level=1
    )  # four times faster than the default at 224 pixels, 8 % larger
    return file.getvalue()
