"""Say which layer set a value: `distillery explain evaluate.static.training.epochs`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distillery.components.fields import read
from distillery.components.registry import index
from distillery.errors import PlanError, nearest
from distillery.plan.models import Recipes
from distillery.plan.origins import Leaf, Override, ResolvedBlock
from distillery.plan.overrides import sublayers
from distillery.plan.settings import ENSEMBLE, PARAMS, RECIPES, Settings
from distillery.plan.table_models import Row
from distillery.plan.types import component, recipe_object, torch_free_part, traits, validated
from distillery.training.recipe import Training

# Parts of a block of `evaluate` or `teacher` that name a component, and its kind.
PARTS = {"loss": "loss", "refine": "refinement"}
COMPONENT_OF = {"distill": "method", "embed": "embedding", "label": "label", "analyse": "analysis"}


@dataclass(frozen=True)
class Question:
    """Which value is asked for.

    Attributes:
        key: of a recipe `stage.block.field`, of the scale or of params.yaml; or the beginning of
            several keys.
        dataset: a name of the scale; None: the only one.
        ipc: images per class, for what depends on it.
        student: a network, for what depends on it.
        table: whose row and axes override recipes, as `paper/table` or a table of the paper of
            params.yaml.
        row: of the table.
        axes: values of the table's own axes.
    """

    key: str
    dataset: str | None = None
    ipc: float | None = None
    student: str | None = None
    table: str | None = None
    row: str | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)


class Setter(NamedTuple):
    """A value, and what set it: a layer, or the default of a field."""

    value: Any
    text: str


def explain_value(settings: Settings, question: Question) -> Iterator[str]:
    """Lines for each value that the key means: the value, what set it, and the layers it beat.

    Raises:
        PlanError: there is no such key, data set, table or row, or a value is wrong.
    """
    asked, stage = question.key, question.key.partition(".")[0]
    recipe = stage in RECIPES
    known = _recipe_values(settings, question) if recipe else _plain_values(settings)
    found = [key for key in known if key == asked or key.startswith(f"{asked}.")]
    if not found:
        raise PlanError(f"{asked}: is set nowhere and has no default: {nearest(asked, known)}")
    for key in found:
        setter, *beaten = known[key]
        yield f"{key} = {_text(setter.value)}"
        yield f"  {setter.text}"
        for other in beaten:
            yield f"  over {_text(other.value)}, {other.text}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _set_by(layer: str, leaf: Leaf, value: Any = None) -> Setter:
    article = "" if layer.startswith(PARAMS) else "the "
    return Setter(leaf.value if value is None else value, f"set by {article}{layer}: {leaf.place}")


def _default(owner: type, name: str, value: Any) -> Setter:
    """The default of a field, with the class that declares it and that class's file."""
    home = next(kind for kind in owner.__mro__ if name in vars(kind).get("__annotations__", {}))
    file = home.__module__.partition("#")[0].replace(".", "/")
    return Setter(value, f"default of {home.__name__}.{name} ({file}.py)")


# --- keys of the scale and of params.yaml that are no recipes


def _plain_values(settings: Settings) -> dict[str, list[Setter]]:
    """What set each key, then what that beat."""
    found: dict[str, list[Setter]] = {}
    for layer, values in settings.plain_layers().items():
        for key, leaf in values.leaves():
            found[key] = [_set_by(layer, leaf), *found.get(key, [])]
    models: list[tuple[str, Recipes]] = [("", settings.params)]
    models += [(f"datasets.{name}.", item) for name, item in settings.scale.datasets.items()]
    for start, model in models:
        for name in type(model).model_fields.keys() - {"networks", ENSEMBLE, *RECIPES}:
            if name not in model.model_fields_set:
                found[start + name] = [_default(type(model), name, getattr(model, name))]
    return found


# --- recipes


@dataclass(frozen=True)
class _Setting:
    """The experiment setting that a question means.

    Attributes:
        dataset: a name of the scale.
        ipc: images per class, or None.
        student: a network, or None.
        row: of a table, or None.
        analysis: of that table, or None.
        override: of the row and the axes.
    """

    dataset: str
    ipc: float
    student: str | None
    row: Row | None
    analysis: str | None
    override: Override

    @classmethod
    def of(cls, settings: Settings, question: Question) -> _Setting:
        names = list(settings.scale.datasets)
        dataset = question.dataset or (names[0] if len(names) == 1 else None)
        if dataset is None:
            raise PlanError(f"--dataset: is required: {nearest('', names)}")
        settings.dataset(dataset)
        point = (dataset, question.ipc or 0, question.student)
        if (question.table is None) != (question.row is None):
            raise PlanError("--table and --row: give both, or none")
        if question.table is None:
            return cls(*point, None, None, Override({}))
        name = settings.full_name(question.table)
        table = settings.table(name)
        rows = {row.row: row for row in table.rows}
        if question.row not in rows:
            hint = nearest(str(question.row), rows)
            raise PlanError(f"--row: table '{name}' has no row '{question.row}': {hint}")
        for axis in question.axes.keys() - table.axes.keys():
            raise PlanError(f"--axis: table '{name}' has no axis '{axis}' of its own")
        row = rows[str(question.row)]
        override = settings.override(name, table, row, question.axes)
        return cls(*point, row, table.analysis, override)

    def block(self, stage: str) -> str | None:
        """The block of a stage that the row names; None where it names none."""
        if self.row is None:
            return None
        named = {
            "distill": self.row.distill or self.row.method,
            "label": self.row.labels.recipe,
            "evaluate": self.row.evaluation,
            "analyse": self.analysis,
        }
        return named.get(stage)


def _recipe_values(settings: Settings, question: Question) -> dict[str, list[Setter]]:
    """What set each field of the block that is asked for, then what that beat."""
    stage, _, rest = question.key.partition(".")
    setting = _Setting.of(settings, question)
    name = _block_name(stage, rest, setting, settings)
    override = {} if stage == "teacher" else setting.override
    layers = settings.layers(stage, name, setting.dataset, override)
    block = settings.recipe(stage, name, setting.dataset, override, setting)
    parts = [
        (layer, dict(part.leaves()))
        for layer, values in layers.items()
        for part in sublayers(values, setting)
    ]
    defaults = dict(_defaults(stage, name, block, setting))
    winners = dict(block.tree.leaves())
    found = {}
    for path in dict.fromkeys([*winners, *defaults]):
        said = [(layer, leaves[path]) for layer, leaves in reversed(parts) if path in leaves]
        winner = winners.get(path)
        first = [
            _set_by(layer, leaf, block.get(path)) for layer, leaf in said if leaf is winner
        ] or [defaults[path]]
        beaten = [_set_by(layer, leaf) for layer, leaf in said if leaf is not winner]
        found[f"{stage}.{name}.{path}"] = first + beaten
    return found


def _block_name(stage: str, rest: str, setting: _Setting, settings: Settings) -> str:
    """The block that the rest of a key begins with; names may hold dots.

    Raises:
        PlanError: there is none, or the row reads another one.
    """
    layers = [settings.scale, settings.dataset(setting.dataset), settings.params]
    known = {name for layer in layers for name in getattr(layer, stage)}
    known |= {own} if (own := setting.block(stage)) else set()
    found = [name for name in known if f"{rest}.".startswith(f"{name}.")]
    if not found:
        hint = nearest(rest.partition(".")[0], known)
        raise PlanError(f"{stage}.{rest}".rstrip(".") + f": no such block: {hint}")
    name = max(found, key=len)
    if own and name != own:
        row = setting.row.row if setting.row else ""
        raise PlanError(f"{stage}.{name}: row '{row}' reads {stage}.{own}")
    return name


def _defaults(
    stage: str, name: str, block: ResolvedBlock, setting: _Setting
) -> Iterator[tuple[str, Setter]]:
    """The fields of a block's recipe types, each with its value and where its default stands.

    A block whose component only a row would name has none.
    """
    if stage in ("evaluate", "teacher"):
        if not block.get("weights"):
            yield from _protocol_fields(block)
    elif stage == "whiten":
        recipe_type = torch_free_part("distillery.stages.whiten").WhitenRecipe
        yield from _fields(read(recipe_type, validated(recipe_type, block, block.where)))
    elif component_name := _component_name(stage, name, block, setting):
        kind = COMPONENT_OF[stage]
        replayed = traits("label", component_name).replays if stage == "label" else ()
        values = {"name": component_name} | block
        if not replayed:  # else some are those of the training that the labels are made for
            found = component(kind, values, block.where)
            yield from _fields(recipe_object(kind, found.reference))


def _component_name(stage: str, name: str, block: ResolvedBlock, setting: _Setting) -> str | None:
    """The component of a block: the row's, the one that the block names, or that of its name."""
    row, kind = setting.row, COMPONENT_OF[stage]
    if row and stage in ("distill", "label"):
        return row.method if stage == "distill" else row.labels.kind
    found = block.get("name", name)
    return found if found in index(kind) else None


def _protocol_fields(block: ResolvedBlock) -> Iterator[tuple[str, Setter]]:
    training = validated(Training, block.get("training", {}), block.where / "training")
    yield from _fields(read(Training, training), "training.")
    for part, kind in PARTS.items():
        if part in block:
            reference = component(kind, block[part], block.where / part).reference
            yield from _fields(recipe_object(kind, reference), f"{part}.")


def _fields(recipe: Any, start: str = "") -> Iterator[tuple[str, Setter]]:
    """The fields of a recipe object, nested recipes included."""
    for item in dataclasses.fields(recipe):
        value = getattr(recipe, item.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{start}{item.name}.")
        elif not isinstance(value, Mapping):
            yield start + item.name, _default(type(recipe), item.name, value)
