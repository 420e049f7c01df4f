"""Images as JPEG files, which the authors' code of SRe2L, CDA, RDED and INFER stores and trains on once decoded."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillery.data.parallel import ordered_map


def quantised(images: Tensor, quality: int | None) -> Tensor:
    """Images in [0, 1] as uint8 on the CPU: truncated where JPEG files follow (authors' code), rounded without a quality."""
    levels = images * 255
    return (levels if quality else levels.round()).to(torch.uint8).cpu()


def image_parts(images: Tensor, labels: Tensor, quality: int | None) -> dict[str, Tensor]:
    """The parts of a distilled set of plain images (N, C, H, W) uint8: lossless, or JPEG files of `quality` (1..100)."""
    return {
        "labels": labels,
        **({"images": images} if quality is None else encode([images], quality)),
    }


def encode(batches: Iterable[Tensor], quality: int) -> dict[str, Tensor]:
    """JPEG files of images (B, C, H, W) uint8 on the CPU, C being 1 or 3, as Pillow writes them (4:2:0 chroma).

    Parts: jpeg (bytes,) uint8, the files one after the other; jpeg_ends (N,) int64, where each ends.
    """
    write = partial(_file, quality=quality)
    files = [
        file for images in batches for file in ordered_map(write, images, images[0, 0].numel())
    ]
    ends = torch.tensor([len(file) for file in files]).cumsum(0)
    return {
        "jpeg": torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8),
        "jpeg_ends": ends,
    }


def _file(image: Tensor, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decoder(parts: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """From indices (B,) int64 to images (B, C, H, W) uint8 on their device, decoded when asked for."""
    jpeg, ends = parts["jpeg"].cpu().numpy(), parts["jpeg_ends"].tolist()
    starts = [0, *ends]

    def opened(index: int) -> Image.Image:
        return Image.open(io.BytesIO(jpeg[starts[index] : ends[index]]))

    def pixels(index: int) -> Tensor:
        return torch.from_numpy(np.atleast_3d(np.array(opened(index)))).permute(2, 0, 1)

    width, height = opened(0).size
    return lambda indices: torch.stack(
        list(ordered_map(pixels, indices.tolist(), width * height))
    ).to(indices.device)
