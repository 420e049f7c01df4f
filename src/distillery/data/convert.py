"""Bring an image into the form that all images of a data set have.

Images that have it already keep their bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from distillery.data.source import Item
from distillery.errors import DataError

MODES = {1: "L", 3: "RGB"}
GREY = ("1", "L", "LA")
# Pillow widens the filter by the scale when it shrinks, which others call antialias.
BILINEAR = Image.Resampling.BILINEAR


class Canonical(NamedTuple):
    """An image as it is stored.

    Attributes:
        encoded: the image file.
        pixels: decoded, H x W x C bytes, row by row.
        label: index of its class.
        origin: where it came from.
        content: a 64-bit hash of the pixels; equal images have equal ones.
        remarks: what was found and not acted on: names in `findings.REMARKS`.
    """

    encoded: bytes
    pixels: bytes
    label: int
    origin: str = ""
    content: int = 0
    remarks: tuple[str, ...] = ()


def stretch(image: Image.Image, size: int) -> Image.Image:
    """Resize to exactly `size` x `size`, whatever the proportions."""
    return image.resize((size, size), BILINEAR)


def crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to round(256 size / 224), then cut out size x size at the centre.

    This is ImageNet's test transform in torchvision.
    """
    shorter = round(size * 256 / 224)
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), BILINEAR).crop((left, top, left + size, top + size))


FITS: dict[str, Callable[[Image.Image, int], Image.Image]] = {"stretch": stretch, "crop": crop}


ORIENTATION = 0x0112  # the EXIF tag; 1: as it is stored
UPRIGHT = (None, 1)


def decode(item: Item) -> Image.Image:
    """The picture of `item`, fully decoded, as it is stored.

    Raises:
        DataError: it is empty or broken, or has more than 8 bits per channel.
    """
    if item.image == b"":
        raise DataError(f"{item.origin}: is empty, 0 bytes; replace or remove it")
    try:
        image = Image.open(io.BytesIO(item.image)) if isinstance(item.image, bytes) else item.image
        image.load()
    except UnidentifiedImageError:  # its own message says no more, and names a memory address
        raise DataError(
            f"{item.origin}: not an image of a known format; replace or remove it"
        ) from None
    except Exception as error:  # each format's decoder raises something else
        reason = str(error) or type(error).__name__
        raise DataError(f"{item.origin}: a broken image ({reason}); replace or remove it") from None
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{item.origin}: has more than 8 bits per channel (mode {image.mode}); convert it to 8"
        )
    return image


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an image, 1 to 8; None where it has none that can be read."""
    with suppress(Exception):  # broken tags of a picture that can be decoded say nothing
        found = image.getexif().get(ORIENTATION)
        return found if found in range(1, 9) else None
    return None


def is_transparent(image: Image.Image) -> bool:
    """Whether a pixel of an image is not fully opaque."""
    if not image.has_transparency_data:
        return False
    opacity = image.convert("RGBA").getchannel("A").histogram()
    return any(opacity[:255])


def flattened(image: Image.Image, colour: str) -> Image.Image:
    """An image in RGB, or grey if it was, over a background of `colour`, "black" or "white"."""
    over = Image.alpha_composite(Image.new("RGBA", image.size, colour), image.convert("RGBA"))
    return over.convert("L" if image.mode in GREY else "RGB")


@dataclass(frozen=True)
class Treatment:
    """What is done about properties of an image that others might read differently.

    Attributes:
        orientation: "obey": the image is turned as its EXIF tag says; "ignore": it is not; None: it
            is not, and a remark says so.
        transparency: "black" or "white": what lies behind transparent pixels; "drop": the colours
            stored there, whatever they are; "refuse": an error; None: as "drop", with a remark.
    """

    orientation: str | None = None
    transparency: str | None = None

    def apply(self, image: Image.Image, origin: str) -> tuple[Image.Image, tuple[str, ...]]:
        """A decoded image so treated, itself where nothing is done, and remarks.

        Raises:
            DataError: it is transparent, which is to be refused.
        """
        remarks = []
        if getattr(image, "is_animated", False):
            remarks.append("frames")
        if orientation(image) not in UPRIGHT:
            if self.orientation == "obey":
                image = ImageOps.exif_transpose(image)
            elif self.orientation is None:
                remarks.append("orientation")
        if self.transparency != "drop" and is_transparent(image):
            if self.transparency == "refuse":
                raise DataError(
                    f"{origin}: is partly transparent; replace it, or set `transparency` "
                    f"to black, white or drop"
                )
            if self.transparency is None:
                remarks.append("transparency")
            else:
                image = flattened(image, self.transparency)
        return image, tuple(remarks)


@dataclass(frozen=True)
class Form:
    """What every image becomes: square, with channels of 8 bits.

    Attributes:
        size: height and width in pixels.
        channels: 1 or 3.
        resizes: whether the recipe states the size, so that images of another size are resized;
            otherwise the first training image sets it, and an image of another size is an error.
        recolours: whether the recipe states the channels, so that images are converted; otherwise
            the first training image sets them, and a colour image in a grey set is an error.
        treatment: what is done about orientation tags and transparency.
    """

    size: int
    channels: int
    resizes: bool
    recolours: bool
    treatment: Treatment = Treatment()

    @classmethod
    def of(
        cls,
        first: Image.Image,
        origin: str,
        size: int | None,
        channels: int | None,
        treatment: Treatment = Treatment(),
    ) -> Form:
        """The form that a recipe states, completed from an image.

        Args:
            first: the first training image.
            origin: where it came from, for error messages.
            size: stated height and width in pixels, if any.
            channels: stated channels, 1 or 3, if any.
            treatment: of every image.

        Raises:
            DataError: the image is not square, and no size is stated.
        """
        if size is None and first.width != first.height:
            raise DataError(
                f"{origin}: is {first.width}x{first.height} pixels, not square; "
                f"set `size` for this data set"
            )
        own_channels = 1 if first.mode in GREY else 3
        return cls(
            size=size or first.width,
            channels=channels or own_channels,
            resizes=size is not None,
            recolours=channels is not None,
            treatment=treatment,
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
        """`item` in this form.

        The encoded file stays as it is where the picture already has the form, else it is a new
        PNG. Without a `treatment` transparency is dropped and orientation tags are not obeyed.
        Deviation: an image of the right size is never cropped, where torchvision would enlarge and
        crop it.

        Args:
            item: an image of the source.
            fit: the name in `FITS` of how an image of another size is resized.

        Raises:
            DataError: as `decode`; and for an image that differs from the first where the recipe
                does not say what to do.
        """
        original, image, remarks = self._treated(item)
        self._check(item.origin, image)
        if image.mode != MODES[self.channels]:
            image = image.convert(MODES[self.channels])
        if image.size != (self.size, self.size):
            image = FITS[fit](image, self.size)
        pixels = image.tobytes()
        content = int.from_bytes(hashlib.blake2b(pixels, digest_size=8).digest(), "big")
        encoded = _encoded(item, image, image is original)
        return Canonical(encoded, pixels, item.label, item.origin, content, remarks)

    def original(self, item: Item) -> Canonical:
        """`item` at its own size, treated: without pixels, content and remarks.

        The encoded file stays as it is unless the treatment changes the picture.

        Raises:
            DataError: as `decode`.
        """
        original, image, _ = self._treated(item)
        if image is not original:
            image = image.convert(MODES[self.channels])
        return Canonical(_encoded(item, image, image is original), b"", item.label, item.origin)

    def _treated(self, item: Item) -> tuple[Image.Image, Image.Image, tuple[str, ...]]:
        original = decode(item)
        return original, *self.treatment.apply(original, item.origin)

    def _check(self, origin: str, image: Image.Image) -> None:
        if not self.resizes and image.size != (self.size, self.size):
            raise DataError(
                f"{origin}: is {image.width}x{image.height} pixels, the images before it are "
                f"{self.size}x{self.size}; set `size` for this data set"
            )
        if not self.recolours and self.channels == 1 and image.mode not in GREY:
            raise DataError(
                f"{origin}: is in colour, the images before it are grey; "
                f"set `channels` to 3 or 1 for this data set"
            )


def _encoded(item: Item, image: Image.Image, same: bool) -> bytes:
    """The file of an item where the image is the `same` as it holds, else a new PNG."""
    return item.image if same and isinstance(item.image, bytes) else _png(image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # Level 1 is four times faster than the default at 224 pixels, and the file 8 % larger.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
