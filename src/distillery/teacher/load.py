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

WEIGHTS_FILE = "weights.safetensors"
# The accuracy that a teacher must exceed: a multiple of that of guessing, or, where it is less, so
# large a part of the way from guessing to 100 %.
CHANCE_FACTOR, CHANCE_SHARE = 1.5, 0.25


@dataclass(frozen=True)
class Teacher:
    """A network to learn from.

    Attributes:
        name: of its architecture.
        model: from (B, C, H, W) float32, normalised with `mean` and `std`, to logits (B, classes);
            in eval mode, no parameter requires a gradient.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        classes: names in label order.
        class_order: the hash of `classes`.
        accuracy: percent of the test set after the last epoch.
    """

    name: str
    model: nn.Module = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    class_order: str
    accuracy: float


def load_teacher(artefact: Artefact, device: torch.device | str = "cpu") -> Teacher:
    """The teacher of a teacher artefact.

    Args:
        artefact: of the teacher stage.
        device: where its network is put.

    Raises:
        ArtefactError: there is no file of weights, or they are not those of the named network, or
            hold a number that is not finite.
        ClassOrderError: the recorded class order is not that of the recorded classes.
    """
    metadata = artefact.metadata
    network, classes = metadata["network"], tuple(metadata["classes"])
    if class_order_hash(classes) != metadata["class_order"]:
        raise ClassOrderError(
            f"{artefact.path}: its class order is not that of its class names; "
            f"train this teacher again"
        )
    weights = artefact.file(WEIGHTS_FILE)
    return Teacher(
        name=network["name"],
        model=load_network(network, metadata["shape"], len(classes), weights, device),
        mean=tuple(metadata["mean"]),
        std=tuple(metadata["std"]),
        classes=classes,
        class_order=metadata["class_order"],
        accuracy=metadata["accuracy"]["last"],
    )


def check_teacher(teacher: Teacher, class_order: str, owner: str) -> None:
    """Check that a teacher knows the classes that it shall teach.

    A teacher that is little better than guessing was trained on other labels or hardly at all, and
    its logits say nothing.

    Args:
        teacher: the teacher.
        class_order: hash of the classes of what it shall teach.
        owner: what it shall teach, for error messages.

    Raises:
        ClassOrderError: it knows other classes, or another order.
        TeacherError: it is too near to guessing (`check_accuracy`).
    """
    if teacher.class_order != class_order:
        raise ClassOrderError(
            f"teacher '{teacher.name}' has class order {teacher.class_order}, "
            f"{owner} has {class_order}: train the teacher on the same data source"
        )
    check_accuracy(teacher.name, teacher.accuracy, len(teacher.classes), owner)


def check_accuracy(name: str, accuracy: float, classes: int, owner: str) -> None:
    """Check that a teacher is better than guessing.

    It must have more than 1.5 times the accuracy of guessing; of few classes, where that is much,
    more than a quarter of the way from guessing to 100 %.

    Args:
        name: of the teacher, for error messages.
        accuracy: percent of the test set.
        classes: how many there are.
        owner: what it shall teach, for error messages.

    Raises:
        TeacherError: its accuracy is less, or no number.
    """
    chance = 100 / classes
    needed = min(CHANCE_FACTOR * chance, chance + CHANCE_SHARE * (100 - chance))
    if not accuracy > needed:
        raise TeacherError(
            f"teacher '{name}' has {accuracy:.2f} % test accuracy, guessing has {chance:.2f} %: "
            f"it cannot teach {owner} (more than {needed:.2f} % needed); "
            f"train it for more epochs, or take other weights"
        )


def check_normalisation(
    teacher: Teacher, mean: Sequence[float], std: Sequence[float], owner: str
) -> None:
    """Check that a teacher was trained with the normalisation of what it shall teach.

    Other constants are an error of contrast that shows in no shape and in no loss curve.

    Args:
        teacher: the teacher.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        owner: what it shall teach, for error messages.

    Raises:
        TeacherError: a constant differs by more than 1e-4.
    """
    own = torch.tensor([teacher.mean, teacher.std])
    wanted = torch.tensor([tuple(mean), tuple(std)])
    if not torch.allclose(own, wanted, atol=1e-4, rtol=0):
        raise TeacherError(
            f"teacher '{teacher.name}' was trained with mean {teacher.mean}, std {teacher.std}; "
            f"{owner} has mean {tuple(mean)}, std {tuple(std)}: "
            f"train the teacher on the same data source"
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
    """Load teachers and check each.

    Args:
        artefacts: of the teacher stage.
        device: where their networks are put.
        class_order: hash of the classes of what they shall teach.
        mean: its mean per channel, of pixels in [0, 1].
        std: its std per channel, of pixels in [0, 1].
        owner: what they shall teach, for error messages.

    Raises:
        ArtefactError: as `load_teacher`.
        ClassOrderError: as `load_teacher` and `check_teacher`.
        TeacherError: as `check_teacher` and `check_normalisation`.
    """
    teachers = [load_teacher(artefact, device) for artefact in artefacts]
    for teacher in teachers:
        check_teacher(teacher, class_order, owner)
        check_normalisation(teacher, mean, std, owner)
    return teachers
