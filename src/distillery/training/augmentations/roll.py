"""Shift the whole batch cyclically."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

NAMES = ("roll", "centred-roll")
TRAITS = {"parameter": "natural"}  # the longest shift, in pixels


def apply(name: str, images: Tensor, generator: Generator, parameter: int) -> Tensor:
    """Shift all images down and right by the same two integers.

    "roll": uniform in 0..parameter (INFER's and SRe2L's code); "centred-roll": uniform in
    -parameter..parameter (SRe2L's code for Tiny-ImageNet).
    """
    least = 0 if name == "roll" else -parameter
    shifts = torch.randint(least, parameter + 1, (2,), generator=generator).tolist()
    return images.roll(shifts, (2, 3))
