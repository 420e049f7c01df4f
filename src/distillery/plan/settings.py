"""The settings of a run: params.yaml and the scale it names, checked, and resolved layer by layer.

A recipe has these layers: scale, data set, params.yaml, its block of `scales` for this scale, and
the row of a table with its axes; later ones win, since a row without its override would no longer
be that row. In each layer, what stands below `per_dataset.<dataset>` wins over what stands beside
it, `per_ipc.<ipc>` over both, and `per_student.<student>` over all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest, shown
from distillery.plan.changes import BY_TABLE, check_changes
from distillery.plan.models import Counts, Dataset, Params, Scale, TableCounts, checked
from distillery.plan.origins import (
    Leaf,
    Override,
    ResolvedBlock,
    Tree,
    Where,
    as_tree,
    combine,
    located,
    merge,
    plain,
    with_place,
)
from distillery.plan.overrides import Point, check_kinds, check_overrides, sublayers
from distillery.plan.params import (
    ELSEWHERE,
    FOR_ALL_SCALES,
    PARAMS,
    SCALES,
    axes_of_scales,
    layered,
    scale_names,
)
from distillery.plan.references import check_paper, check_references, full_name
from distillery.plan.table_files import (
    RECIPES,
    check_table,
    printed_axes,
    read_paper,
    read_table,
    table_file,
    table_files,
)
from distillery.plan.table_models import Paper, Row, Table
from distillery.plan.yaml_files import read_yaml

__all__ = ["ENSEMBLE", "PARAMS", "RECIPES", "Point", "Settings", "merge", "read_yaml"]

ENSEMBLE = "ensemble"
SHARED = ("datasets", "networks", ENSEMBLE)  # keys of params.yaml that change the scale's


class Settings:
    """All settings of one run.

    Attributes:
        root: the project's folder, with params.yaml and workflow/.
        params: params.yaml, or what was given in its place.
        scale: the scale that it names, with its data sets, networks, ensemble and grid.
        scale_file: where the scale stands, below `root`.
        tree: the same as `scale`, each value with its place.
    """

    def __init__(
        self,
        root: Path,
        params: Mapping[str, Any] | None = None,
        command_line: Mapping[str, Any] | None = None,
    ) -> None:
        """Read and check both files.

        Args:
            root: the project's folder.
            params: what to take in place of params.yaml (Snakemake's config).
            command_line: what of it the command line said, which wins over `scales`.

        Raises:
            PlanError: a file is missing or malformed, or has a wrong key or value.
        """
        self.root = root
        values = read_yaml(root / PARAMS) if params is None else params
        self._params = layered(values, command_line or {}, root)
        self.params: Params = self._params.values
        name = self.params.scale
        self.scale_file = f"{SCALES}/{name}.yaml"
        if name not in scale_names(root):
            raise PlanError(f"{PARAMS}.scale = '{name}': {nearest(name, scale_names(root))}")
        check_paper(root, self.params.paper, self._params.where)
        raw = read_yaml(root / self.scale_file)
        checked(Scale, raw, self.scale_file)  # by itself, before params.yaml hides what is wrong
        self.tree = self._with_params(located(raw, self.scale_file))
        self.scale: Scale = checked(Scale, plain(self.tree), self.where)
        self._check_overrides()
        check_references(root, self.params, self.scale, self.where, self._params.where)

    @property
    def where(self) -> Where:
        """The place of the scale: `where / "datasets" / name` is that of a data set."""
        return Where(self.tree, self.scale_file)

    def _with_params(self, scale: Any) -> Tree:
        """The scale with the data sets, networks, ensemble and grid of params.yaml."""
        self._scale, params = as_tree(scale), self._params.tree
        changes = {key: params[key] for key in SHARED if getattr(self.params, key)}
        check_changes(self.root, self._params, combine(self._scale, Tree(changes, [])), self._scale)
        for key, of_scale in BY_TABLE.items():
            if said := combine(*self._params.by_table(key, self.full_name).values()):
                changes[of_scale] = said
        return combine(self._scale, Tree(changes, []))

    def place_of(self, key: str) -> str:
        """File and key that say `key` of params.yaml, in the layer that wins."""
        return str(self._params.where / key)

    def changes(self) -> dict[str, Tree]:
        """What each layer of params.yaml and the command line says, the lowest first."""
        return self._params.layers

    def stated_dataset(self, name: str) -> dict[str, Any] | None:
        """What the scale's file says of a data set, without params.yaml; None: nothing."""
        found = as_tree(self._scale.get("datasets")).get(name)
        return None if found is None else dict(plain(found))

    def plain_layers(self) -> dict[str, Tree]:
        """What the scale and params.yaml say beside recipes; the grid is called `tables`."""
        of_scale = {key: item for key, item in self._scale.items() if key not in RECIPES}
        found = {"scale": Tree(of_scale, [])}
        grids = self._params.by_table("grid", self.full_name)
        for layer, values in self._params.layers.items():
            own = {key: item for key, item in values.items() if key not in (*RECIPES, "grid")}
            axes = Tree({"tables": grids[layer]} if grids[layer] else {}, [])
            found[layer] = combine(Tree(own, []), axes)
        return found

    def _check_overrides(self) -> None:
        """What the scale says per ipc or student must fit its tables, or those of params.yaml."""
        own = {
            name: {axis: plain(values) for axis, values in as_tree(axes).items()}
            for name, axes in as_tree(self._scale.get("tables")).items()
        }
        changed = {f"{name} of {PARAMS}": axes for name, axes in self.scale.tables.items()}
        check_overrides(self._scale, own | changed)
        for name, layer in self._params.layers.items():
            advice = ELSEWHERE if name == FOR_ALL_SCALES else ""
            check_overrides(layer, self.scale.tables, advice)

    def known_tables(self) -> dict[str, Table]:
        """Every table file of the project, as `paper/table`."""
        return {name: read_table(self.root, name) for name in table_files(self.root)}

    def paper(self, name: str) -> Paper:
        """What workflow/tables/<name>/paper.yaml says of a paper.

        Raises:
            PlanError: the file has a wrong key or value, or facts of a table that does not exist.
        """
        return read_paper(self.root, name)

    def table_names(self) -> list[str]:
        """Every table that this scale has axes for, as `paper/table`."""
        return sorted(self.scale.tables)

    def full_name(self, table: str) -> str:
        """`table2` is a table of the paper named in params.yaml; `gift/table2` names its paper."""
        return full_name(table, self.params.paper)

    def counts(self, name: str) -> Counts:
        """How often the numbers of `paper/table` are measured."""
        own = self.scale.counts.get(name, TableCounts())
        return Counts(own.draws or self.params.draws, own.students or self.params.students)

    def table(self, name: str) -> Table:
        """The table file of `paper/table`.

        Raises:
            PlanError: the table, or its axes at this scale, do not exist.
        """
        table = read_table(self.root, name)
        if name not in self.scale.tables:
            raise PlanError(
                f"{self.scale_file}: has no axes for table '{name}': add them below `tables`"
            )
        check_table(table, self.root, table_file(name))
        return table

    def override(self, name: str, table: Table, row: Row, axes: Mapping[str, Any]) -> Override:
        """The changes of recipes of a row of a table, and of values of the table's own axes.

        Args:
            name: `paper/table`.
            table: what its file holds.
            row: of that table.
            axes: values by axis; those that the table gives no meaning change nothing.

        Raises:
            PlanError: a value means nothing.
        """
        file = table_file(name)
        layers = {"row": as_tree(located(row.override, f"{file}: row '{row.row}': override"))}
        for axis, meaning in table.axes.items():
            if axis in axes:
                value, where = axes[axis], f"{file}.axes.{axis}"
                place = self.axis_place(name, axis, axes.get(table.panel))
                changes = located(meaning.override(value, place, where), f"{where}.values.{value}")
                if meaning.sets:  # the value itself stands in the grid
                    changes = with_place(changes, place)
                layers[f"axis {axis}"] = as_tree(changes)
        for layer in layers.values():
            axes_of = {**self.scale.tables, "of the paper": table.paper}
            check_overrides(
                layer, axes_of, further=lambda: axes_of_scales(self.root) | printed_axes(self.root)
            )
        return Override(layers)

    def _axes_elsewhere(self) -> dict[str, Any]:
        """What rows speak of too: axes of other scales, data sets that the papers print."""
        return axes_of_scales(self.root) | printed_axes(self.root)

    def axis_place(self, table: str, axis: str, panel: Any) -> str:
        """File and key of the values of a table's axis, or of those that it has on a panel."""
        where = self.where / "tables" / table / axis
        found = as_tree(as_tree(self.tree["tables"]).get(table)).get(axis)
        return str(where / str(panel) if isinstance(found, Tree) else where)

    def own_axis(self, table: str, axis: str) -> list[Any]:
        """The values of an axis that the scale itself gives a table, without params.yaml."""
        axes = as_tree(as_tree(self._scale.get("tables")).get(table))
        return list(plain(axes[axis])) if axis in axes else []

    def dataset(self, name: str, where: str | None = None) -> Dataset:
        """A data set of the scale or of params.yaml.

        Args:
            name: of the data set.
            where: the place that names it, for errors.

        Raises:
            PlanError: there is none; the message has the nearest name.
        """
        if name not in self.scale.datasets:
            hint = nearest(name, self.scale.datasets)
            raise PlanError(
                f"{where or self.scale_file}: dataset {shown(name)} does not exist: {hint}"
            )
        return self.scale.datasets[name]

    def layers(
        self, stage: str, name: str, dataset: str, override: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What each layer says of the recipe `stage.name`: a tree or a leaf, the lowest first.

        Args:
            stage: one of `RECIPES`.
            name: of the block.
            dataset: a name of the scale.
            override: of a row, by stage; an `Override` knows where it stands.

        Returns:
            By "scale", "data set", the layers of params.yaml, "row" and "axis <name>"; None where
            a layer has no such block.
        """
        self.dataset(dataset)
        of_dataset = as_tree(as_tree(self.tree["datasets"])[dataset])
        found = {"scale": self.tree, "data set": of_dataset, **self._params.layers}
        layers = {layer: as_tree(blocks.get(stage)).get(name) for layer, blocks in found.items()}
        changes = Override.of(override).layers
        return layers | {layer: blocks.get(stage) for layer, blocks in changes.items()}

    def recipe(
        self,
        stage: str,
        name: str,
        dataset: str,
        override: Mapping[str, Any],
        point: Point | None = None,
        asked_by: str = "",
    ) -> ResolvedBlock:
        """The recipe `stage.name` from all layers; `teachers` are networks.

        Args:
            stage: one of `RECIPES`.
            name: of the block.
            dataset: a name of the scale.
            override: of a row, by stage; an `Override` knows where it stands.
            point: ipc and student, for what depends on them.
            asked_by: the row that names the block, for an error.

        Returns:
            The values, not checked yet.

        Raises:
            PlanError: no file has a block of that name, one layer has a value where another has
                keys, or the ensemble is too small.
        """
        blocks, nominal = self.layers(stage, name, dataset, override), self.nominal(stage, name)
        files = [blocks[layer] for layer in ("scale", "data set", *self._params.layers)]
        changes = Override.of(override).tree.get(stage)
        if all(block is None for block in files):
            start = f"{asked_by}: {nominal}" if asked_by else nominal
            raise PlanError(f"{start}: no such block: {nearest(name, getattr(self.scale, stage))}")
        parts = [sublayers(layer, point) for layer in (*files, changes)]
        check_kinds([part for layer in parts for part in layer])
        named = (Tree({name: combine(*layer)}, []) for layer in parts)
        recipe = ResolvedBlock(combine(*named)[name], nominal)
        if "teachers" in recipe:
            where = recipe.where / "teachers"
            recipe["teachers"] = self._teachers(recipe["teachers"], dataset, point, where)
        return recipe

    def nominal(self, stage: str, name: str) -> str:
        """Where the block `stage.name` stands in the scale, or should."""
        return f"{self.scale_file}.{stage}.{name}"

    def _teachers(self, teachers: Any, dataset: str, point: Point | None, where: Where) -> Any:
        if teachers == "student" and point and point.student:
            return [point.student]
        if isinstance(teachers, str):
            return self.ensemble(teachers, dataset, where)
        aliases = self.scale.network_aliases
        if not isinstance(teachers, list):  # what is no name either, the recipe's type refuses
            return teachers
        return [aliases.get(t, t) if isinstance(t, str) else t for t in teachers]

    def ensemble(self, text: str, dataset: str, where: Where | str) -> list[str]:
        """The networks of "ensemble" (all) or "ensemble:N" (the first N).

        Raises:
            PlanError: it says something else, or there are not that many.
        """
        networks = self.dataset(dataset).ensemble or self.scale.ensemble
        name, colon, count = text.partition(":")
        if name != ENSEMBLE or (colon and not count.isdecimal()):
            raise PlanError(
                f"{where} = '{text}': write a list of networks, 'student', '{ENSEMBLE}', "
                f"or '{ENSEMBLE}:2' for its first two"
            )
        first = int(count) if colon else len(networks)
        if not 0 < first <= len(networks):
            names = ", ".join(networks)
            raise PlanError(
                f"{where} = '{text}': the ensemble has {len(networks)} networks ({names})"
            )
        return networks[:first]

    def alias(self, name: str, point: Point) -> str:
        """The network that a recipe means: the student for "student", else that of an alias."""
        if name == "student" and point.student:
            return point.student
        return self.scale.network_aliases.get(name, name)

    def network(self, name: str, dataset: str, where: Where | str | None = None) -> ResolvedBlock:
        """The component reference of a network on a data set.

        Args:
            name: of an entry of the data set's `networks`, or the scale's, or of a component.
            dataset: a name of the scale.
            where: the place that names it, for errors.
        """
        for layer in (as_tree(as_tree(self.tree["datasets"])[dataset]), self.tree):
            if entry := as_tree(layer.get("networks")).get(name):
                return ResolvedBlock(as_tree(entry), self.nominal("networks", name))
        place = str(where or self.nominal("networks", name))
        return ResolvedBlock(Tree({"name": Leaf(name, place)}, [place]), place)
