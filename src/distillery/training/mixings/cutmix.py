"""CutMix (Yun et al. 2019, Alg. A1): a box of each image comes from its partner."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from distillery.training.batches import Mixing
from distillery.training.mixings import mixup

NAMES = ("cutmix",)


def draw(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    """Draw lambda ~ Beta(alpha, alpha), a permutation and a box, one of each for the batch.

    The sides of the box are sqrt(1 - lambda) of the image's, its centre is uniform, and it is
    clipped at the border; lambda becomes the share of pixels that stay.
    """
    mixing, (height, width) = mixup.draw(alpha, images, generator), images.shape[2:]
    row, column = torch.rand(2, generator=generator).tolist()
    top, bottom = span(height, mixing.lam, row)
    left, right = span(width, mixing.lam, column)
    area = (bottom - top) * (right - left) / (height * width)
    return Mixing(1 - area, mixing.permutation, (top, bottom, left, right))


def span(length: int, lam: float, place: float) -> tuple[int, int]:
    """First pixel and end of one side of the box, on a side of `length` pixels.

    Args:
        length: of the image's side, in pixels.
        lam: lambda as drawn; the box's side is sqrt(1 - lam) of the image's.
        place: of the box's centre, in [0, 1).
    """
    half, centre = int(length * (1 - lam) ** 0.5) // 2, int(place * length)
    return max(centre - half, 0), min(centre + half, length)
