"""Cells to artefacts: each stage's resolved recipe, its inputs, the code it runs, and the identity that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distillery.components.registry import module_name
from distillery.data.digest import place_digest
from distillery.data.source import parse
from distillery.errors import DataError, PlanError
from distillery.plan.checks import (
    PARTS,
    check_budget,
    check_keys,
    check_labels,
    check_mix,
    check_pixels,
    check_soft,
)
from distillery.plan.models import Dataset, Row, RowLabels
from distillery.plan.settings import Settings
from distillery.plan.types import (
    component,
    component_modules,
    named_modules,
    torch_free_part,
    traits,
    validated,
)
from distillery.store.canonical import file_sha256
from distillery.store.fingerprint import code_digest
from distillery.store.spec import Spec
from distillery.training.recipe import Training

NOTHING = "none"  # of a whitening or an embedding: None would stand for the default
HARD = RowLabels(kind="hard", recipe="hard")


@dataclass(frozen=True)
class Cell:
    """One measured position of a table: everything but the repeat. augmented: whether its protocol may augment."""

    dataset: str
    ipc: float
    student: str | None
    row: Row
    augmented: bool = True

    @classmethod
    def at(cls, place: Mapping[str, Any], row: Row) -> Cell:
        """The cell of a row at a place of the axes; 10.0 images per class are the same cell as 10."""
        ipc = place["ipc"]
        whole = isinstance(ipc, float) and ipc.is_integer()
        return cls(place["dataset"], int(ipc) if whole else ipc, place.get("student"), row)


@dataclass(frozen=True, eq=False)
class Node:
    """A planned artefact with its upstream nodes by role; `dataset` tells the estimates what it works on."""

    spec: Spec
    inputs: dict[str, Node | list[Node]]
    dataset: str

    @cached_property
    def key(self) -> str:
        """Identity without code."""
        keys = {
            role: [n.key for n in up] if isinstance(up, list) else up.key
            for role, up in self.inputs.items()
        }
        return self.spec.key(keys)

    @property
    def address(self) -> str:
        """`stage/id`, its place below the store."""
        return self.spec.address

    def upstream(self) -> list[Node]:
        """The direct inputs, in a fixed order."""
        roles = (self.inputs[role] for role in sorted(self.inputs))
        return [node for up in roles for node in (up if isinstance(up, list) else [up])]


class Builder:
    """Makes nodes from settings; the same cell is the same node, whichever table asks."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self._made: dict[Any, Node] = {}

    def _node(
        self,
        stage: str,
        label: str,
        recipe: dict,
        inputs: Mapping[str, Any],
        roots: list[str],
        dataset: str,
        **local: Any,
    ) -> Node:
        addresses = {
            r: [n.address for n in up] if isinstance(up, list) else up.address
            for r, up in inputs.items()
        }
        roots = sorted({"distillery.store.runtime", f"distillery.stages.{stage}", *roots})
        spec = Spec(
            stage,
            label.replace(":", "-").replace("/", "-"),
            recipe,
            addresses,
            roots,
            code_digest(roots),
            local,
            self.settings.params.environment,
        )
        node = Node(spec, dict(inputs), dataset)
        return self.nodes.setdefault(node.address, node)

    def _remember(self, key: Any, make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def data(self, name: str) -> Node:
        """The canonical data set."""
        return self._remember(("data", name), lambda: self._data(name, self.settings.dataset(name)))

    def _data(self, name: str, dataset: Dataset) -> Node:
        root, where = self.settings.root, f"{self.settings.scale_file}.datasets.{name}"
        data_recipe = torch_free_part("distillery.stages.data").DataRecipe
        try:
            kind, place = parse(dataset.source)
            on_disk = traits("source", kind).on_disk
            digest = dataset.digest or _source_digest(dataset.source, root) or "absent"
        except DataError as error:
            raise PlanError(f"{where}.source: {error}") from None
        fields = {f.name for f in dataclasses.fields(data_recipe)} & set(Dataset.model_fields) - {
            "source",
            "digest",
        }
        values = {
            key: value for key in fields if (value := getattr(dataset, key)) not in (None, {})
        }
        checked = validated(
            data_recipe,
            values | {"source": kind if on_disk else dataset.source, "digest": digest},
            where,
        )
        recipe = dict.fromkeys(f.name for f in dataclasses.fields(data_recipe)) | checked
        local = {"source": f"{kind}:{root / place}"} if on_disk else {}
        return self._node("data", name, recipe, {}, [module_name("source", kind)], name, **local)

    def teacher(self, name: str, dataset: str) -> Node:
        """A teacher of architecture `name` (an entry of `networks`, or a network) on a data set."""
        return self._remember(("teacher", name, dataset), lambda: self._teacher(name, dataset))

    def _teacher(self, name: str, dataset: str) -> Node:
        settings = self.settings
        network = self._network(name, dataset)
        recipe = settings.recipe("teacher", name, settings.dataset(dataset), {})
        weights = recipe.get("weights")
        where = f"{settings.scale_file}.teacher.{name}"
        check_keys(recipe, ("loss", "training", "weights"), where)
        training = (
            None
            if weights
            else validated(Training, recipe.get("training", {}), f"{where}.training")
        )
        loss = None if weights else component("loss", recipe.get("loss", "ce"), f"{where}.loss")
        values = {"network": network, "training": training, "loss": loss, "weights": weights}
        roots = [
            module_name("network", network["name"]),
            *([module_name("loss", loss["name"])] if loss else []),
            *(named_modules(Training, training) if training else []),
        ]
        return self._node(
            "teacher", f"{dataset}-{name}", values, {"data": self.data(dataset)}, roots, dataset
        )

    def _network(self, name: str, dataset: str) -> dict[str, Any]:
        settings = self.settings
        return component(
            "network",
            settings.network(name, settings.dataset(dataset)),
            f"{settings.scale_file}.networks.{name}",
        )

    def teachers(self, recipe: Mapping[str, Any], dataset: str) -> dict[str, list[Node]]:
        """The teachers a method or label recipe names in its `teachers`, as an input role (empty when it names none)."""
        names = recipe.get("teachers") or []
        return {"teachers": [self.teacher(name, dataset) for name in names]} if names else {}

    def distill(self, cell: Cell) -> Node:
        """The distilled set of a cell."""
        override = [cell.row.override.get(stage) for stage in ("whiten", "embed", "distill")]
        key = (
            "distill",
            cell.dataset,
            cell.ipc,
            cell.student,
            cell.row.method,
            cell.row.distill,
            repr(override),
        )
        return self._remember(key, lambda: self._distill(cell))

    def _distill(self, cell: Cell) -> Node:
        settings, method, dataset = (
            self.settings,
            cell.row.method,
            self.settings.dataset(cell.dataset),
        )
        block = cell.row.distill or method
        where = f"{settings.scale_file}.distill.{block}"
        values = settings.recipe("distill", block, dataset, cell.row.override, cell)
        if isinstance(values.get("network"), str):
            values["network"] = settings.network(settings.alias(values["network"], cell), dataset)
        recipe = component("method", values | {"name": method}, where)
        roots = component_modules("method", recipe)
        if "network" in recipe:
            recipe["network"] = component("network", recipe["network"], f"{where}.network")
            roots.append(module_name("network", recipe["network"]["name"]))
        if "teachers" in traits("method", method).needs and not recipe.get("teachers"):
            raise PlanError(f"{where}.teachers: is empty, {method} needs at least one teacher")
        check_budget(cell, recipe, dataset.expected)
        inputs = {
            "data": self.data(cell.dataset),
            **self.teachers(recipe, cell.dataset),
            **self._prepared(recipe, cell),
        }
        label = f"{cell.dataset}-{method}-ipc{cell.ipc:g}"
        return self._node(
            "distill", label, {"method": recipe, "ipc": cell.ipc}, inputs, roots, cell.dataset
        )

    def _prepared(self, recipe: Mapping[str, Any], cell: Cell) -> dict[str, Node]:
        """What a method's recipe asks for by its fields `whitening` and `embedding`, as input roles: "none" for nothing."""
        whitening, embedding = (
            recipe.get("whitening") or NOTHING,
            recipe.get("embedding") or NOTHING,
        )
        found = {} if whitening == NOTHING else {"whitening": self.whitening(whitening, cell)}
        return found | (
            {} if embedding == NOTHING else {"embeddings": self.embeddings(embedding, cell)}
        )

    def whitening(self, name: str, cell: Cell) -> Node:
        """The whitening `name`, a block below `whiten`, of a cell's data set."""
        settings = self.settings
        values = settings.recipe(
            "whiten", name, settings.dataset(cell.dataset), cell.row.override, cell
        )
        recipe = validated(
            torch_free_part("distillery.stages.whiten").WhitenRecipe,
            values,
            f"{settings.scale_file}.whiten.{name}",
        )
        return self._node(
            "whiten",
            f"{cell.dataset}-{name}",
            recipe,
            {"data": self.data(cell.dataset)},
            [],
            cell.dataset,
        )

    def embeddings(self, name: str, cell: Cell) -> Node:
        """The embeddings `name`, a block below `embed`, of a cell's classes. A file's path is no part of the identity, its
        SHA-256 is."""
        settings, where = self.settings, f"{self.settings.scale_file}.embed.{name}"
        values = settings.recipe(
            "embed", name, settings.dataset(cell.dataset), cell.row.override, cell
        )
        source = component("embedding", {"name": name} | values, where)
        if "teachers" in traits("embedding", source["name"]).needs and not source.get("teachers"):
            raise PlanError(f"{where}.teachers: is empty, '{name}' needs at least one teacher")
        inputs = {"data": self.data(cell.dataset), **self.teachers(source, cell.dataset)}
        recipe, local = (
            {"source": {key: value for key, value in source.items() if key != "path"}},
            {},
        )
        if source.get("path"):
            place = settings.root / source["path"]
            recipe["digest"] = self._remember(("file", place), lambda: _content(place))
            local = {"source": source | {"path": str(place)}}
        roots = component_modules("embedding", source)
        return self._node(
            "embed", f"{cell.dataset}-{name}", recipe, inputs, roots, cell.dataset, **local
        )

    def label_recipe(self, cell: Cell) -> dict[str, Any]:
        """The label component of a cell: its kind is its name."""
        row, settings = cell.row, self.settings
        block = row.labels.recipe
        if block == "hard" and block not in settings.scale.label:
            return component("label", "hard", "label.hard")
        values = settings.recipe("label", block, settings.dataset(cell.dataset), row.override, cell)
        where = f"{settings.scale_file}.label.{block}"
        replayed = traits("label", row.labels.kind).replays
        training = self.protocol(cell)["training"] if replayed else {}
        values = {"name": row.labels.kind} | values | {key: training.get(key) for key in replayed}
        recipe = component("label", values, where)
        if recipe.get("teachers") in ([], ()):
            raise PlanError(f"{where}.teachers: is empty, '{block}' needs at least one teacher")
        self._check_labels(cell, recipe)
        return recipe

    def _check_labels(self, cell: Cell, labels: Mapping[str, Any]) -> None:
        distilled = self.distill(cell)
        check_labels(labels, distilled.spec.recipe["method"], cell.row.row)
        check_pixels(
            labels, distilled.inputs, f"row '{cell.row.row}': labels '{labels['name']}' are made by"
        )

    def label(self, cell: Cell) -> Node | None:
        """The stored labels of a cell, or None when its kind stores nothing (hard, dynamic)."""
        recipe = self.label_recipe(cell)
        if not traits("label", recipe["name"]).stored:
            return None
        inputs = {"distilled": self.distill(cell), **self.teachers(recipe, cell.dataset)}
        label = f"{cell.dataset}-{cell.row.method}-ipc{cell.ipc:g}-{recipe['name']}"
        roots = [*component_modules("label", recipe), module_name("method", cell.row.method)]
        return self._node("label", label, recipe, inputs, roots, cell.dataset)

    def protocol(self, cell: Cell) -> dict[str, Any]:
        """The evaluation recipe of a cell: loss, training, and refine where its block has one."""
        settings, (name, where) = self.settings, self._protocol(cell)
        values = settings.recipe(
            "evaluate", name, settings.dataset(cell.dataset), cell.row.override, cell
        )
        check_keys(values, ("loss", "refine", "training"), where)
        training = validated(Training, values.get("training", {}), f"{where}.training")
        training |= {} if cell.augmented else {"augment": []}
        loss, refine = component("loss", values.get("loss"), f"{where}.loss"), values.get("refine")
        check_mix(loss, training, where)
        refined = (
            {} if refine is None else {"refine": component("refinement", refine, f"{where}.refine")}
        )
        return {"loss": loss, **refined, "training": training}

    def _protocol(self, cell: Cell) -> tuple[str, str]:
        """The name of a cell's block below `evaluate`, and where it stands."""
        name = cell.row.evaluation
        return name, f"{self.settings.scale_file}.evaluate.{name}"

    def evaluations(self, cell: Cell, repeats: int) -> tuple[Node, ...]:
        """The students of a cell, one artefact per repeat."""
        recipe, inputs, roots = self._students(cell)
        name = f"{cell.dataset}-{cell.row.method}-ipc{cell.ipc:g}-{recipe['labels']['name']}-{cell.student}"
        return tuple(
            self._node(
                "evaluate",
                f"{name}-r{repeat}",
                recipe | {"repeat": repeat},
                inputs,
                roots,
                cell.dataset,
            )
            for repeat in range(repeats)
        )

    def _students(self, cell: Cell) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """How students of a cell are trained: recipe without repeat, inputs, and the modules of the components."""
        label, labels = self.label(cell), self.label_recipe(cell)
        recipe = {
            "student": self._network(cell.student, cell.dataset),
            "labels": labels,
            **self.protocol(cell),
        }
        check_soft(recipe, cell.row.row, self._protocol(cell)[1])
        inputs = self._set(cell) | (
            {"label": label} if label else self.teachers(labels, cell.dataset)
        )
        roots = [
            module
            for part, kind in PARTS.items()
            if part in recipe
            for module in component_modules(kind, recipe[part])
        ]
        roots += [module_name("method", cell.row.method)]
        return recipe, inputs, [*roots, *named_modules(Training, recipe["training"])]

    def _set(self, cell: Cell) -> dict[str, Any]:
        """What a look at the distilled set of a cell takes, as input roles: the set, its data, and its whitening."""
        distilled = self.distill(cell)
        whitening = distilled.inputs.get("whitening")
        return {"data": self.data(cell.dataset), "distilled": distilled} | (
            {"whitening": whitening} if whitening else {}
        )

    def _embeddings_of(self, cell: Cell, analysis: str) -> Node:
        found = self.distill(cell).inputs.get("embeddings")
        if not found:
            row, method = cell.row.row, cell.row.method
            raise PlanError(
                f"row '{row}': analysis '{analysis}' needs embeddings; name some in distill.{method}.embedding"
            )
        return found

    def scores(self, cell: Cell, repeats: int) -> dict[str, tuple[Node, ...]]:
        """What DD-Ranking's scores of a cell need beside its own evaluations (`table.scores`), by the name of the accuracy.

        Random images are one draw of the same ipc, under the same labels and protocol. Raises PlanError when the student's
        network has no teacher recipe: its accuracy on the real data is that teacher's.
        """
        distilled = {key: block for key, block in cell.row.override.items() if key == "distill"}
        trained = {key: block for key, block in cell.row.override.items() if key != "distill"}
        hard = cell.row.model_copy(
            update={"labels": HARD, "protocol": "hard", "override": distilled}
        )
        drawn = replace(
            cell, row=cell.row.model_copy(update={"method": "random", "override": trained})
        )
        others = {
            "syn_hard": replace(cell, row=hard),
            "rdm_any": drawn,
            "syn_noaug": replace(cell, augmented=False),
            "rdm_noaug": replace(drawn, augmented=False),
        }
        return {"real_hard": (self._real(cell),)} | {
            name: self.evaluations(other, repeats) for name, other in others.items()
        }

    def _real(self, cell: Cell) -> Node:
        try:
            return self.teacher(cell.student, cell.dataset)
        except PlanError as error:
            raise PlanError(
                f"scores need the accuracy of student '{cell.student}' on the real data: {error}"
            ) from None

    def analyses(self, cell: Cell, name: str, repeats: int) -> tuple[Node, ...]:
        """What an analysis finds in the distilled set of a cell (one artefact), in each of its students, or with students that
        it trains itself as the cell's protocol says (one artefact per repeat)."""
        needs, analysis = traits("analysis", name).needs, self._analysis(cell, name)
        recipe, inputs, roots = (
            self._students(cell) if "protocol" in needs else self._looked_at(cell, analysis, needs)
        )
        if "protocol" in needs and traits("label", recipe["labels"]["name"]).replays:
            kind, row = recipe["labels"]["name"], cell.row.row
            raise PlanError(
                f"row '{row}': labels '{kind}' fit the batches of one training; for {name} use static or dynamic"
            )
        recipe, roots = (
            {"analysis": analysis} | recipe,
            [*roots, *component_modules("analysis", analysis)],
        )
        stem = f"{cell.dataset}-{name}-{cell.row.method}-ipc{cell.ipc:g}"
        if not {"student", "protocol"} & set(needs):
            return (self._node("analyse", stem, recipe, inputs, roots, cell.dataset),)
        stem += f"-{cell.row.labels.kind}-{cell.student}"
        each = (
            [{"student": node} for node in self.evaluations(cell, repeats)]
            if "student" in needs
            else [{}] * repeats
        )
        return tuple(
            self._node(
                "analyse", f"{stem}-r{i}", recipe | {"repeat": i}, inputs | own, roots, cell.dataset
            )
            for i, own in enumerate(each)
        )

    def _looked_at(
        self, cell: Cell, analysis: dict[str, Any], needs: tuple[str, ...]
    ) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """Of an analysis that trains nothing: recipe without the analysis itself, inputs, and the modules of the components."""
        labels, label = (
            (self.label_recipe(cell), self.label(cell)) if "label" in needs else (None, None)
        )
        inputs = (
            self._set(cell)
            | ({"label": label} if label else {})
            | self.teachers(analysis, cell.dataset)
        )
        check_pixels(
            analysis, inputs, f"row '{cell.row.row}': analysis '{analysis['name']}' looks with"
        )
        if "embeddings" in needs:
            inputs |= {"embeddings": self._embeddings_of(cell, analysis["name"])}
        student = self._network(cell.student, cell.dataset) if "student" in needs else None
        parts = {"method": {"name": cell.row.method}, "label": labels, "network": student}
        recipe = {"labels": labels} | ({"student": student} if student else {})
        return (
            recipe,
            inputs,
            [module_name(kind, part["name"]) for kind, part in parts.items() if part],
        )

    def _analysis(self, cell: Cell, name: str) -> dict[str, Any]:
        values = self.settings.recipe(
            "analyse", name, self.settings.dataset(cell.dataset), cell.row.override, cell
        )
        where = f"{self.settings.scale_file}.analyse.{name}"
        recipe = component("analysis", {"name": name} | values, where)
        if "teachers" in traits("analysis", name).needs and not recipe.get("teachers"):
            raise PlanError(f"{where}.teachers: is empty, {name} needs at least one teacher")
        return recipe


def _source_digest(source: str, root: Path) -> str | None:
    """What identifies the content of `kind:place`; None when its folder is not there."""
    kind, place = parse(source)
    if traits("source", kind).on_disk:
        return place_digest(root / place, root / "results/scratch/digests.json")
    return source  # it names a fixed release


def _content(file: Path) -> str:
    """SHA-256 of a file, hex; "absent" while it is not there, so that planning goes on without it."""
    return file_sha256(file) if file.is_file() else "absent"
