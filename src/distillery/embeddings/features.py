"""Class embeddings from a teacher: its mean penultimate features of each class's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.embeddings.distances import ClassDistances, cosine_distances
from distillery.errors import PlanError
from distillery.nets.features import penultimate
from distillery.store.checkpoint import folding
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("features",)
TRAITS = {"needs": ("teachers",)}
BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """Embeddings from features.

    Attributes:
        teachers: network names; the penultimate features of the first count.
    """

    teachers: tuple[str, ...]


def embed(
    classes: Sequence[str], recipe: Recipe, *, train: ImageSet, teachers: list[Teacher], job: Job
) -> ClassDistances:
    """Class means of the features of the training images, which are not augmented.

    Deviation: stands in for the paper's text embeddings where there are no words, or no text model.

    Args:
        classes: names in label order.
        recipe: read by the planner alone, which provides the teachers.
        train: training images.
        teachers: the first one counts.
        job: its device computes.

    Raises:
        PlanError: there is no teacher.
    """
    means = class_means(train, teachers, job)
    provenance = [f"features of {teachers[0].name}"] * len(classes)
    return ClassDistances(cosine_distances(means), provenance, means)


@torch.no_grad()
def class_means(train: ImageSet, teachers: list[Teacher], job: Job) -> Tensor:
    """Mean penultimate features of the images of each class, which are not augmented.

    Args:
        train: training images of n classes.
        teachers: the first one counts.
        job: its device computes.

    Returns:
        (n, F) float64, on the CPU.

    Raises:
        PlanError: there is no teacher, or it is a network without a linear layer.
    """
    if not teachers:
        raise PlanError(
            "embeddings from features need a teacher: name its network in the block's teachers"
        )
    samples = Samples.from_images(train, job.device)

    def add(total: tuple[Tensor], part: Tensor) -> tuple[Tensor]:
        (sums,) = total
        images = samples.normalise(samples.take(part.to(samples.device)))
        features = penultimate(teachers[0].model, images).double().cpu()
        if not sums.numel():
            sums = features.new_zeros(len(train.classes), features.shape[1])
        return (sums.index_add_(0, train.labels[part], features),)

    fold = folding(job, "class-features", label="class features")
    (sums,) = fold(add, torch.arange(len(samples)).split(BATCH), (torch.empty(0),))
    return sums / train.labels.bincount(minlength=len(train.classes))[:, None]
