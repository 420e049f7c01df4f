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
from distillery.plan.budgets import budgeted
from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.models import Dataset, checked
from distillery.plan.nodes import Node
from distillery.plan.origins import as_tree
from distillery.plan.overrides import SPECIAL
from distillery.plan.settings import RECIPES, SHARED, Settings
from distillery.plan.stage_plans.evaluate import plan_evaluations
from distillery.plan.table_models import Row, Table

PAPER = "paper"  # the scale of the papers' own recipes
# Where the data lie; what they are, the data stage holds against the scale's `expected`.
_PLACE_OF_DATA = ("source", "digest")
_HARMLESS = ("test_every",)  # no number of a last epoch follows from it
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
        try:
            if self._is_unchanged and self._has(name, table, place):
                return ""
            if (printed := self._with_their_network(name, place)) is None:
                return f"another network ({place['student']})"
            theirs = self._reference(name, table, row, printed)
        except PlanError as error:
            return f"the scale '{PAPER}' has no such cell ({error})"
        found = {(one.stage, one.path): one for one in differences(ours, theirs)}
        return self._told(row, list(found.values()))

    def _reference(self, name: str, table: Table, row: Row, place: Mapping[str, Any]) -> Node:
        """A student of the cell as the scale `paper` plans it."""
        context = self._context
        override = context.settings.override(name, table, row, place)
        experiment = Experiment.at(place, row.model_copy(update={"override": override}))
        return plan_evaluations(budgeted(experiment, context), 1, context)[0]

    @cached_property
    def _is_unchanged(self) -> bool:
        return self._settings.params.scale == PAPER and not self._changes

    def _has(self, name: str, table: Table, place: Mapping[str, Any]) -> bool:
        """Whether the scale `paper` itself has the table at a place."""
        axes, panel = self._context.settings.scale.tables.get(name, {}), place[table.panel]
        return all(place[axis] in _on(axes.get(axis, []), panel) for axis in place)

    def _with_their_network(self, name: str, place: Mapping[str, Any]) -> dict[str, Any] | None:
        """The place with the network that the scale `paper` has under the printed name, if any."""
        if (student := place.get("student")) is None:
            return dict(place)
        paper, tables = name.partition("/")[0], self._context.settings.scale.tables
        first_own = sorted(tables, key=lambda one: one != name)
        axes = [tables[one].get("student", []) for one in first_own if one.startswith(f"{paper}/")]
        words = self._settings.paper(paper).words.names().same.get("eval_arch", {})

        def word(network: str) -> str:
            return str(words.get(network, {}).get("eval_arch", network))

        named = [one for axis in axes for one in _all(axis) if word(one) == word(student)]
        if not named:
            return None
        return dict(place) | {"student": student if student in named else named[0]}

    def _told(self, row: Row, found: list[Difference]) -> str:
        if not found:
            return ""
        told = [(self._origin(one, row), one) for one in found]
        origin, first = min(told, key=lambda pair: (pair[0] is None, _KINDS.index(pair[1].kind)))
        where = origin or f"scale {self._settings.params.scale}"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return (
            f"another {first.kind}: {first.stage} {first.path} = {shown(first.ours)}, "
            f"the paper's {shown(first.theirs)} ({where}{more})"
        )

    def _origin(self, one: Difference, row: Row) -> str | None:
        """File and key in params.yaml that say the value, in the block that the row reads."""
        blocks = {
            "evaluate": row.evaluation,
            "distill": row.distill or row.method,
            "label": row.labels.recipe,
        }
        for path, (value, place) in self._changes.items():
            keys = path.split(".")
            if keys[0] == "datasets":
                keys = keys[2:]
            if len(keys) < 3 or keys[0] not in (one.stage, "networks") or value != one.ours:
                continue
            own = _without_conditions(keys[2:])
            if keys[1] == blocks.get(keys[0], keys[1]) and one.path.split(".")[-len(own) :] == own:
                return place
        return None


def _without_conditions(keys: list[str]) -> list[str]:
    """Keys of a value without those that say for which ipc or student it holds."""
    while len(keys) > 2 and keys[0] in SPECIAL:
        keys = keys[2:]
    return keys


def _on(axis: Any, panel: Any) -> Any:
    return axis.get(panel, []) if isinstance(axis, Mapping) else axis


def _all(axis: Any) -> list[Any]:
    return [v for values in axis.values() for v in values] if isinstance(axis, Mapping) else axis


def differences(ours: Node, theirs: Node) -> Iterator[Difference]:
    """What two artefacts, or those that they are made from, differ in; places of data aside."""
    if ours.key == theirs.key:
        return
    stage = ours.spec.stage
    mine, other = (dict(_flat(node.spec.recipe)) for node in (ours, theirs))
    for path in {**mine, **other}:
        a, b = mine.get(path), other.get(path)
        skipped = (stage == "data" and path in _PLACE_OF_DATA) or path.endswith(_HARMLESS)
        if a != b and not skipped:
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
