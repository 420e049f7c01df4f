"""Herding: real images whose mean follows the class mean in a teacher's feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.methods.shared.selection import check_budget, class_features, real_images
from distillery.store.checkpoint import gathered

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("herding",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe:
    """Herding in the features of a network.

    Attributes:
        teachers: network names; the first one's penultimate features are used.
    """

    teachers: tuple[str, ...]


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Keep `ipc` images of each class by greedy mean matching.

    Welling, ICML 2009; the exemplar rule of iCaRL, CVPR 2017, Alg. 4.

    Deviation: iCaRL scales each feature vector to length 1 first; here, as in the distillation
    literature, features stay as they are.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class.
        teachers: the first one's features are used.
        job: gives the device.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, ordered by rank, then class, so that the first
        n ranks are the set of ipc n.

    Raises:
        BudgetError: ipc is 0 or more than a class has.
    """
    check_budget(train, ipc)

    def choose(label: int) -> Tensor:
        members, features = class_features(train, label, teachers[0], job.device)
        return members[herd(features, ipc)]

    chosen = gathered(job, "chosen", range(len(train.classes)), choose, label="herding")
    return real_images("herding", train, torch.stack(chosen, 1), ipc)


def herd(features: Tensor, count: int) -> Tensor:
    """Rows whose running mean stays nearest to the mean of all.

    Row k minimises ||mean - mean of the rows 1..k||_2; ties go to the lowest index.

    Args:
        features: (n, F).
        count: how many rows are chosen.

    Returns:
        Indices (count,) int64 of distinct rows.
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for k in range(1, count + 1):
        distance = (mean - (total + features) / k).square().sum(1).where(free, torch.inf)
        best = int(distance.argmin())
        chosen.append(best)
        free[best] = False
        total += features[best]
    return torch.tensor(chosen)
