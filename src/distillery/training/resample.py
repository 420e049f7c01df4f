"""Resampling of images: matrix products and gathers, deterministic on a GPU, backwards too, where torch's own are not.

Places are pixel coordinates: pixel i is the interval from i to i + 1, its centre i + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def separable(images: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply the linear map `resample`, of lines (1, n, length) to lines (1, n, new length), to both sides.

    images: (..., H, W) float. The map's matrix is what it makes of the unit impulses.
    """
    rows, columns = (
        resample(torch.eye(n, dtype=images.dtype, device=images.device)[None])[0]
        for n in images.shape[-2:]
    )
    return rows.T @ images @ columns


def resize_boxes(
    images: Tensor, start: Tensor, size: Tensor, shape: Sequence[int] | None = None
) -> Tensor:
    """Cut a box out of each image and resize it, bilinearly and with antialiasing, to `shape` (H, W; None: the image's).

    start, size: (2, B) in pixels, row then column; (2, 1) for the same box in all images. Two matrix products, since a box is
    a separable map.
    """
    boxes = zip(
        move(start, images),
        move(size, images),
        images.shape[2:],
        shape or images.shape[2:],
        strict=True,
    )
    rows, columns = (_interpolation(*box) for box in boxes)
    return rows @ images @ columns.transpose(2, 3)


def at_lines(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, C, h, w), bilinear, at all crossings of the places rows (B, h) and columns (B, w); zeros outside."""
    rows, columns = (
        _hats(move(p, images), n)[:, None]
        for p, n in zip((rows, columns), images.shape[2:], strict=True)
    )
    return rows @ images @ columns.transpose(2, 3)


def at_points(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, C, h, w), bilinear, at a place of its own for each pixel: rows, columns (B, h, w); zeros outside.

    Gathers the four neighbours, since a map such as a rotation is no matrix product of a useful size. The backward pass of an
    indexed tensor is deterministic where torch is set to be, as our jobs set it, on every device; that of grid_sample is not.
    """
    places = [
        move(p, images).sub(0.5).clamp(-1, n)
        for p, n in zip((rows, columns), images.shape[2:], strict=True)
    ]
    corner = [p.floor() for p in places]
    (below, right), (top, left) = (
        [p - c for p, c in zip(places, corner, strict=True)],
        [c.long() + 1 for c in corner],
    )
    padded, image = (
        F.pad(images, (1, 2, 1, 2)).movedim(1, 3),
        torch.arange(len(images), device=images.device)[:, None, None],
    )

    def line(row: Tensor) -> Tensor:
        return torch.lerp(padded[image, row, left], padded[image, row, left + 1], right[..., None])

    return torch.lerp(line(top), line(top + 1), below[..., None]).movedim(3, 1)


def _interpolation(start: Tensor, size: Tensor, length: int, target: int) -> Tensor:
    """Weights (n, 1, target, length): a triangle around each place, as wide as the box's pixels that fall into one."""
    start, size = start[:, None], size[:, None]
    pixels, places = (
        torch.arange(n, dtype=start.dtype, device=start.device) + 0.5 for n in (length, target)
    )
    inside = (pixels > start) & (pixels < start + size)
    weights = _hats(
        places * size / target + start, length, (size / target).clamp(min=1)[:, :, None]
    )
    weights.mul_(inside[:, None])
    return weights.div_(weights.sum(2, keepdim=True))[:, None]


def _hats(places: Tensor, length: int, width: Tensor | float = 1.0) -> Tensor:
    """Weights (n, target, length) of a line's pixels at `places` (n, target): triangles that reach `width` pixels each way."""
    pixels = torch.arange(length, dtype=places.dtype, device=places.device) + 0.5
    weights = pixels - places[:, :, None]  # in place from here: no copies
    return weights.abs_().div_(-width).add_(1).clamp_(min=0)


def move(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` on the device of `like`, and of its number format where it is of floats."""
    return tensor.to(
        like.device, like.dtype if tensor.is_floating_point() else None, non_blocking=True
    )
