"""k-means: the real images nearest to the cluster centres of each class.

The clusters are those of a teacher's feature space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

from distillery.components.fields import Count
from distillery.methods.shared.selection import check_budget, class_features, real_images
from distillery.store.checkpoint import gathered

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("k-means",)
TRAITS = {"needs": ("teachers",)}


@dataclass(frozen=True)
class Recipe:
    """k-means in the features of a network.

    Attributes:
        teachers: network names; the first one's penultimate features are used.
        restarts: k-means++ starts, the best is kept.
    """

    teachers: tuple[str, ...]
    restarts: Count = 1


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Keep one image for each of `ipc` clusters per class.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: clusters per class.
        teachers: the first one's features are used.
        job: gives device and seeds.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, ordered by cluster, then class.

    Raises:
        BudgetError: ipc is 0 or more than a class has.
    """
    check_budget(train, ipc)

    def choose(label: int) -> Tensor:
        members, features = class_features(train, label, teachers[0], job.device)
        seed = job.seed(f"k-means/{label}")
        return members[representatives(features, ipc, recipe.restarts, seed)]

    chosen = gathered(job, "chosen", range(len(train.classes)), choose, label="k-means")
    return real_images("k-means", train, torch.stack(chosen, 1), ipc)


def representatives(features: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """The row nearest to each cluster centre.

    Where two centres share a nearest row, the assignment of distinct rows to centres with the least
    sum of distances decides.

    Args:
        features: (n, F).
        count: clusters.
        restarts: k-means++ starts, the best is kept.
        seed: of the starts.

    Returns:
        Indices (count,) int64 of distinct rows, row i standing for cluster i.
    """
    clusters = KMeans(count, n_init=restarts, random_state=seed % 2**32).fit(features.numpy())
    return torch.from_numpy(linear_sum_assignment(clusters.transform(features.numpy()).T)[1])
