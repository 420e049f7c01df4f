"""Whether a cell measures what the paper printed: its plan against that of the scale `paper`.

Names say little: a recipe that params.yaml changed is not the paper's any more. So the artefacts
that the present settings plan are held against those that the scale `paper` plans for the same
cell without params.yaml, value by value and input by input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from distillery.errors import PlanError, shown
from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.models import Dataset, Row, Table, checked
from distillery.plan.nodes import Node
from distillery.plan.origins import as_tree
from distillery.plan.settings import RECIPES, SHARED, Settings
from distillery.plan.stage_plans.evaluate import plan_evaluations

PAPER = "paper"  # the scale of the papers' own recipes
# Where the data lie; what they are, the data stage holds against the scale's `expected`.
_PLACE_OF_DATA = ("source", "digest")
_KINDS = ("data set", "network", "protocol", "recipe")  # the order in which they are told


class Difference(NamedTuple):
    """A value that the present settings and the scale `paper` resolve differently."""

    stage: str
    path: str
    ours: Any
    theirs: Any

    @property
    def kind(self) -> str:
        """What it makes another one: data set, network, protocol or recipe."""
        if self.stage == "data":
            return "data set"
        if self.stage == "evaluate":
            return "network" if self.path.startswith("student") else "protocol"
        return "recipe"


class PaperScale:
    """The scale `paper` without params.yaml, read when a cell first needs it."""

    def __init__(self, settings: Settings) -> None:
        """Read nothing yet; `settings` are those that are compared."""
        self._settings = settings

    @cached_property
    def _changes(self) -> dict[str, tuple[Any, str]]:
        """What params.yaml changes, by key: value and place."""
        found = {}
        for layer in self._settings.changes().values():
            tree = {key: layer[key] for key in (*RECIPES, *SHARED) if key in layer}
            for key, item in tree.items():
                found.update({p: (leaf.value, leaf.place) for p, leaf in as_tree(item).leaves(key)})
        return found

    @cached_property
    def _context(self) -> Context:
        params = self._settings.params
        said = {"scale": PAPER, "tables": params.tables, "environment": params.environment}
        return Context(Settings(self._settings.root, said))

    def is_users_own(self, dataset: str) -> bool:
        """Whether params.yaml defines a data set, or changes what one of the scale is.

        Another place of the same data is no other data set: their counts and shape are checked.
        """
        if dataset not in self._settings.params.datasets:
            return False
        stated = self._settings.stated_dataset(dataset)
        if stated is None:
            return True
        before = checked(Dataset, stated, self._settings.scale_file)
        return _facts(before) != _facts(self._settings.scale.datasets[dataset])

    def reason(
        self, name: str, table: Table, row: Row, place: Mapping[str, Any], ours: Node
    ) -> str:
        """Why what `ours` measures at `place` is not what the paper printed; "" where it is.

        Args:
            name: `paper/table`.
            table: what its file holds.
            row: of it, without the overrides of the place.
            place: the value of each axis.
            ours: a student of the cell.
        """
        if self._settings.params.scale == PAPER and not self._changes:
            return ""
        try:
            context = self._context
            override = context.settings.override(name, table, row, place)
            experiment = Experiment.at(place, row.model_copy(update={"override": override}))
            theirs = plan_evaluations(experiment, 1, context)[0]
        except PlanError as error:
            return f"the scale '{PAPER}' has no such cell ({error})"
        return self._told(list({(d.stage, d.path): d for d in differences(ours, theirs)}.values()))

    def _told(self, found: list[Difference]) -> str:
        if not found:
            return ""
        first = min(found, key=lambda one: (self._origin(one) is None, _KINDS.index(one.kind)))
        where = self._origin(first) or f"scale {self._settings.params.scale}"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return (
            f"another {first.kind}: {first.stage} {first.path} = {shown(first.ours)}, "
            f"the paper's {shown(first.theirs)} ({where}{more})"
        )

    def _origin(self, one: Difference) -> str | None:
        """File and key in params.yaml that say the value."""
        end = one.path.rpartition(".")[2]
        stages = (one.stage, "datasets", "networks")
        for path, (value, place) in self._changes.items():
            if path.startswith(stages) and path.endswith(f".{end}") and value == one.ours:
                return place
        return None


def differences(ours: Node, theirs: Node) -> Iterator[Difference]:
    """What two artefacts, or those that they are made from, differ in; places of data aside."""
    if ours.key == theirs.key:
        return
    stage = ours.spec.stage
    mine, other = (dict(_flat(node.spec.recipe)) for node in (ours, theirs))
    for path in {**mine, **other}:
        a, b = mine.get(path), other.get(path)
        if a != b and not (stage == "data" and path in _PLACE_OF_DATA):
            yield Difference(stage, path, a, b)
    for role in {**ours.inputs, **theirs.inputs}:
        a_nodes, b_nodes = ours.inputs_of(role), theirs.inputs_of(role)
        if len(a_nodes) != len(b_nodes):
            yield Difference(stage, f"number of {role}", len(a_nodes), len(b_nodes))
            continue
        for a_node, b_node in zip(a_nodes, b_nodes, strict=True):
            yield from differences(a_node, b_node)


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(values) if isinstance(values, tuple) else values


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What a data set is, beside where it lies and how it is treated."""
    kept = Dataset.model_fields.keys() - set(RECIPES) - {"networks", "ensemble", *_PLACE_OF_DATA}
    return {field: getattr(dataset, field) for field in sorted(kept)}


def other_place(place: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """Why a place cannot be compared with the paper's that it stands for."""
    words = {"dataset": "data set", "student": "network"}
    found = [
        f"another {words.get(axis, axis)} ({place[axis]}, not {value})"
        for axis, value in paper.items()
        if place.get(axis) != value
    ]
    return "; ".join(found)
