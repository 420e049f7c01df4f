"""Load a trained teacher, and refuse one that does not know the data it is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from distillery.errors import ClassOrderError, TeacherError
from distillery.nets.network import load_network
from distillery.store.artefact import Artefact
from distillery.store.canonical import class_order_hash

WEIGHTS = "weights.safetensors"
CHANCE_FACTOR, CHANCE_SHARE = 1.5, 0.25


@dataclass(frozen=True)
class Teacher:
    """A network to learn from: eval mode, no parameter requires a gradient.

    model: (B, C, H, W) float32, normalised with `mean` and `std` (per channel, of pixels in [0, 1]) -> (B, classes) logits.
    accuracy: percent of the test set after the last epoch. classes: names in label order, `class_order` their hash.
    """

    name: str
    model: nn.Module = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    class_order: str
    accuracy: float


def load_teacher(artefact: Artefact, device: torch.device | str = "cpu") -> Teacher:
    """The teacher of a teacher artefact, on `device`.

    Raises ArtefactError without a weights file, or when the weights are not those of the named network or hold a number that is
    not finite; ClassOrderError when the recorded class order is not that of the recorded classes.
    """
    metadata = artefact.metadata
    if class_order_hash(list(metadata["classes"])) != metadata["class_order"]:
        raise ClassOrderError(
            f"{artefact.path}: its class order is not that of its class names; train this teacher again"
        )
    return Teacher(
        metadata["network"]["name"],
        load_network(
            metadata["network"],
            metadata["shape"],
            len(metadata["classes"]),
            artefact.file(WEIGHTS),
            device,
        ),
        tuple(metadata["mean"]),
        tuple(metadata["std"]),
        tuple(metadata["classes"]),
        metadata["class_order"],
        metadata["accuracy"]["last"],
    )


def check_teacher(teacher: Teacher, class_order: str, owner: str) -> None:
    """Raise unless `teacher` may teach `owner` (named in the message), whose classes have the hash `class_order`.

    ClassOrderError: other classes, or another order. TeacherError: too near to guessing (`check_accuracy`); a teacher that far
    down was trained on other labels or hardly at all, and its logits say nothing.
    """
    if teacher.class_order != class_order:
        raise ClassOrderError(
            f"teacher '{teacher.name}' has class order {teacher.class_order}, {owner} has {class_order}: "
            f"train the teacher on the same data source"
        )
    check_accuracy(teacher.name, teacher.accuracy, len(teacher.classes), owner)


def check_accuracy(name: str, accuracy: float, classes: int, owner: str) -> None:
    """Raise TeacherError unless the teacher `name` has more test accuracy (percent) than 1.5 times that of guessing; of few
    classes, where that is much, than a quarter of the way from guessing to 100."""
    chance = 100 / classes
    needed = min(CHANCE_FACTOR * chance, chance + CHANCE_SHARE * (100 - chance))
    if not accuracy > needed:
        raise TeacherError(
            f"teacher '{name}' has {accuracy:.2f} % test accuracy, guessing has {chance:.2f} %: it cannot teach {owner} "
            f"(more than {needed:.2f} % needed); train it for more epochs, or take other weights"
        )


def check_normalisation(
    teacher: Teacher, mean: Sequence[float], std: Sequence[float], owner: str
) -> None:
    """Raise TeacherError unless `teacher` was trained with the normalisation of `owner` (named in the message).

    Feeding other constants is a contrast error that shows in no shape and in no loss curve.
    """
    own, other = torch.tensor([teacher.mean, teacher.std]), torch.tensor([tuple(mean), tuple(std)])
    if not torch.allclose(own, other, atol=1e-4, rtol=0):
        raise TeacherError(
            f"teacher '{teacher.name}' was trained with mean {teacher.mean}, std {teacher.std}; {owner} has mean "
            f"{tuple(mean)}, std {tuple(std)}: train the teacher on the same data source"
        )


def load_teachers(
    artefacts: Sequence[Artefact],
    device: torch.device | str,
    *,
    class_order: str,
    mean: Sequence[float],
    std: Sequence[float],
    owner: str,
) -> list[Teacher]:
    """Load several teachers and check the classes and the normalisation of each against `owner`'s. Raises as those above."""
    teachers = [load_teacher(artefact, device) for artefact in artefacts]
    for teacher in teachers:
        check_teacher(teacher, class_order, owner)
        check_normalisation(teacher, mean, std, owner)
    return teachers
