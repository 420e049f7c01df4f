"""What the methods that keep real images share: budgets, features of a class, the set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.errors import BudgetError
from distillery.nets.features import penultimate
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts
from distillery.training.normalise import normalise

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.teacher.load import Teacher

BATCH = 256


def check_budget(train: ImageSet, count: int) -> None:
    """Raise BudgetError unless every class has `count` >= 1 images."""
    if count < 1:
        raise BudgetError(f"ipc = {count}: keeps no image of any class; ask for ipc 1 or more")
    name, size = rarest(train)
    if size < count:
        raise BudgetError(
            f"{count} images per class asked for, class '{name}' has {size}; "
            f"lower ipc to {size} or less"
        )


def rarest(train: ImageSet) -> tuple[str, int]:
    """The class with the fewest images: its name and their number."""
    sizes = torch.bincount(train.labels, minlength=len(train.classes))
    return train.classes[int(sizes.argmin())], int(sizes.min())


def draw(train: ImageSet, count: int, generator: torch.Generator) -> Tensor:
    """Random images of each class, uniformly without replacement.

    Args:
        train: the real images.
        count: how many of each class.
        generator: on the CPU.

    Returns:
        Indices (count, classes) int64.

    Raises:
        BudgetError: count is 0, or more than a class has.
    """
    check_budget(train, count)
    members = [torch.as_tensor(train.of_class(label)) for label in range(len(train.classes))]
    return torch.stack([m[torch.randperm(len(m), generator=generator)[:count]] for m in members], 1)


@torch.no_grad()
def class_features(
    train: ImageSet, label: int, teacher: Teacher, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The images of a class and their penultimate features.

    Args:
        train: the real images.
        label: the class.
        teacher: whose features they are.
        device: where the teacher is.

    Returns:
        Indices (n,) int64, and features (n, F) float64 on the CPU.
    """
    members = torch.as_tensor(train.of_class(label))
    features = [
        penultimate(
            teacher.model,
            normalise(train.pixels(part).to(device).float() / 255, teacher.mean, teacher.std),
        ).cpu()
        for part in members.split(BATCH)
    ]
    return members, torch.cat(features).double()


def real_images(method: str, train: ImageSet, indices: Tensor, ipc: int) -> DistilledSet:
    """The set that stores real images.

    Args:
        method: the method that chose them.
        train: the real images.
        indices: (n, classes) int64, one image of each class in turn.
        ipc: the budget.
    """
    labels = torch.arange(indices.shape[1]).repeat(len(indices))
    parts = image_parts(train.pixels(indices.flatten()), labels, quality=None)
    return DistilledSet(
        method, ipc, tuple(train.classes), tuple(train.mean), tuple(train.std), parts
    )
