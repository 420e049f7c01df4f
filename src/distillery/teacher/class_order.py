"""Find out whether a network knows these classes, but in another order: folders 2 and 10 sorted as numbers or as text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillery.errors import ClassOrderError
from distillery.teacher.load import CHANCE_FACTOR

RESTORED = 1.5  # times the accuracy as it is
KNOWN = 2 / 3  # of the classes
NAMED = 3


def check_order(name: str, answers: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Raise ClassOrderError, naming the first swapped classes, when the weights `name` know `classes` in another order.

    answers, labels: (N,) int64, the class that the network puts first and the true one. The permutation of the classes that
    suits half of the samples best is tried on the other half, so that chance cannot pass for an order. It is the true order
    when it is what two thirds of the classes are mostly answered with (a network that knows nothing has few answers), and gives
    1.5 times the accuracy of the order as it is, and of guessing.
    """
    from scipy.optimize import (
        linear_sum_assignment,
    )  # a quarter of a second, for published weights alone

    by_class = labels.argsort(stable=True)
    fitted, held = (
        _confusion(answers[half], labels[half], len(classes))
        for half in (by_class[::2], by_class[1::2])
    )
    found = torch.as_tensor(linear_sum_assignment(fitted.cpu(), maximize=True)[1])
    held, kept = held.cpu(), torch.arange(len(classes))
    plain, restored = (
        100 * held[kept, order].sum().item() / len(by_class[1::2]) for order in (kept, found)
    )
    known = (held.argmax(1) == found).double().mean() > KNOWN
    if known and restored >= RESTORED * plain and restored > CHANCE_FACTOR * 100 / len(classes):
        swapped = [f"'{classes[c]}' as '{classes[found[c]]}'" for c in kept if found[c] != c][
            :NAMED
        ]
        raise ClassOrderError(
            f"weights '{name}' know these classes in another order: they answer {', '.join(swapped)} "
            f"({plain:.2f} % test accuracy, {restored:.2f} % once put in order); give the data set its classes in the order of "
            f"the weights (a folder's are sorted as text: rename 2 to 02)"
        )


def _confusion(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64: how many samples of each class (row) get each answer (column)."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
