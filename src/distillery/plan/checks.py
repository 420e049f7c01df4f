"""What a recipe must not ask for: each check raises a PlanError that is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.models import Dataset, Expected
from distillery.plan.origins import Where, below
from distillery.plan.types import Component, recipe_object, traits, unknown_key


def instances(method: Mapping[str, Any], ipc: float, classes: int) -> float:
    """How many training images a distilled set expands to.

    Args:
        method: a resolved method with its `name`; its recipe may say the number.
        ipc: images per class.
        classes: of the data set.

    Returns:
        What the method's recipe says, or `ipc` for each class.
    """
    recipe = recipe_object("method", method)
    return recipe.instances(ipc, classes) if hasattr(recipe, "instances") else ipc * classes


def check_mix(loss: Component, training: Mapping[str, Any], where: Where | str) -> None:
    """Refuse a training that mixes images under a loss that is not defined for them.

    Args:
        loss: of the students.
        training: the fields of `Training` as JSON.
        where: file and key of the protocol.

    Raises:
        PlanError: it is so.
    """
    mix, place = training["mix"]["name"], below(where, "training", "mix", "name")
    if mix != "none" and not traits("loss", loss.name).mixed_images:
        raise PlanError(
            f"{place} = '{mix}': loss '{loss.name}' is not defined for mixed images; "
            "set mix to 'none'"
        )


def check_soft(
    labels: Component, loss: Component, refinement: Component | None, row: str, where: Where | str
) -> None:
    """Refuse an evaluation that needs soft labels and has none, or refines what its loss ignores.

    Args:
        labels: of the set's images.
        loss: of the students.
        refinement: of the labels, or None.
        row: the table's row, for the error.
        where: file and key of the protocol.

    Raises:
        PlanError: loss or refinement needs soft labels and these are hard, or the refinement
            changes soft labels and the loss reads none.
    """
    soft_loss = traits("loss", loss.name).needs_soft_labels
    refine = refinement.name if refinement else None
    soft_refine = refine is not None and traits("refinement", refine).needs_soft_labels
    if (soft_loss or soft_refine) and not traits("label", labels.name).logits:
        part, name = ("loss", loss.name) if soft_loss else ("refine", refine)
        place = below(where, part)
        raise PlanError(f"{place} = '{name}': needs soft labels, row '{row}' has hard ones")
    if soft_refine and not soft_loss:
        place = below(where, "refine")
        raise PlanError(
            f"{place} = '{refine}': changes soft labels, loss '{loss.name}' reads none; "
            "choose another loss"
        )


def check_keys(values: Iterable[str], valid: tuple[str, ...], where: Where | str) -> None:
    """Refuse a key that nothing reads.

    Raises:
        PlanError: `values` has a key that is not in `valid`; it names the nearest that is.
    """
    for key in values:
        if key not in valid:
            raise PlanError(f"{below(where, key)}: {unknown_key(key, valid)}")


def check_form(dataset: Dataset, where: Where) -> None:
    """Refuse what a data set says of its images in two ways, and what does not fit their channels.

    Args:
        dataset: with its size, channels, mean, std and what is expected of it.
        where: its place.

    Raises:
        PlanError: it is so.
    """
    shape = dataset.expected.shape if dataset.expected else [None, None, None]
    for name, at in (("channels", 0), ("size", 1)):
        stated = getattr(dataset, name)
        if stated is not None and shape[at] not in (None, stated):
            raise PlanError(
                f"{where / name} = {stated}: {where / 'expected' / 'shape'} = {shape}; correct the "
                "one that is wrong"
            )
    channels = dataset.channels or shape[0]
    for name in ("mean", "std"):
        values = getattr(dataset, name)
        if values is not None and len(values) not in ((channels,) if channels else (1, 3)):
            wanted = f"{channels}, one" if channels else "1 or 3, one"
            raise PlanError(f"{where / name} = {values}: expected {wanted} for each channel")
    if dataset.mean and dataset.std and len(dataset.mean) != len(dataset.std):
        raise PlanError(
            f"{where / 'std'} = {dataset.std}: {where / 'mean'} has {len(dataset.mean)} values; "
            "state as many of both"
        )


def check_size(network: Component, expected: Expected | None) -> None:
    """Refuse a network that does not fit the images of its data set.

    Args:
        network: its recipe may say so by a method `misfit`.
        expected: what the scale expects of the data set; None: nothing, then the job says it.

    Raises:
        PlanError: it is so.
    """
    recipe = recipe_object("network", network.reference)
    said = recipe.misfit(expected.shape[1]) if expected and hasattr(recipe, "misfit") else None
    if said:
        raise PlanError(f"{below(network.where, said[0])} = {said[1]}")


def check_sides(recipe: Mapping[str, Any], expected: Expected | None, where: Where | str) -> None:
    """Refuse augmentations whose parameter, in pixels, is not below the side of the images.

    Args:
        recipe: a training, with the names of its augmentations in `augment`.
        expected: what the scale expects of the data set; None: nothing.
        where: file and key of the recipe.

    Raises:
        PlanError: it is so.
    """
    if expected is None:
        return
    for text in recipe["augment"]:
        name, _, parameter = text.partition(":")
        if traits("augmentation", name).within_image and int(parameter) >= expected.shape[1]:
            place, side = below(where, "augment"), expected.shape[1]
            raise PlanError(f"{place} = '{text}': the images have {side} px; use a number below")


def check_teachers(asking: Component, where: Where | str, name: str) -> None:
    """Refuse a component that needs teachers and whose recipe names none.

    Args:
        asking: a method, embeddings or an analysis.
        where: file and key of its recipe.
        name: what the message calls it.

    Raises:
        PlanError: its `teachers` are empty.
    """
    needs = getattr(traits(asking.kind, asking.name), "needs", ())
    if "teachers" in needs and not asking.get("teachers"):
        raise PlanError(f"{below(where, 'teachers')}: is empty, {name} needs at least one teacher")


def check_budget(
    experiment: Experiment, method: Mapping[str, Any], expected: Expected | None
) -> None:
    """Refuse a wrong number of images per class.

    Args:
        experiment: its ipc, data set and method.
        method: the resolved method.
        expected: what the scale expects of the data set; None: nothing, then its classes and images
            are not compared with.

    Raises:
        PlanError: ipc is no positive number, a fraction where the method needs a whole number,
            more than a class has, or too little for the method.
    """
    ipc, name = experiment.ipc, experiment.row.method
    dataset, place = f"'{experiment.dataset}'", experiment.places.get("ipc")
    start = f"{place}: ipc" if place else "ipc"
    if not isinstance(ipc, int | float) or not ipc > 0:
        raise PlanError(f"{start} {ipc!r} on {dataset}: must be a number above 0, images per class")
    if ipc != int(ipc) and not traits("method", name).fractional_ipc:
        raise PlanError(f"{start} {ipc!r} on {dataset}: method '{name}' needs a whole number")
    if expected and ipc > expected.train / expected.classes:
        most = expected.train // expected.classes
        raise PlanError(
            f"{start} {ipc:g} on {dataset}: a class has about {most} training images; ask for less"
        )
    if expected and instances(method, ipc, expected.classes) < 1:
        raise PlanError(
            f"{start} {ipc:g} on {dataset}: too little for method '{name}'; ask for more"
        )


def check_method(method: Component, ipc: float, expected: Expected | None) -> None:
    """Refuse a recipe that does not fit the budget or the data, by its method `misfit`.

    Args:
        method: resolved; its recipe may have a `misfit`, which gives a field and the rest of the
            message, or None.
        ipc: images per class.
        expected: what the scale expects of the data set; None: nothing, then the job says it.

    Raises:
        PlanError: it is so.
    """
    recipe = recipe_object("method", method.reference)
    if expected is None or not hasattr(recipe, "misfit"):
        return
    classes, side = expected.classes, expected.shape[1]
    if said := recipe.misfit(ipc, classes, side, expected.train / classes):
        raise PlanError(f"{below(method.where, said[0])} = {said[1]}")


def check_norms(
    method: Component, network: Component | None, teachers: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse networks that lack batch normalisation where it is matched, or have it as a state.

    A network whose recipe does not say, by `batch_norm`, whether it has any is left to the job.

    Args:
        method: its recipe may name teachers as `matched`, or say that its network is `stateless`.
        network: the method's own, resolved, or None.
        teachers: resolved networks by name.

    Raises:
        PlanError: it is so.
    """
    recipe = recipe_object("method", method.reference)
    for name in getattr(recipe, "matched", ()):
        if getattr(recipe_object("network", teachers[name]), "batch_norm", True) is False:
            raise PlanError(
                f"{below(method.where, 'teachers')}: '{name}' has no batch normalisation, which "
                f"'{method.name}' matches; name another network"
            )
    if network is None or not getattr(recipe, "stateless", False):
        return
    if getattr(recipe_object("network", network.reference), "batch_norm", False):
        raise PlanError(
            f"{below(method.where, 'network')}: has batch normalisation, a state through which "
            f"'{method.name}' cannot differentiate; use norm 'instance', or another network"
        )


def check_analysed(
    analysis: Component, method: Mapping[str, Any], per_class: float, classes: int | None, row: str
) -> None:
    """Refuse an analysis of a set that it cannot look at, before anything is made.

    Args:
        analysis: resolved; its trait `of` is the trait that the set's method must have, and its
            recipe may say by a method `misfit` what else does not fit.
        method: resolved, with its `name`.
        per_class: instances of a class, about.
        classes: of the data set, or None where they are not known.
        row: file and name of the table's row, for the error.

    Raises:
        PlanError: it is so.
    """
    needed = traits("analysis", analysis.name).of
    if needed and not getattr(traits("method", method["name"]), needed):
        raise PlanError(
            f"{row}: analysis '{analysis.name}' looks at sets with {needed}, method "
            f"'{method['name']}' has none; name another method"
        )
    recipe = recipe_object("analysis", analysis.reference)
    if said := getattr(recipe, "misfit", lambda *_: None)(method, per_class, classes):
        raise PlanError(f"{row}: analysis '{analysis.name}': {said}")


def check_labels(kind: str, method: Mapping[str, Any], row: str, where: Where | str) -> None:
    """Refuse labels that a method's sets cannot have.

    They are those that a set holds itself, of a method that makes none, and those that are stored
    for each image, of a method that stores nothing.

    Args:
        kind: of labels.
        method: the resolved method. Its trait `soft_labels` says whether its sets hold labels or,
            where that depends on the recipe, the recipe's `soft` does.
        row: file and name of the table's row, for the error.
        where: file and key of the method's recipe.

    Raises:
        PlanError: it is so.
    """
    if traits("label", kind).stored and traits("method", method["name"]).whole_data:
        raise PlanError(
            f"{row}: labels '{kind}' are stored for each image, method '{method['name']}' stores "
            "nothing; use hard, or dynamic"
        )
    if not traits("label", kind).stored_in_set:
        return
    soft = traits("method", method["name"]).soft_labels
    if not getattr(recipe_object("method", method), "soft", soft):
        raise PlanError(
            f"{row}: labels '{kind}' are those that a set holds, method '{method['name']}' "
            f"stores none with this recipe ({where}); use hard, or labels of teachers"
        )


def check_pixels(recipe: Mapping[str, Any], inputs: Mapping[str, Any], what: str) -> None:
    """Refuse teachers that would see the images of a whitened set.

    Args:
        recipe: of labels or an analysis; its `teachers` look at the images.
        inputs: of the set's job, by role.
        what: the beginning of the message.

    Raises:
        PlanError: it is so.
    """
    if recipe.get("teachers") and "whitening" in inputs:
        raise PlanError(
            f"{what} teachers, which see normalised pixels; "
            "set distill.whitening to none for this row"
        )
