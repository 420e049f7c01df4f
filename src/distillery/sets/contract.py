"""What every distilled set promises: checked when a method returns one and when one is loaded.

A set that breaks the promise would give a wrong number much later, and without a word: a student
trains on whatever it gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillery.components.registry import trait
from distillery.errors import SetError
from distillery.sets.parts import SLACK

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet, Instances

BATCH = 256  # instances that are looked at together
SAMPLE = 256  # instances that are looked at when a set is loaded
# Mean of |pixel| above which free pixels are taken for levels 0..255. Learned images seldom
# reach 2; the darkest of the usual data sets (MNIST) has 33 as levels.
LEVELS = 16.0
_ANY_ORDER = ("poster", "whole_data")  # traits of methods whose instances come in any order
# What a method's own code raises when its parts do not fit together.
FAULTS = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OSError)


def check_made(
    distilled: DistilledSet, *, method: str, recipe: Any, ipc: float, train: ImageSet
) -> Instances:
    """Hold a set that a method returned to what its recipe, budget and data promise.

    Every instance is built once.

    Args:
        distilled: what `distill` returned.
        method: the name that was asked for.
        recipe: the method's recipe; its `instances(ipc, classes)` says how many instances there
            are, where it has one, and its `soft` whether the set has soft labels.
        ipc: the budget, images per class.
        train: the data that the set was made from.

    Returns:
        The instances of the set.

    Raises:
        SetError: the promise is broken; the line names the method, the part, what is wrong with
            it, and what to do.
    """
    who = f"method '{method}'"
    if not hasattr(distilled, "parts"):
        found = type(distilled).__name__
        raise SetError(f"{who}: distill returned {found}; return a DistilledSet")
    _check_origin(distilled, who, method, ipc, train)
    check_form(distilled, who)
    instances = expanded(distilled, who)
    _check_labels(instances.labels, len(distilled.classes), who)
    whole = trait(distilled.module, "whole_data", False)
    promised = len(train) if whole else _promised(recipe, ipc, len(train.classes))
    count = len(instances.labels)
    if count != promised:
        raise SetError(
            f"{who}: labels: {count} instances, ipc {ipc:g} of {len(train.classes)} classes "
            f"promises {promised}; return as many, or let the recipe's `instances` say how many"
        )
    check_instances(distilled, instances, who, shape=train.shape)
    soft = getattr(recipe, "soft", trait(distilled.module, "soft_labels", False))
    if soft and instances.soft is None:
        raise SetError(
            f"{who}: soft labels: there are none, the recipe promises some; return them in `expand`"
        )
    return instances


def check_loaded(distilled: DistilledSet, who: str) -> None:
    """Hold a stored set to what needs neither recipe nor data; of images a sample is looked at.

    Args:
        distilled: the set.
        who: its file, for the message.

    Raises:
        SetError: it breaks the promise.
    """
    check_form(distilled, who)
    check_instances(distilled, expanded(distilled, who), who, sample=SAMPLE)


def check_form(distilled: DistilledSet, who: str) -> None:
    """Check what the set says of itself, and that no part holds NaN or an infinite value.

    Raises:
        SetError: something is wrong; the line begins with `who`.
    """
    classes, mean, std = distilled.classes, distilled.mean, distilled.std
    if len(set(classes)) < max(2, len(classes)) or not all(isinstance(c, str) for c in classes):
        raise SetError(f"{who}: classes = {list(classes)}: expected two or more different names")
    if not _is_number(distilled.ipc) or not distilled.ipc > 0:
        raise SetError(f"{who}: ipc = {distilled.ipc!r}: expected a number above 0")
    whole = all(map(_is_number, (*mean, *std)))
    if not whole or len(mean) != len(std) or not mean or min(std) <= 0:
        raise SetError(
            f"{who}: mean = {list(mean)}, std = {list(std)}: expected one number per channel in "
            f"each, std above 0"
        )
    bounds = distilled.value_range
    if len(bounds) != 2 or not all(map(_is_number, bounds)) or not bounds[0] < bounds[1]:
        raise SetError(f"{who}: value_range = {list(bounds)}: expected the lowest and the highest")
    for name, part in distilled.parts.items():
        _check_finite(part.tensor, f"{who}: part '{name}'")


def check_instances(
    distilled: DistilledSet,
    instances: Instances,
    who: str,
    *,
    shape: Sequence[int] | None = None,
    sample: int | None = None,
) -> None:
    """Check labels, soft labels, order and images of the instances.

    Args:
        distilled: the set.
        instances: what it expands to.
        who: the beginning of the message.
        shape: (C, H, W) that the images must have; None: that of the first.
        sample: how many images are looked at, evenly spread; None: all.

    Raises:
        SetError: something is wrong.
    """
    _check_labels(instances.labels, len(distilled.classes), who)
    if not any(trait(distilled.module, name, False) for name in _ANY_ORDER):
        _check_order(instances.labels, distilled.classes, who)
    if instances.soft is not None:
        _check_soft(instances.soft, len(instances.labels), len(distilled.classes), who)
    _check_images(distilled, instances, who, shape, sample)


def expanded(distilled: DistilledSet, who: str) -> Instances:
    """The instances of a set on its device.

    Raises:
        SetError: its parts do not fit together.
    """
    try:
        return distilled.expand(_device(distilled))
    except SetError as error:
        raise SetError(f"{who}: {error}") from None
    except FAULTS as error:
        parts = ", ".join(distilled.parts)
        raise SetError(
            f"{who}: parts {parts}: cannot be expanded ({_stated(error)}); "
            f"make the parts and `expand` of the method agree"
        ) from error


def _promised(recipe: Any, ipc: float, classes: int) -> int:
    count = recipe.instances(ipc, classes) if hasattr(recipe, "instances") else ipc * classes
    return int(count)


def _check_origin(
    distilled: DistilledSet, who: str, method: str, ipc: float, train: ImageSet
) -> None:
    """Method, budget, classes and normalisation are those of the job."""
    whitened, channels = distilled.whitening is not None, train.shape[0]
    expected = {
        "method": method,
        "ipc": ipc,
        "classes": tuple(train.classes),
        "mean": (0.0,) * channels if whitened else tuple(train.mean),
        "std": (1.0,) * channels if whitened else tuple(train.std),
    }
    for name, value in expected.items():
        stated = getattr(distilled, name)
        if stated != value:
            whose = "whitened images" if whitened and name in ("mean", "std") else "the job"
            raise SetError(
                f"{who}: {name} = {_short(stated)}: {whose} has {_short(value)}; "
                f"return the set with that {name}"
            )


def _check_finite(tensor: Tensor, where: str) -> None:
    if not isinstance(tensor, Tensor):
        raise SetError(f"{where}: is a {type(tensor).__name__}; store a tensor")
    if tensor.is_complex():
        raise SetError(f"{where}: holds complex numbers; store real ones")
    if not tensor.is_floating_point():
        return
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    if nan or infinite:
        raise SetError(
            f"{where}: holds {nan} NaN and {infinite} infinite values of {tensor.numel()}; "
            f"make the set anew without them"
        )


def _check_labels(labels: Tensor, classes: int, who: str) -> None:
    if labels.dtype != torch.int64 or labels.dim() != 1 or not len(labels):
        raise SetError(
            f"{who}: labels: {tuple(labels.shape)} {_type(labels)}, expected (instances,) int64, "
            f"one for each instance"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise SetError(
            f"{who}: labels: from {lowest} to {highest}, "
            f"expected 0 to {classes - 1}, the places of the classes"
        )


def _check_order(labels: Tensor, names: Sequence[str], who: str) -> None:
    """Class by class, or one of each class in turn; hence equally many of each."""
    classes, count = len(names), torch.bincount(labels, minlength=len(names))
    if not count.all():
        name = names[int(count.argmin())]
        raise SetError(f"{who}: labels: none of class '{name}'; make instances of every class")
    each = len(labels) // classes
    order = torch.arange(classes, device=labels.device)
    if len(labels) == each * classes and (
        torch.equal(labels, order.repeat_interleave(each))
        or torch.equal(labels, order.repeat(each))
    ):
        return
    raise SetError(
        f"{who}: labels: {labels[:8].tolist()}... of {len(labels)} instances are in no regular "
        f"order; store equally many of each class, class by class or one of each class in turn"
    )


def _check_soft(soft: Tensor, count: int, classes: int, who: str) -> None:
    if tuple(soft.shape) != (count, classes) or not soft.is_floating_point():
        raise SetError(
            f"{who}: soft labels: {tuple(soft.shape)} {_type(soft)}, expected ({count}, {classes}) "
            f"floats, a row for each instance and a column for each class"
        )
    _check_finite(soft, f"{who}: soft labels")


def _check_images(
    distilled: DistilledSet,
    instances: Instances,
    who: str,
    shape: Sequence[int] | None,
    sample: int | None,
) -> None:
    lowest, highest, total, numbers = math.inf, -math.inf, 0.0, 0
    for images in _batches(instances, who, sample):
        shape = tuple(shape or images.shape[1:])
        _check_shape(images, shape, len(distilled.mean), who)
        _check_finite(images, f"{who}: images")
        lowest, highest = min(lowest, float(images.min())), max(highest, float(images.max()))
        total, numbers = (
            total + float(images.abs().sum(dtype=torch.float64)),
            numbers + images.numel(),
        )
    if distilled.whitening is None:
        _check_range(distilled, lowest, highest, total / numbers, who)


def _batches(instances: Instances, who: str, sample: int | None) -> Iterator[Tensor]:
    count = len(instances.labels)
    places = torch.linspace(0, count - 1, min(sample or count, count)).round().long()
    for indices in places.to(instances.labels.device).split(BATCH):
        try:
            yield instances.take(indices)
        except FAULTS as error:
            raise SetError(
                f"{who}: images: instances {int(indices[0])} to {int(indices[-1])} of {count} "
                f"cannot be built ({_stated(error)}); store an image for each label"
            ) from error


def _check_shape(images: Tensor, shape: tuple[int, ...], channels: int, who: str) -> None:
    if images.dtype != torch.float32:
        raise SetError(f"{who}: images: are {_type(images)}; let `expand` give float32")
    if images.dim() != 4 or tuple(images.shape[1:]) != shape:
        raise SetError(
            f"{who}: images: have shape {tuple(images.shape[1:])}, the data {shape}; "
            f"make images (channels, height, width) like the data's"
        )
    if shape[0] != channels:
        raise SetError(
            f"{who}: images: have {shape[0]} channels, mean and std {channels}; state one of each "
            f"for each channel"
        )


def _check_range(distilled: DistilledSet, low: float, high: float, mean: float, who: str) -> None:
    found = f"{who}: images: pixels from {low:.4g} to {high:.4g}"
    if trait(distilled.module, "free_pixels", False):
        if mean > LEVELS:
            raise SetError(f"{found}: look like levels of 0 to 255; divide them by 255")
        return
    least, most = distilled.value_range
    if low < least - SLACK or high > most + SLACK:
        hint = "divide them by 255" if high > 50 * most and low >= least - SLACK else "denormalise"
        raise SetError(
            f"{found}: expected {least:g} to {most:g}; {hint}, or clamp them "
            f"(free_pixels in TRAITS is for pixels that are learned without bounds)"
        )
    if high <= 1 / 255 + 1e-6:
        raise SetError(
            f"{found}: all but black; multiply pixels in [0, 1] by 255 before they become uint8"
        )


def _device(distilled: DistilledSet) -> torch.device:
    return next((t.device for t in distilled.tensors.values()), torch.device("cpu"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _stated(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) < 120 else f"{text[:117]}..."
