"""INFER ("Breaking Class Barriers", ICLR 2025).

Real images, and Universal Feature Compensators that are each added to images of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.components.fields import Count, Decay, NonNegative, Positive, Precision, Quality
from distillery.errors import BudgetError
from distillery.methods.shared.recovery import TeacherObjective, augment_groups, in_groups, recover
from distillery.methods.shared.selection import draw
from distillery.sets.distilled import DistilledSet, Instances, stored_images
from distillery.sets.jpeg import encode, quantised
from distillery.sets.parts import Kind, Part
from distillery.training.normalise import normalise
from distillery.training.recipe import NormalisedAugmentations

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.data.images import ImageSet
    from distillery.store.checkpoint import Checkpoint
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("infer",)
TRAITS = {"needs": ("teachers",), "compensators": True}
BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """Paper section 4.1, Table 5; the defaults are CIFAR's.

    Attributes:
        teachers: the M networks f^j, one compensator u_j of each subset per network.
        iterations: steps per compensator.
        lr: lr_0 of Adam, falling as a cosine to 0.
        betas: of Adam.
        alpha: weight of the BN loss (paper silent; the authors' code: CIFAR 1, ImageNet 0.01).
        first_bn_weight: weight of the first layer within it.
        augment: names of training.augment; the authors' crops, flips and rolls are drawn once per
            step for the whole subset.
        natural_instances: whether the natural images (u = 0) are instances too, (M + 1)-fold as in
            the authors' code and the epochs of Table 5, or not, M-fold as in the paper's text.
        micro_batch: images of a subset per forward pass (None: all): the same gradient for less
            memory.
        parallel_groups: subsets optimised side by side: the same result up to rounding.
        jpeg: quality of JPEG files of all instances, stored in place of images and compensators as
            the authors' code does (75); None stores without loss.
        precision: of the teachers' passes: "fp32", or "bf16" under autocast. Images, statistics,
            losses and Adam are float32 all the same.
    """

    teachers: tuple[str, ...]
    iterations: Count = 1000
    lr: Positive = 0.25
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    alpha: NonNegative = 1.0
    first_bn_weight: NonNegative = 10.0
    augment: NormalisedAugmentations = ("roll:4",)
    natural_instances: bool = True
    micro_batch: Count | None = None
    parallel_groups: Count = 1
    jpeg: Quality | None = None
    precision: Precision = "fp32"

    def subsets(self, ipc: float, classes: int) -> int:
        """K, the number of subsets within the budget K (C + M) <= ipc C (section 4.1).

        A compensator counts as one image.
        """
        return int(ipc * classes // (classes + len(self.teachers)))

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one image through each teacher, a backward pass counting as two.

        Micro-batches take one more forward pass (`recovery.TeacherObjective`).
        """
        images = self.subsets(ipc, classes) * classes
        return images * self.iterations * (4 if self.micro_batch else 3)

    def at_once(self, ipc: float, classes: int) -> tuple[float, float]:
        """Images that go through a teacher together: with gradients, and without."""
        groups = min(self.parallel_groups, self.subsets(ipc, classes))
        return groups * min(self.micro_batch or classes, classes), 0

    @property
    def matched(self) -> tuple[str, ...]:
        """The teachers whose batch normalisation is matched."""
        return self.teachers if self.alpha else ()

    def instances(self, ipc: float, classes: int) -> int:
        """Training images of a set: (M + 1) K C, or M K C without the natural ones."""
        return (len(self.teachers) + self.natural_instances) * self.subsets(ipc, classes) * classes

    def stored_bytes(self, ipc: float, classes: int, pixels: int) -> float:
        """Natural images of a byte per number, compensators of two (float16)."""
        images = classes + 2 * len(self.teachers)
        return self.subsets(ipc, classes) * images * pixels


def subsets(recipe: Recipe, ipc: int, classes: int) -> int:
    """K. Raises BudgetError when the budget holds not even one subset."""
    count, teachers = recipe.subsets(ipc, classes), len(recipe.teachers)
    if count < 1:
        raise BudgetError(
            f"ipc = {ipc}: INFER with {teachers} teachers and {classes} classes needs "
            f"{classes + teachers} images, the budget is {ipc * classes}; "
            f"ask for ipc {-(-(classes + teachers) // classes)} or more"
        )
    return count


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Draw K subsets P^k, and optimise for each a compensator u_j per teacher (Alg. 1, Eq. 4).

    A subset is one random real image per class; subsets are disjoint.

    Deviation: the subsets are disjoint (paper silent); without `jpeg`, images and compensators are
    stored apart and lossless, as the paper describes, where the authors' code writes their sum as
    JPEG; u is the last iterate, theirs the one before.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: the M networks.
        job: gives device, random streams and folders.

    Returns:
        Parts: natural (K, classes, C, H, W) uint8; compensators (M, K, C, H, W) float16, in pixel
        units (u times std), to be added to natural / 255. With recipe.jpeg instead JPEG files of
        the instances in the order of expand(), and their labels. Layout: natural_instances, as in
        the recipe.

    Raises:
        BudgetError: the budget holds no subset, or a class fewer than K images.
        TeacherError: a teacher has no batch normalisation.
        DistilleryError: a compensator diverges.
    """
    indices = draw(train, subsets(recipe, ipc, len(train.classes)), job.generator("natural"))
    natural = train.pixels(indices.flatten()).unflatten(0, tuple(indices.shape))
    with job.progress(len(teachers) * len(natural) * recipe.iterations, "compensators") as bar:
        normalised = [
            compensators(natural, j, teacher, train, recipe, job, bar)
            for j, teacher in enumerate(teachers)
        ]
    in_pixels = torch.stack(normalised) * torch.tensor(train.std)[:, None, None]
    exact = DistilledSet(
        "infer",
        ipc,
        tuple(train.classes),
        tuple(train.mean),
        tuple(train.std),
        {"natural": Part(natural, Kind.IMAGE), "compensators": Part(in_pixels, Kind.IMAGE)},
        layout={"natural_instances": recipe.natural_instances},
    )
    if recipe.jpeg is not None:
        return as_files(exact, recipe.jpeg)
    return exact.with_tensors({"compensators": in_pixels.half()})


def as_files(exact: DistilledSet, quality: int) -> DistilledSet:
    """The instances of a set as JPEG files, which is what the authors' code stores.

    Args:
        exact: with compensators in float32.
        quality: of the files, 1..100.
    """
    instances = expand(exact)
    batches = torch.arange(len(instances)).split(BATCH)
    files = encode((quantised(instances.take(batch), quality) for batch in batches), quality)
    labels = Part(instances.labels, Kind.HARD_LABEL, derived=True)
    return replace(exact, parts={"labels": labels, **files}, layout={})


def compensators(
    natural: Tensor, j: int, teacher: Teacher, train: ImageSet, recipe: Recipe, job: Job, bar: tqdm
) -> Tensor:
    """The compensators u_j of all subsets for one teacher.

    Nothing bounds u here; only expand() clamps.

    Args:
        natural: (K, classes, C, H, W) uint8.
        j: number of the teacher.
        teacher: the network.
        train: gives shape, classes and normalisation.
        recipe: the settings.
        job: gives device, random streams and folders.
        bar: advances by a step of each subset.

    Returns:
        (K, C, H, W) float32 on the CPU, in normalised units.
    """
    objective = TeacherObjective.of(teacher, recipe.alpha, recipe, train.shape, job.device)
    labels = torch.arange(len(train.classes), device=job.device)

    def optimise(group: list[int], checkpoint: Checkpoint) -> Tensor:
        images = normalise(natural[group].to(job.device).float() / 255, train.mean, train.std)
        streams = [job.generator(f"compensator/{j}/{k}") for k in group]
        augment = augment_groups(lambda step: recipe.augment, streams)
        # Broadcast over the batch: the same u for every class.
        start = torch.zeros_like(images[:, :1])
        u = recover(
            start,
            lambda u, step: augment(images + u, step),
            labels,
            objective,
            recipe,
            bar,
            streams=streams,
            checkpoint=checkpoint,
        )
        return u.squeeze(1)

    return in_groups(range(len(natural)), optimise, f"compensators-{j}", recipe, job, bar)


def expand(distilled: DistilledSet) -> Instances:
    """The (M + 1) K C instances in the order (j, k, class).

    For j = 0 natural / 255 itself, then natural / 255 + u_j clamped to [0, 1] (Eq. 2). Without
    natural instances the M K C others alone. Of JPEG files what they decode to.
    """
    if "jpeg" in distilled:
        return stored_images(distilled)
    natural, compensators = distilled["natural"], distilled["compensators"]
    if distilled.layout["natural_instances"]:
        compensators = torch.cat([torch.zeros_like(compensators[:1]), compensators])
    count, (subsets, classes) = len(compensators), natural.shape[:2]

    def take(indices: Tensor) -> Tensor:
        j, k, c = indices // (subsets * classes), indices // classes % subsets, indices % classes
        return (natural[k, c].float() / 255 + compensators[j, k].float()).clamp(0, 1)

    return Instances(torch.arange(classes, device=natural.device).repeat(count * subsets), take)
