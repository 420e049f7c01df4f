"""Class embeddings from a teacher: the mean of its penultimate features over the training images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.embeddings.distances import Found, cosine_distances
from distillery.errors import PlanError
from distillery.nets.features import penultimate
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
    """teachers: network names, the first one's penultimate features count."""

    teachers: tuple[str, ...]


def embed(
    classes: Sequence[str], recipe: Recipe, *, train: ImageSet, teachers: list[Teacher], job: Job
) -> Found:
    """Class means (n, F) of the clean training images' features. Raises PlanError without a teacher.

    Deviation: stands in for the paper's text embeddings where there are no words, or no text model.
    """
    means = class_means(train, teachers, job)
    return Found(cosine_distances(means), [f"features of {teachers[0].name}"] * len(classes), means)


@torch.no_grad()
def class_means(train: ImageSet, teachers: list[Teacher], job: Job) -> Tensor:
    """Mean penultimate features (n, F) float64 of the first teacher over the clean training images of each class, on the CPU.

    Raises PlanError without a teacher, and for a network without a linear layer.
    """
    if not teachers:
        raise PlanError(
            "embeddings from features need a teacher: name its network in the block's teachers"
        )
    samples = Samples.from_images(train, job.device)
    sums: Tensor | None = None
    for part in job.progress(
        torch.arange(len(samples), device=samples.device).split(BATCH), "class features"
    ):
        features = (
            penultimate(teachers[0].model, samples.normalise(samples.take(part))).double().cpu()
        )
        sums = features.new_zeros(len(train.classes), features.shape[1]) if sums is None else sums
        sums.index_add_(0, train.labels[part.cpu()], features)
    return sums / train.labels.bincount(minlength=len(train.classes))[:, None]
