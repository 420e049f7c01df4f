"""Herding: real images whose mean follows the class mean in a teacher's feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.methods.shared.selection import check_budget, class_features, real_images

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("herding",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe:
    """teachers: network names; the first one's penultimate features are used."""

    teachers: tuple[str, ...]


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """`ipc` images of each class by greedy mean matching (Welling, ICML 2009; the exemplar rule of iCaRL, CVPR 2017, Alg. 4).

    Parts: images (ipc * classes, C, H, W) uint8, ordered by rank, then class, so that the first n ranks are the set of ipc n.
    Raises BudgetError when ipc is 0 or more than a class has.
    Deviation: iCaRL scales each feature vector to length 1 first; here, as in the distillation literature, features stay as
    they are.
    """
    check_budget(train, ipc)
    chosen = []
    for label in job.progress(range(len(train.classes)), "herding"):
        members, features = class_features(train, label, teachers[0], job.device)
        chosen.append(members[herd(features, ipc)])
    return real_images("herding", train, torch.stack(chosen, 1), ipc)


def herd(features: Tensor, count: int) -> Tensor:
    """Indices (count,) int64 of distinct rows of `features` (n, F): row k minimises ||mean - mean of the rows 1..k||_2.

    Ties go to the lowest index.
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
