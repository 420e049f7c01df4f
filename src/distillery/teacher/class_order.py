"""Find out whether a network knows these classes, but in another order.

Folders 2 and 10, for example, may be sorted as numbers or as text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillery.errors import ClassOrderError
from distillery.teacher.load import CHANCE_FACTOR

# The accuracy in the restored order must be so many times that in the order as it is.
RESTORED_FACTOR = 1.5
# So large a part of the classes must be answered with the class that the order says.
KNOWN_SHARE = 2 / 3
NAMED = 3  # swapped classes in the message


def check_order(name: str, answers: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Check that published weights do not know the classes in another order.

    The permutation of the classes that suits half of the samples best is tried on the other half,
    so that chance cannot pass for an order. It is the true order when two thirds of the classes are
    mostly answered with the class that it says (a network that knows nothing has few answers), and
    when it gives 1.5 times the accuracy of the order as it is, and of guessing.

    Args:
        name: of the weights, for error messages.
        answers: (N,) int64, the class that the network puts first.
        labels: (N,) int64, the true class.
        classes: names in label order.

    Raises:
        ClassOrderError: the weights know another order; the message names the first swapped
            classes.
    """
    # Imported here: it takes a quarter of a second, for published weights alone.
    from scipy.optimize import linear_sum_assignment

    by_class = labels.argsort(stable=True)
    fit, held_out = by_class[::2], by_class[1::2]
    fitted = _confusion(answers[fit], labels[fit], len(classes))
    tested = _confusion(answers[held_out], labels[held_out], len(classes))
    own_order = torch.arange(len(classes))
    order = torch.as_tensor(linear_sum_assignment(fitted, maximize=True)[1])
    plain, restored = (
        100 * tested[own_order, answer].sum().item() / len(held_out)
        for answer in (own_order, order)
    )
    known = bool((tested.argmax(1) == order).double().mean() > KNOWN_SHARE)
    better = restored >= RESTORED_FACTOR * plain and restored > CHANCE_FACTOR * 100 / len(classes)
    if known and better:
        pairs = enumerate(order.tolist())
        swapped = [f"'{classes[c]}' as '{classes[o]}'" for c, o in pairs if o != c][:NAMED]
        raise ClassOrderError(
            f"weights '{name}' know these classes in another order: "
            f"they answer {', '.join(swapped)} "
            f"({plain:.2f} % test accuracy, {restored:.2f} % once put in order); "
            f"give the data set its classes in the order of the weights "
            f"(a folder's are sorted as text: rename 2 to 02)"
        )


def _confusion(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many samples of each class (row) get each answer (column): (classes, classes), CPU."""
    pairs = torch.bincount(labels * classes + answers, minlength=classes**2)
    return pairs.view(classes, classes).cpu()
