"""The whole training set: what every distilled set is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillery.errors import SetError
from distillery.sets.distilled import DistilledSet, Instances

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("full",)
TRAITS = {"whole_data": True, "fractional_ipc": True}


@dataclass(frozen=True)
class Recipe:
    """No fields."""

    def work(self, ipc: float, classes: int) -> float:
        """No network is used."""
        return 0.0

    def instances(self, ipc: float, classes: int) -> int:
        """As many as there are training images, of which `ipc` is the mean over the classes."""
        return round(ipc * classes)


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: float, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Keep every training image, and store none: the set refers to the data artefact.

    Args:
        train: the real images.
        recipe: no settings.
        ipc: training images over classes, which the planner sets.
        teachers: none.
        job: not used.

    Returns:
        No parts; `bytes` counts the decoded training pixels, which a student of it needs.
    """
    classes, mean, std = tuple(train.classes), tuple(train.mean), tuple(train.std)
    return DistilledSet("full", ipc, classes, mean, std, {}, train=train)


def expand(distilled: DistilledSet) -> Instances:
    """The training images in the order of the data artefact, with their labels.

    Raises:
        SetError: the set was read without the data that it refers to.
    """
    train = distilled.train
    if train is None:
        raise SetError("the set refers to the training images; read it with the data artefact")
    labels = train.labels

    def levels(indices: Tensor) -> Tensor:
        return torch.as_tensor(train.pixels(indices)).to(indices.device)

    return Instances.of_levels(labels, levels)
