"""Images as JPEG files, which the authors' code of SRe2L, CDA, RDED and INFER stores.

Their students train on what the files decode to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillery.data.parallel import ordered_map
from distillery.errors import SetError
from distillery.sets.parts import SLACK, Kind, Part


def quantised(images: Tensor, quality: int | None) -> Tensor:
    """Images as 8-bit levels.

    Args:
        images: float in [0, 1], of any shape.
        quality: of the JPEG files that follow; None: none follow.

    Returns:
        uint8 on the CPU: truncated where JPEG files follow (authors' code), rounded otherwise.

    Raises:
        SetError: a value is NaN or lies outside, and would become any level at all.
    """
    low, high = (float(bound) for bound in images.aminmax()) if images.numel() else (0.0, 0.0)
    if not -SLACK <= low <= high <= 1 + SLACK:  # NaN fails every comparison
        raise SetError(
            f"pixels from {low:.4g} to {high:.4g}: cannot be stored as 8-bit levels; "
            f"denormalise them to [0, 1] and clamp them, or look for what made them NaN"
        )
    levels = images * 255
    return (levels if quality else levels.round()).to(torch.uint8).cpu()


def image_parts(images: Tensor, labels: Tensor, quality: int | None) -> dict[str, Part]:
    """The parts of a distilled set of plain images.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, which follow from the order of the images.
        quality: of JPEG files, 1..100; None stores the images without loss.

    Returns:
        `labels`, and `images` or the parts of `encode`.
    """
    stored = {"images": Part(images, Kind.IMAGE)} if quality is None else encode([images], quality)
    return {"labels": Part(labels, Kind.HARD_LABEL, derived=True), **stored}


def encode(batches: Iterable[Tensor], quality: int) -> dict[str, Part]:
    """JPEG files of images, as Pillow writes them (4:2:0 chroma).

    Args:
        batches: of images (B, C, H, W) uint8 on the CPU, C being 1 or 3.
        quality: 1..100.

    Returns:
        `jpeg` (bytes,) uint8, the files one after the other; `jpeg_ends` (N,) int64, where each
        ends.
    """
    write = partial(_file, quality=quality)
    files = [
        file for images in batches for file in ordered_map(write, images, images[0, 0].numel())
    ]
    content = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
    ends = torch.tensor([len(file) for file in files]).cumsum(0)
    return {
        "jpeg": Part(content, Kind.IMAGE),
        "jpeg_ends": Part(ends, Kind.INDEX, derived=True),
    }


def _file(image: Tensor, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decoder(jpeg: Tensor, ends: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that decodes the images it is asked for.

    Args:
        jpeg: (bytes,) uint8, the files one after the other.
        ends: (N,) int64, where each ends.

    Returns:
        A function from indices (B,) int64 to images (B, C, H, W) uint8 on the indices' device.
    """
    content, starts = jpeg.cpu().numpy(), [0, *ends.tolist()]

    def opened(index: int) -> Image.Image:
        return Image.open(io.BytesIO(content[starts[index] : starts[index + 1]].data))

    def pixels(index: int) -> Tensor:
        return torch.from_numpy(np.atleast_3d(np.array(opened(index)))).permute(2, 0, 1)

    width, height = opened(0).size
    return lambda indices: torch.stack(
        list(ordered_map(pixels, indices.tolist(), width * height))
    ).to(indices.device)
