"""The recipe of one training run: teachers, experts and students all read this type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distillery.components.fields import Count, Fraction, Natural, NonNegative, Positive
from distillery.errors import PlanError

# What training.augment offers; here for the planner, which does not import torch.
AUGMENTATIONS = (
    "crop",
    "flip",
    "resized-crop",
    "roll",
    "centred-roll",
    "patch-shuffle",
    "batch-crop",
    "batch-flip",
    "batch-resized-crop",
    "dsa",
)
NORMALISED = (
    "dsa",
)  # those that work on normalised images, where 0 is the mean; the others on pixels, where 0 is black
BatchUpTo = tuple[tuple[Count, Count], ...]


@dataclass(frozen=True)
class Optimizer:
    """An optimiser of torch.optim. `momentum` is SGD's; `betas` are Adam's and AdamW's.

    decay: "all" decays every parameter, "matrices" only those of two and more dimensions (SRe2L's ImageNet convention).
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: Positive = 1e-3
    momentum: Fraction = 0.9
    nesterov: bool = False
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01
    decay: Literal["all", "matrices"] = "all"


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor per epoch e of E, set before the epoch's first step.

    "cosine": (1 + cos(pi e / (stretch E))) / 2, `stretch` 2 ending at one half (RDED). "multistep": times `gamma` from epoch
    floor(m E) on, for each m of `milestones`. "constant": 1. `warmup` epochs rise linearly from `warmup_start` first; the rest
    is laid over the remaining epochs: e and E count from there.
    """

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup: Natural = 0
    warmup_start: Fraction = 0.01
    stretch: Positive = 1.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Positive = 0.1


@dataclass(frozen=True)
class Mix:
    """Batch mixing, every batch: lambda ~ Beta(alpha, alpha), one lambda (and one box) and one permutation per batch."""

    name: Literal["none", "mixup", "cutmix"] = "none"
    alpha: Positive = 0.8


@dataclass(frozen=True)
class Training:
    """One training run.

    batch: samples per step; the last, smaller batch of an epoch is kept. augment: names of `training.augment`, in order, a
    parameter behind a colon: "crop:4" zero-pads by 4 pixels and crops back, "flip" mirrors with probability 1/2, "resized-crop"
    draws area 0.08-1 ("resized-crop:0.5": 0.5-1) and ratio 3/4-4/3, "roll:4" shifts the batch cyclically by 0-4 pixels
    ("centred-roll:4": by -4 to 4), "patch-shuffle:2" permutes the columns, then the rows of a grid of 2 x 2 patches (RDED).
    "dsa:idc" is DSA as GIFT evaluates ("dsa:one", "dsa:all", "dsa:flip-rotate": other modes), after the images are normalised.
    precision: "fp32", or "bf16": networks (labellers too) under autocast, loss and test in fp32.
    test_every: epochs between two measurements of test accuracy; the last epoch is always measured and is the headline.
    micro_batch: samples per forward and backward pass (None: the whole batch), for less memory; their gradients add up to the
    batch's. Batch normalisation takes its statistics over each part: SRe2L's 2 x 512 is another recipe than 1024.
    batch_up_to: pairs (N, batch): a training set of up to N samples takes that batch, one above every N takes `batch`. GIFT's
    Table 11: (10, 10), (500, 50), (20000, 100), and batch 200.
    """

    epochs: Count
    batch: Count
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: tuple[str, ...] = ()
    mix: Mix = Mix()
    precision: Literal["fp32", "bf16"] = "fp32"
    test_every: Count = 10
    micro_batch: Count | None = None
    batch_up_to: BatchUpTo | None = None


def batch_size(count: int, batch: int, up_to: BatchUpTo | None) -> int:
    """Samples per step of a training set of `count` samples, by the fields `batch` and `batch_up_to` of `Training`."""
    return min((pair for pair in up_to or () if count <= pair[0]), default=(count, batch))[1]


def split(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The names of an `augment` before and after the images are normalised.

    Raises PlanError when one that works on pixels stands after one of `NORMALISED`.
    """
    late = [name.partition(":")[0] in NORMALISED for name in names]
    first = late.index(True) if True in late else len(names)
    if not all(late[first:]):
        wrong = names[late.index(False, first)]
        raise PlanError(
            f"'{wrong}' works on pixels, '{names[first]}' on normalised images: put '{wrong}' first"
        )
    return names[:first], names[first:]
