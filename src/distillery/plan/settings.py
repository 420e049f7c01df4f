"""The files a user edits, read and checked: params.yaml, the scale it names, and the table files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillery.components.registry import index, module_name
from distillery.errors import PlanError, nearest
from distillery.plan.models import Dataset, Paper, Params, Scale, Table, checked
from distillery.store.spec import STAGES

if TYPE_CHECKING:
    from distillery.plan.cell import Experiment

RECIPES = tuple(
    stage for stage in STAGES if stage != "data"
)  # stages whose recipes a scale holds, by name
COMPONENTS = {
    "distill": "method",
    "embed": "embedding",
}  # stages whose blocks may have the names of components of this kind
ENSEMBLE = "ensemble"
PAPER_FILE = "paper.yaml"  # of a folder of tables: no table


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Deep merge of mappings; a later layer wins, anything but a mapping is replaced whole. A mapping that names another
    component (`name` differs) replaces the earlier one, since its fields belong to that other component."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            old = merged.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            same = both and value.get("name", old.get("name")) == old.get("name")
            merged[key] = (
                merge(old, value) if same else merge(value) if isinstance(value, Mapping) else value
            )
    return merged


@functools.cache
def _parsed(path: Path, stamp: int) -> Any:
    try:
        return yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise PlanError(f"{path}: not YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises PlanError when it is missing or malformed."""
    if not path.is_file():
        raise PlanError(
            f"{path}: no such file: {nearest(path.stem, (f.stem for f in path.parent.glob('*.yaml')))}"
        )
    return _parsed(path, path.stat().st_mtime_ns)


class Settings:
    """All settings of one run: params with the scale they name, below the project's root folder."""

    def __init__(self, root: Path, params: Mapping[str, Any] | None = None):
        """root: folder with params.yaml and workflow/. params: values to use in place of params.yaml (Snakemake's config)."""
        self.root = root
        self.params: Params = checked(
            Params, read_yaml(root / "params.yaml") if params is None else params, "params.yaml"
        )
        name = self.params.scale
        self.scale_file = f"workflow/scales/{name}.yaml"
        if not (root / self.scale_file).is_file():
            scales = [f.stem for f in (root / "workflow/scales").glob("*.yaml")]
            raise PlanError(f"params.yaml.scale = '{name}': {nearest(name, scales)}")
        raw = read_yaml(root / self.scale_file)
        raw = raw | {
            key: merge(raw.get(key), getattr(self.params, key)) for key in ("datasets", "networks")
        }
        raw = raw | ({ENSEMBLE: self.params.ensemble} if self.params.ensemble else {})
        self._check_names(raw)
        raw["tables"] = merge(
            raw.get("tables"), {self.full_name(t): axes for t, axes in self.params.grid.items()}
        )
        self.scale: Scale = checked(Scale, raw, self.scale_file)

    def _check_names(self, raw: Mapping[str, Any]) -> None:
        """Every block of params.yaml must change something: its name is known to the scale, to a data set or as a component."""
        for stage in RECIPES:
            layers = [raw, *(raw.get("datasets") or {}).values()]
            known = {name for layer in layers for name in (layer.get(stage) or {})} | set(
                raw.get("networks") or {}
            )
            known |= set(index(COMPONENTS[stage])) if stage in COMPONENTS else set()
            for name in getattr(self.params, stage):
                if name not in known:
                    raise PlanError(
                        f"params.yaml.{stage}.{name}: no such block: {nearest(name, known)}"
                    )
        tables = raw.get("tables") or {}
        for table in self.params.grid:
            if self.full_name(table) not in tables:
                raise PlanError(
                    f"params.yaml.grid.{table}: no such table at this scale: {nearest(table, tables)}"
                )

    def known_tables(self) -> dict[str, Table]:
        """Every table file of the project, as `paper/table`."""
        tables = self.root / "workflow/tables"
        return {
            name: checked(Table, read_yaml(tables / f"{name}.yaml"), f"workflow/tables/{name}.yaml")
            for name in self._table_files()
        }

    def _table_files(self, paper: str = "*") -> list[str]:
        """The names `paper/table` of all table files, or of those of one paper."""
        tables = self.root / "workflow/tables"
        files = (file for file in tables.glob(f"{paper}/*.yaml") if file.name != PAPER_FILE)
        return sorted(str(file.relative_to(tables).with_suffix("")) for file in files)

    def paper(self, name: str) -> Paper:
        """What workflow/tables/<name>/paper.yaml says of a paper.

        A folder without one holds tables of no paper, which are called by the folder's name.

        Raises:
            PlanError: the file has a wrong key or value, or facts of a table that does not exist.
        """
        path = self.root / "workflow/tables" / name / PAPER_FILE
        if not path.is_file():
            return Paper(name=name, title=name)
        where = f"workflow/tables/{name}/{PAPER_FILE}"
        paper: Paper = checked(Paper, read_yaml(path), where)
        tables = [table.rpartition("/")[2] for table in self._table_files(name)]
        for table in set(paper.printed) - set(tables):
            raise PlanError(f"{where}.printed.{table}: no such table: {nearest(table, tables)}")
        return paper

    def table_names(self) -> list[str]:
        """Every table that this scale has axes for, as `paper/table`."""
        return sorted(self.scale.tables)

    def full_name(self, table: str) -> str:
        """`table2` is a table of the paper named in params.yaml; `gift/table2` names its paper."""
        return table if "/" in table else f"{self.params.paper}/{table}"

    def table(self, name: str) -> Table:
        """The table file of `paper/table`. Raises PlanError when the table, or its axes at this scale, do not exist."""
        path = self.root / "workflow/tables" / f"{name}.yaml"
        if not path.is_file() or path.name == PAPER_FILE:
            raise PlanError(f"table '{name}' does not exist: {nearest(name, self._table_files())}")
        if name not in self.scale.tables:
            raise PlanError(
                f"{self.scale_file}: has no axes for table '{name}': add them below `tables`"
            )
        table = checked(Table, read_yaml(path), f"workflow/tables/{name}.yaml")
        self._check_table(table, f"workflow/tables/{name}.yaml")
        return table

    def _check_table(self, table: Table, where: str) -> None:
        names = [row.row for row in table.rows]
        if len(set(names)) < len(names):
            raise PlanError(
                f"{where}.rows: two rows are called '{max(names, key=names.count)}'; give each its own name"
            )
        if table.scores and table.analysis:
            raise PlanError(
                f"{where}.scores: are of accuracies, analysis '{table.analysis}' measures none; leave one of them out"
            )
        if table.published and not (self.root / "workflow/published" / table.published).is_file():
            known = (file.name for file in (self.root / "workflow/published").glob("*.csv"))
            raise PlanError(
                f"{where}.published = '{table.published}': no such file: {nearest(table.published, known)}"
            )
        self._check_figure(table, where)
        for axis in {table.panel, *table.columns} - {"dataset", "student", "ipc", *table.axes}:
            raise PlanError(f"{where}.axes.{axis}: is required: say what its values change")
        for row in table.rows:
            if row.against and row.against not in names:
                raise PlanError(
                    f"{where}: row '{row.row}': against '{row.against}': no such row: {nearest(row.against, names)}"
                )
            for axis in set(row.only) - {table.panel, *table.columns}:
                raise PlanError(
                    f"{where}: row '{row.row}': only.{axis}: no such axis: {nearest(axis, table.columns)}"
                )
            for stage in row.override:
                if stage not in RECIPES:
                    raise PlanError(
                        f"{where}: row '{row.row}': override.{stage}: no such stage: {nearest(stage, RECIPES)}"
                    )
            try:
                if row.measured:
                    module_name("method", row.method)
            except PlanError as error:
                raise PlanError(f"{where}: row '{row.row}': {error}") from None

    def _check_figure(self, table: Table, where: str) -> None:
        """A figure draws the analysis of its own name; one that is named like none draws accuracies."""
        for kind in ("analysis", "figure"):
            if (name := getattr(table, kind)) and name not in index(kind):
                raise PlanError(
                    f"{where}.{kind} = '{name}': does not exist: {nearest(name, index(kind))}"
                )
        drawn = table.figure if table.figure in index("analysis") else None
        if table.figure and drawn != table.analysis:
            raise PlanError(
                f"{where}.figure = '{table.figure}': does not draw the table's analysis, '{table.analysis}'"
            )

    def dataset(self, name: str) -> Dataset:
        """A data set of the scale or of params.yaml. Raises PlanError with the nearest name when there is none."""
        if name not in self.scale.datasets:
            raise PlanError(
                f"{self.scale_file}: dataset '{name}' does not exist: {nearest(name, self.scale.datasets)}"
            )
        return self.scale.datasets[name]

    def recipe(
        self,
        stage: str,
        name: str,
        dataset: Dataset,
        override: Mapping[str, Any],
        experiment: Experiment | None = None,
    ) -> dict[str, Any]:
        """The recipe `stage.name`, layer on layer: scale, data set, params.yaml, table row; later ones win, since a row without
        its override would no longer be that row. In each layer, what stands below `per_ipc.<ipc>` and `per_student.<student>`
        wins over what stands beside it. `teachers` may be the ensemble, or the experiment's student.

        Raises PlanError when no layer has a block of that name, or the ensemble is too small.
        """
        blocks = [
            getattr(self.scale, stage),
            getattr(dataset, stage),
            getattr(self.params, stage),
            override.get(stage, {}),
        ]
        if not any(name in block for block in blocks[:3]) and not blocks[3]:
            raise PlanError(
                f"{self.scale_file}.{stage}.{name}: no such block: {nearest(name, blocks[0])}"
            )
        where = f"{self.scale_file}.{stage}.{name}"
        layers = [*(block.get(name) for block in blocks[:3]), blocks[3]]
        recipe = merge(*({name: self._at(layer, experiment, where)} for layer in layers))[name]
        if "teachers" in recipe:
            recipe["teachers"] = self._teachers(
                recipe["teachers"], dataset, experiment, f"{where}.teachers"
            )
        return recipe

    def _at(
        self, layer: Mapping[str, Any] | None, experiment: Experiment | None, where: str
    ) -> dict[str, Any]:
        """A layer of a recipe with what it says about this experiment's ipc and student."""
        plain = dict(layer or {})
        for axis, kinds in (("ipc", (int, float)), ("student", (str,))):
            special = plain.pop(f"per_{axis}", {})
            if not isinstance(special, Mapping) or not all(
                isinstance(key, kinds) and isinstance(block, Mapping)
                for key, block in special.items()
            ):
                raise PlanError(
                    f"{where}.per_{axis} = {special!r}: expected keys and values below each {axis}"
                )
            plain = merge(plain, special.get(getattr(experiment, axis, None)))
        return plain

    def _teachers(
        self, teachers: Any, dataset: Dataset, experiment: Experiment | None, where: str
    ) -> Any:
        if teachers == "student" and experiment and experiment.student:
            return [experiment.student]
        if isinstance(teachers, str):
            return self.ensemble(teachers, dataset, where)
        return (
            [self.scale.network_aliases.get(t, t) for t in teachers]
            if isinstance(teachers, list)
            else teachers
        )

    def ensemble(self, text: str, dataset: Dataset, where: str) -> list[str]:
        """The networks of "ensemble" (all) or "ensemble:N" (the first N). Raises PlanError when there are not that many."""
        networks = dataset.ensemble or self.scale.ensemble
        name, colon, count = text.partition(":")
        if name != ENSEMBLE or (colon and not count.isdecimal()):
            raise PlanError(
                f"{where} = '{text}': write a list of networks, 'student', '{ENSEMBLE}', or '{ENSEMBLE}:2' for its first two"
            )
        first = int(count) if colon else len(networks)
        if not 0 < first <= len(networks):
            raise PlanError(
                f"{where} = '{text}': the ensemble has {len(networks)} networks ({', '.join(networks)})"
            )
        return networks[:first]

    def alias(self, name: str, experiment: Experiment) -> str:
        """The network that a recipe means: the experiment's student for "student", else what stands in for `name`."""
        return (
            experiment.student
            if name == "student" and experiment.student
            else self.scale.network_aliases.get(name, name)
        )

    def network(self, name: str, dataset: Dataset) -> dict[str, Any]:
        """The component reference of a network name on a data set: an entry of `networks`, or the network of that very name."""
        return dataset.networks.get(name) or self.scale.networks.get(name, {"name": name})
