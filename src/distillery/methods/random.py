"""Random real images: the baseline that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillery.methods.shared.selection import draw, real_images

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("random",)


@dataclass(frozen=True)
class Recipe:
    """No fields."""

    def work(self, ipc: float, classes: int) -> float:
        """No network is used."""
        return 0.0


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Keep `ipc` images of each class, drawn uniformly without replacement.

    Args:
        train: the real images.
        recipe: no settings.
        ipc: images per class.
        teachers: none.
        job: gives the random stream.

    Returns:
        Parts: images (ipc * classes, C, H, W) uint8, ordered by draw, then class.

    Raises:
        BudgetError: ipc is 0 or more than a class has.
    """
    return real_images("random", train, draw(train, ipc, job.generator("natural")), ipc)
