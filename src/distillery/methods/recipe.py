"""Recipe fields that several methods share."""

from __future__ import annotations

from dataclasses import dataclass

from distillery.recipe import Count, Fraction, NonNegative, Positive, Quality


@dataclass(frozen=True)
class Recovery:
    """Recovery of images from noise; the defaults are those of SRe2L's code for CIFAR-100.

    teachers: network names; the first recovers. iterations: steps per batch. lr: of Adam, falling as a cosine to 0. r_bn:
    weight of the BN loss. first_bn_weight: weight of the first layer within it. augment: names of training.augment. batch:
    classes per batch, one image of each; the feature statistics are the batch's. micro_batch: images of a batch per forward
    pass (None: all), same gradient for less memory. together: batches optimised side by side, same result up to rounding.
    jpeg: quality of the JPEG files that are stored, 75 in the authors' code; None stores without loss.
    """

    teachers: tuple[str, ...]
    iterations: Count = 1000
    lr: Positive = 0.25
    betas: tuple[Fraction, Fraction] = (0.5, 0.9)
    r_bn: NonNegative = 0.01
    first_bn_weight: NonNegative = 10.0
    augment: tuple[str, ...] = ("roll:4",)
    batch: Count = 100
    micro_batch: Count | None = None
    together: Count = 1
    jpeg: Quality | None = None
