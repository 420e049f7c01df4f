"""Random boxes in images, to be cut out and resized."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

RATIO = (3 / 4, 4 / 3)
TRIES = 10


def draw_boxes(
    count: int,
    shape: Sequence[int],
    generator: Generator,
    smallest: float,
    ratios: tuple[float, float] = RATIO,
) -> tuple[Tensor, Tensor]:
    """Draw random boxes as torchvision's RandomResizedCrop does.

    A box's share of the area is uniform in [smallest, 1], its ratio width/height log-uniform in
    `ratios`, its sides are rounded to pixels and its place is uniform. Of ten boxes the first that
    fits is used; when none does, the largest whose ratio is allowed (of a square image: all of it).

    Args:
        count: how many boxes.
        shape: (H, W) of the images.
        generator: a CPU generator.
        smallest: the smallest share of the area, in [0, 1].
        ratios: the smallest and the largest ratio of width to height.

    Returns:
        Start and size, each (2, count) float, in whole pixels, row then column.
    """
    height, width = shape
    share = torch.empty(count, TRIES).uniform_(smallest, 1, generator=generator)
    ratio = torch.empty(count, TRIES).uniform_(*map(math.log, ratios), generator=generator).exp()
    tries = (height * width * share * torch.stack([1 / ratio, ratio])).sqrt().round()
    largest = torch.tensor(
        [min(height, round(width / ratios[0])), min(width, round(height * ratios[1]))],
        dtype=tries.dtype,
    )
    # (2, count, TRIES + 1): the last candidate always fits.
    sides = torch.cat([tries, largest.view(2, 1, 1).expand(2, count, 1)], 2)
    limit = torch.tensor([height, width]).view(2, 1, 1)
    fits = ((sides >= 1) & (sides <= limit)).all(0)
    first = fits.byte().argmax(1)  # of equal values argmax takes the first
    size = sides[:, torch.arange(count), first]
    room = limit.view(2, 1) - size + 1
    return (torch.rand(size.shape, generator=generator) * room).floor(), size
