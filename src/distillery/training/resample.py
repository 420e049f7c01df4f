"""Resampling of images: matrix products and gathers.

They are deterministic on a GPU, backwards too, where torch's own are not. Places are pixel
coordinates: pixel i is the interval from i to i + 1, its centre i + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def separable(images: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear map of lines to both sides of images.

    Args:
        images: (..., H, W) float.
        resample: the map, of lines (1, n, length) to lines (1, n, new length). Its matrix is what
            it makes of the unit impulses.
    """
    rows, columns = (
        resample(torch.eye(n, dtype=images.dtype, device=images.device)[None])[0]
        for n in images.shape[-2:]
    )
    return rows.T @ images @ columns


def resize_boxes(
    images: Tensor, start: Tensor, size: Tensor, shape: Sequence[int] | None = None
) -> Tensor:
    """Cut a box out of each image and resize it, bilinearly and with antialiasing.

    Two matrix products, since a box is a separable map.

    Args:
        images: (B, C, H, W) float.
        start: (2, B) in pixels, row then column; (2, 1) for the same box in all images.
        size: of the boxes, as `start`.
        shape: (H, W) of the result; None: the image's.
    """
    boxes = zip(
        to_like(start, images),
        to_like(size, images),
        images.shape[2:],
        shape or images.shape[2:],
        strict=True,
    )
    rows, columns = (_interpolation(*box) for box in boxes)
    return rows @ images @ columns.transpose(2, 3)


def gather_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at the crossings of rows (B, h) and columns (B, w) of each image: (B, C, h, w)."""
    image, channel = (torch.arange(n, device=images.device) for n in images.shape[:2])
    return images[
        image[:, None, None, None],
        channel[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def at_lines(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate bilinearly at all crossings of some rows and columns; zeros outside.

    Args:
        images: (B, C, H, W) float.
        rows: (B, h); places along the height.
        columns: (B, w); places along the width.

    Returns:
        (B, C, h, w).
    """
    row_weights, column_weights = (
        _hats(to_like(places, images), n)[:, None]
        for places, n in zip((rows, columns), images.shape[2:], strict=True)
    )
    return row_weights @ images @ column_weights.transpose(2, 3)


def at_points(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate bilinearly at a place of its own for each pixel; zeros outside.

    Gathers the four neighbours, since a map such as a rotation is no matrix product of a useful
    size. The backward pass of an indexed tensor is deterministic where torch is set to be, as our
    jobs set it, on every device; that of grid_sample is not.

    Args:
        images: (B, C, H, W) float.
        rows: (B, h, w); places along the height.
        columns: (B, h, w); places along the width.

    Returns:
        (B, C, h, w), contiguous: the gather leaves the channels last, and in that layout a
        convolution's float32 second derivatives are several times noisier.
    """
    # In units of pixel centres; one step beyond the border is zero, so farther places may be, too.
    places = [
        to_like(p, images).sub(0.5).clamp(-1, n)
        for p, n in zip((rows, columns), images.shape[2:], strict=True)
    ]
    corners = [p.floor() for p in places]
    below, right = (p - corner for p, corner in zip(places, corners, strict=True))
    top, left = (corner.long() + 1 for corner in corners)  # the padding shifts indices by one
    padded = F.pad(images, (1, 2, 1, 2)).movedim(1, 3)
    image = torch.arange(len(images), device=images.device)[:, None, None]

    def line(row: Tensor) -> Tensor:
        return torch.lerp(padded[image, row, left], padded[image, row, left + 1], right[..., None])

    return torch.lerp(line(top), line(top + 1), below[..., None]).movedim(3, 1).contiguous()


def _interpolation(start: Tensor, size: Tensor, length: int, target: int) -> Tensor:
    """Weights (n, 1, target, length) that resize a stretch of each of n lines to `target` pixels.

    A triangle around each place, as wide as the box's pixels that fall into one.
    """
    start, size = start[:, None], size[:, None]
    pixels, places = (
        torch.arange(n, dtype=start.dtype, device=start.device) + 0.5 for n in (length, target)
    )
    inside = (pixels > start) & (pixels < start + size)
    width = (size / target).clamp(min=1)[:, :, None]
    weights = _hats(places * size / target + start, length, width)
    weights.mul_(inside[:, None])
    return weights.div_(weights.sum(2, keepdim=True))[:, None]


def _hats(places: Tensor, length: int, width: Tensor | float = 1.0) -> Tensor:
    """Weights (n, target, length) of a line's pixels at `places` (n, target).

    Triangles that reach `width` pixels each way.
    """
    pixels = torch.arange(length, dtype=places.dtype, device=places.device) + 0.5
    weights = pixels - places[:, :, None]  # in place from here: no copies
    return weights.abs_().div_(-width).add_(1).clamp_(min=0)


def to_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` on the device of `like` and, where it is of floats, in its number format."""
    return tensor.to(
        like.device, like.dtype if tensor.is_floating_point() else None, non_blocking=True
    )
