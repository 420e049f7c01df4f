"""What a recipe must not ask for: each check raises a PlanError that is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillery.errors import PlanError, nearest
from distillery.plan.models import Expected
from distillery.plan.types import recipe_object, traits

if TYPE_CHECKING:
    from distillery.plan.nodes import Cell

PARTS = {
    "student": "network",
    "labels": "label",
    "loss": "loss",
    "refine": "refinement",
}  # of an evaluation, and their kinds


def instances(method: Mapping[str, Any], ipc: float, classes: int) -> float:
    """Training images that a distilled set expands to: what the method's recipe says, or ipc per class."""
    recipe = recipe_object("method", method)
    return recipe.instances(ipc, classes) if hasattr(recipe, "instances") else ipc * classes


def check_mix(loss: Mapping[str, Any], training: Mapping[str, Any], where: str) -> None:
    """Raise PlanError when the training mixes images and the loss is not defined for them."""
    name, mix = loss["name"], training["mix"]["name"]
    if mix != "none" and not traits("loss", name).mixed_images:
        raise PlanError(
            f"{where}.training.mix = '{mix}': loss '{name}' is not defined for mixed images; set mix to 'none'"
        )


def check_soft(recipe: Mapping[str, Any], row: str, where: str) -> None:
    """Raise PlanError when a part of an evaluation needs soft labels and there are none, or refines what the loss ignores."""
    soft = [
        part for part in PARTS if part in recipe and _needs_soft(PARTS[part], recipe[part]["name"])
    ]
    if soft and not traits("label", recipe["labels"]["name"]).logits:
        raise PlanError(
            f"{where}.{soft[0]} = '{recipe[soft[0]]['name']}': needs soft labels, row '{row}' has hard ones"
        )
    if "refine" in soft and "loss" not in soft:
        refine, loss = recipe["refine"]["name"], recipe["loss"]["name"]
        raise PlanError(
            f"{where}.refine = '{refine}': changes soft labels, loss '{loss}' reads none; choose another loss"
        )


def _needs_soft(kind: str, name: str) -> bool:
    return kind in ("loss", "refinement") and traits(kind, name).needs_soft_labels


def check_keys(values: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    """Raise PlanError, naming the nearest valid one, when `values` has a key that nothing reads."""
    for key in values:
        if key not in valid:
            raise PlanError(f"{where}.{key}: unknown key: {nearest(key, valid)}")


def check_budget(cell: Cell, method: Mapping[str, Any], expected: Expected | None) -> None:
    """Raise PlanError when ipc is no positive number, or, as far as what is expected of the data tells, more than a class has or too
    little for the method."""
    if not isinstance(cell.ipc, int | float) or not cell.ipc > 0:
        raise PlanError(
            f"ipc {cell.ipc!r} on '{cell.dataset}': must be a number above 0, images per class"
        )
    if cell.ipc != int(cell.ipc) and not traits("method", cell.row.method).fractional_ipc:
        raise PlanError(
            f"ipc {cell.ipc!r} on '{cell.dataset}': method '{cell.row.method}' needs a whole number"
        )
    if expected and cell.ipc > expected.train / expected.classes:
        most = expected.train // expected.classes
        raise PlanError(
            f"ipc {cell.ipc:g} on '{cell.dataset}': a class has about {most} training images; ask for less"
        )
    if expected and instances(method, cell.ipc, expected.classes) < 1:
        raise PlanError(
            f"ipc {cell.ipc:g} on '{cell.dataset}': too little for method '{cell.row.method}'; ask for more"
        )


def check_labels(labels: Mapping[str, Any], method: Mapping[str, Any], row: str) -> None:
    """Raise PlanError when the labels are those that a set holds itself, and the method makes none, as the literal SOFT of its
    file or, where it depends on the recipe, the recipe's `soft` says."""
    kind, soft = labels["name"], traits("method", method["name"]).soft_labels
    if traits("label", kind).stored_in_set and not getattr(
        recipe_object("method", method), "soft", soft
    ):
        raise PlanError(
            f"row '{row}': labels '{kind}' are those that a set holds, method '{method['name']}' stores none with this recipe; "
            f"use hard, or labels of teachers"
        )


def check_pixels(recipe: Mapping[str, Any], inputs: Mapping[str, Any], what: str) -> None:
    """Raise PlanError, beginning with `what`, when teachers would see the images of a whitened set."""
    if recipe.get("teachers") and "whitening" in inputs:
        raise PlanError(
            f"{what} teachers, which see normalised pixels; set distill.whitening to none for this row"
        )
