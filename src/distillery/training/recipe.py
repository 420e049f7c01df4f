"""The recipe of one training run: teachers, experts and students all read this type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from distillery.components.fields import (
    Count,
    Decay,
    Fraction,
    Named,
    Natural,
    NonNegative,
    Positive,
)
from distillery.components.parameters import parse
from distillery.errors import PlanError

# Names of augmentations, in order, a parameter behind a colon. Those that work on pixels precede
# those that work on normalised images; the images are normalised in between.
Augmentations = Annotated[tuple[str, ...], Named("augmentation")]
# The same of images that are normalised before the first augmentation.
NormalisedAugmentations = Annotated[tuple[str, ...], Named("augmentation", any_order=True)]
BatchUpTo = tuple[tuple[Count, Count], ...]


@dataclass(frozen=True)
class Optimizer:
    """An optimiser; its file says which of these fields it reads.

    Attributes:
        name: of a file of `optimizers/`; `timm:<name>` is timm's.
        lr: learning rate.
        momentum: SGD's.
        nesterov: whether the momentum is Nesterov's.
        betas: Adam's and AdamW's.
        weight_decay: of the parameters that `decay` names.
        decay: "all" decays every parameter, "matrices" only those of two and more dimensions
            (SRe2L's ImageNet convention).
    """

    name: Annotated[str, Named("optimizer")] = "adamw"
    lr: Positive = 1e-3
    momentum: Fraction = 0.9
    nesterov: bool = False
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01
    decay: Literal["all", "matrices"] = "all"


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor per epoch, set before the epoch's first step.

    The warm-up comes first; the schedule is laid over the remaining epochs and counts from there.

    Attributes:
        name: of a file of `schedules/`, which defines the factor.
        warmup: epochs in which the factor rises linearly.
        warmup_start: the factor in the first of these.
        stretch: of "cosine": its half period, in lengths of the training.
        milestones: of "multistep": shares of the training after which the rate steps down.
        gamma: of "multistep": the factor of a step.
    """

    name: Annotated[str, Named("schedule")] = "cosine"
    warmup: Natural = 0
    warmup_start: Fraction = 0.01
    stretch: Positive = 1.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Positive = 0.1


@dataclass(frozen=True)
class Mix:
    """Mixing of every batch: one lambda, one permutation and at most one box for each.

    Attributes:
        name: of a file of `mixings/`.
        alpha: lambda ~ Beta(alpha, alpha).
    """

    name: Annotated[str, Named("mixing")] = "none"
    alpha: Positive = 0.8


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        epochs: passes over the training set.
        batch: samples per step; the last, smaller batch of an epoch is kept.
        optimizer: what takes the steps.
        schedule: of the learning rate.
        augment: names of files of `augmentations/`, which define them: "crop:4" zero-pads by 4
            pixels and crops back, "flip" mirrors with probability 1/2, "resized-crop" draws area
            0.08-1 ("resized-crop:0.5": 0.5-1) and ratio 3/4-4/3, "roll:4" shifts the batch
            cyclically by 0-4 pixels ("centred-roll:4": by -4 to 4), "patch-shuffle:2" permutes the
            columns, then the rows of a grid of 2 x 2 patches (RDED). "dsa:idc" is DSA as GIFT
            evaluates ("dsa:one", "dsa:all", "dsa:flip-rotate": other modes), after the images are
            normalised. "batch-" variants draw once for the batch.
        mix: mixing of the batches.
        precision: "fp32", or "bf16": networks (labellers too) under autocast, loss and test in
            fp32.
        test_every: epochs between two measurements of test accuracy; the last epoch is always
            measured and is the headline.
        micro_batch: samples per forward and backward pass (None: the whole batch), for less
            memory; their gradients add up to the batch's. Batch normalisation takes its statistics
            over each part: SRe2L's 2 x 512 is another recipe than 1024.
        batch_up_to: pairs (N, batch): a training set of up to N samples takes that batch, one
            above every N takes `batch`. GIFT's Table 11: (10, 10), (500, 50), (20000, 100), and
            batch 200.
    """

    epochs: Count
    batch: Count
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augmentations = ()
    mix: Mix = Mix()
    precision: Literal["fp32", "bf16"] = "fp32"
    test_every: Count = 10
    micro_batch: Count | None = None
    batch_up_to: BatchUpTo | None = None

    def mistake(self) -> tuple[str, str] | None:
        """The field that does not go with another one, and why; None where all is well."""
        if (warmup := self.schedule.warmup) >= self.epochs:
            return "schedule.warmup", f"{warmup}: leaves nothing of {self.epochs} epochs; lower it"
        bounds = [bound for bound, _ in self.batch_up_to or ()]
        if len(set(bounds)) < len(bounds):
            twice = max(bounds, key=bounds.count)
            return "batch_up_to", f"{bounds}: two batches up to {twice} samples; keep one of them"
        return None


def batch_size(count: int, batch: int, up_to: BatchUpTo | None) -> int:
    """Samples per step, by the fields `batch` and `batch_up_to` of `Training`.

    Args:
        count: samples of the training set.
        batch: of the recipe.
        up_to: pairs (N, batch) of the recipe, or None.
    """
    return min((pair for pair in up_to or () if count <= pair[0]), default=(count, batch))[1]


def split_at_normalisation(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The names of an `augment` before and after the images are normalised.

    Raises:
        PlanError: a name does not exist, its parameter is wrong, or one that works on pixels
            stands after one that works on normalised images.
    """
    late = [parse("augmentation", name).traits.get("normalised", False) for name in names]
    first = late.index(True) if True in late else len(names)
    if not all(late[first:]):
        wrong = names[late.index(False, first)]
        raise PlanError(
            f"'{wrong}' works on pixels, '{names[first]}' on normalised images: put '{wrong}' first"
        )
    return names[:first], names[first:]
