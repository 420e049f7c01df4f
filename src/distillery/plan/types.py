"""Read recipe types without importing the modules that hold them, and check values against them.

A method's file holds its recipe type and its torch code side by side. The planner must not import
torch, so it executes only the recipe part of a file: imports from the standard library's typing
modules and from torch-free `*.recipe` modules, literal constants, and the classes whose names end
in Recipe. A test holds what is read this way equal to the imported type.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Literal, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError

from distillery.components.fields import InLibrary, named_fields, read
from distillery.components.parameters import component_name, parse
from distillery.components.registry import (
    KINDS,
    constants,
    literal,
    module_name,
    module_path,
)
from distillery.components.traits import (
    TRAITS,
    AnalysisTraits,
    AugmentationTraits,
    EmbeddingTraits,
    LabelTraits,
    LossTraits,
    MethodTraits,
    RefinementTraits,
    SourceTraits,
    Traits,
)
from distillery.errors import PlanError, nearest, shown
from distillery.plan.library_names import check_in_library, check_library_name
from distillery.plan.origins import Where, below
from distillery.store.spec import KEY_NAMES
from distillery.training.recipe import split_at_normalisation

# Keys of recipes in older files, and what they are called now.
RENAMED = {old: new for new, old in KEY_NAMES.items()}
RENAMED |= {"at_ipc": "per_ipc", "at_student": "per_student"}
_TORCH_FREE = {
    "__future__",
    "dataclasses",
    "typing",
    "distillery.components.fields",
    "distillery.components.registry",
}


@functools.cache
def torch_free_part(module: str) -> ModuleType:
    """A module object with the recipe part of `module`: its dataclasses and constants, no torch."""
    file = module_path(module)
    tree = ast.parse(file.read_text())
    part = ModuleType(f"{module}#recipe")
    sys.modules[part.__name__] = part  # dataclasses and pydantic resolve annotations through here
    kept = ast.Module([node for node in tree.body if _is_recipe_part(node)], type_ignores=[])
    exec(compile(kept, str(file), "exec"), part.__dict__)
    return part


def _is_recipe_part(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        source = node.module or ""
        return node.level == 0 and (
            source in _TORCH_FREE or source.endswith((".recipe", ".recipes"))
        )
    if isinstance(node, ast.ClassDef):
        return node.name.endswith("Recipe")
    return (
        isinstance(node, ast.Assign)
        and all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets)
        and _is_literal(node)
    )


def _is_literal(node: ast.Assign) -> bool:
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


@overload
def traits(kind: Literal["method"], name: str) -> MethodTraits: ...
@overload
def traits(kind: Literal["label"], name: str) -> LabelTraits: ...
@overload
def traits(kind: Literal["loss"], name: str) -> LossTraits: ...
@overload
def traits(kind: Literal["refinement"], name: str) -> RefinementTraits: ...
@overload
def traits(kind: Literal["embedding"], name: str) -> EmbeddingTraits: ...
@overload
def traits(kind: Literal["analysis"], name: str) -> AnalysisTraits: ...
@overload
def traits(kind: Literal["source"], name: str) -> SourceTraits: ...
@overload
def traits(kind: Literal["augmentation"], name: str) -> AugmentationTraits: ...
@overload
def traits(kind: str, name: str) -> Traits: ...


@functools.cache
def traits(kind: str, name: str) -> Traits:
    """The traits of component `name`.

    Args:
        kind: one of `registry.KINDS`.
        name: a name that a module of this kind declares.

    Returns:
        An object of the kind's class in `components.traits`.

    Raises:
        PlanError: an unknown trait, a wrong value, or a constant that looks like a trait; it names
            the file.
    """
    file, contract = module_path(module_name(kind, name)), TRAITS[kind]
    where = f"{KINDS[kind]}/{file.name}"
    contract.check_stray([constant for constant in constants(file) if constant.isupper()], where)
    values = literal(file, "TRAITS")
    return contract.read({} if values is None else values, where)


@functools.cache
def _adapter(recipe: type) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(recipe))


def _strict(recipe: type) -> type:
    """Make a dataclass and those in its fields refuse unknown keys."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    setattr(recipe, "__pydantic_config__", config)  # noqa: B010  # no declared attribute
    for hint in typing.get_type_hints(recipe).values():
        for option in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(option) and isinstance(option, type):
                _strict(option)
    return recipe


def validated(recipe: type, values: Mapping[str, Any], where: Where | str) -> dict[str, Any]:
    """Check values against a recipe type.

    Args:
        recipe: a frozen dataclass.
        values: its fields as JSON.
        where: file and key of the values, for errors.

    Returns:
        The values as plain JSON, with the defaults filled in. Fields that are None are left out: a
        new optional setting must not give every artefact a new identity. None is therefore the
        default of every field that may be None (a test).

    Raises:
        PlanError: a value is wrong; one line with `where`, the value and the nearest valid name.
    """
    if not isinstance(values, Mapping):
        raise PlanError(f"{where} = {shown(values)}: expected keys and values")
    adapter = _adapter(recipe)
    try:
        checked = adapter.dump_python(
            adapter.validate_python(dict(values)), mode="json", exclude_none=True
        )
    except ValidationError as error:
        raise PlanError(explain(error, where, _fields(recipe))) from None
    _check_named(recipe, checked, where)
    _check_in_libraries(recipe, checked, where)
    if hasattr(recipe, "mistake"):
        _check_mistake(read(recipe, checked), where)
    return checked


def _check_in_libraries(recipe: type, values: Mapping[str, Any], where: Where | str) -> None:
    """Check the fields of a recipe that are names of a library's."""
    for field, hint in typing.get_type_hints(recipe, include_extras=True).items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, InLibrary) and field in values:
                try:
                    check_in_library(mark, values, field)
                except PlanError as error:
                    raise PlanError(f"{below(where, field)} = '{values[field]}': {error}") from None


def _check_named(recipe: type, values: Mapping[str, Any], where: Where | str) -> None:
    """Check the names of components in the fields of a recipe, and the traits of these."""
    fields = list(named_fields(recipe, values))
    for field in values.keys() - {field.path for field in fields}:
        if field == "augment" or field.endswith("_augment"):
            raise PlanError(
                f"{where}.{field}: names augmentations; give the field of its recipe the type "
                "Augmentations of training/recipe.py, so that their code counts"
            )
    for path, mark, names in fields:
        for text in names:
            try:
                traits(mark.kind, component_name(mark.kind, text))
                parse(mark.kind, text)
                check_library_name(mark.kind, text)
            except PlanError as error:
                place = below(where, *path.split("."))
                raise PlanError(f"{place} = {shown(text)}: {error}") from None
        if mark.kind == "augmentation" and not mark.any_order:
            try:
                split_at_normalisation(names)
            except PlanError as error:
                place = below(where, *path.split("."))
                raise PlanError(f"{place}: {error}") from None


def named_modules(recipe: type, values: Mapping[str, Any]) -> list[str]:
    """The modules of the components that the fields of a recipe name."""
    return [
        module_name(mark.kind, component_name(mark.kind, text))
        for _, mark, names in named_fields(recipe, values)
        for text in names
    ]


def _fields(recipe: type) -> list[str]:
    """Field names of a recipe and of those nested in it."""
    hints = typing.get_type_hints(recipe)
    nested = [h for h in hints.values() if isinstance(h, type) and dataclasses.is_dataclass(h)]
    return [*hints, *(name for hint in nested for name in _fields(hint))]


# In the words of a settings file what pydantic says of Python's types.
_EXPECTED = dict.fromkeys(
    ("dataclass_type", "dataclass_exact_type", "dict_type", "model_type", "model_attributes_type"),
    "expected keys and values",
)
_EXPECTED["string_pattern_mismatch"] = "has characters that cannot stand here"
_EXPECTED |= dict.fromkeys(("list_type", "tuple_type"), "expected a list")


def explain(
    error: ValidationError,
    where: Where | str,
    fields: list[str],
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The first problem of a pydantic error as one line.

    Args:
        error: what pydantic found.
        where: file and key of the values.
        fields: the valid names, for a hint.
        renamed: keys of older files, and what to write instead.
    """
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    names = {**RENAMED, **renamed}
    found = error.errors()
    # A misspelt key is missing too; that it is unknown says more.
    strange = [e for e in found if e["type"] in unknown]
    old = [e for e in strange if e["loc"][-1] in names]
    first = (old or strange or found)[0]
    place = below(where, *(key for key in first["loc"] if key != "[key]"))  # of a wrong name
    if first["type"] in unknown:
        return f"{place}: {unknown_key(str(first['loc'][-1]), fields, names)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{place}: is required"
    expected = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return f"{place} = {shown(first['input'])}: {expected}"


def unknown_key(key: str, fields: Iterable[str], renamed: Mapping[str, str] = RENAMED) -> str:
    """What is wrong with a key that nothing reads: its present name, or the nearest valid one.

    Args:
        key: as a file has it.
        fields: the valid names.
        renamed: keys of older files, and what to write instead.
    """
    if key in renamed:
        return f"is called '{renamed[key]}' now"
    return f"unknown key: {nearest(key, fields)}"


@dataclass(frozen=True)
class Component:
    """A component that a recipe names, with all its fields.

    Attributes:
        kind: one of `registry.KINDS`.
        reference: `name` and the fields of its Recipe as JSON; a part of an artefact's recipe.
        where: the place of the reference, for errors.
    """

    kind: str
    reference: dict[str, Any]
    where: Where | str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def name(self) -> str:
        """The name that its module declares."""
        return str(self.reference["name"])

    @property
    def module(self) -> str:
        """The dotted module that provides it."""
        return module_name(self.kind, self.name)

    @property
    def modules(self) -> list[str]:
        """Its own module and those of the components that its recipe names."""
        recipe = torch_free_part(self.module).Recipe
        return [self.module, *named_modules(recipe, self.reference)]

    def get(self, field: str) -> Any:
        """The value of a field of its recipe, or None where the recipe has no such field."""
        return self.reference.get(field)


def recipe_object(kind: str, reference: Mapping[str, Any]) -> Any:
    """The recipe object of a resolved component reference, without torch."""
    fields = {key: value for key, value in reference.items() if key != "name"}
    return read(torch_free_part(module_name(kind, reference["name"])).Recipe, fields)


def component(kind: str, reference: Any, where: Where | str) -> Component:
    """Resolve a reference to a component to all its fields.

    Args:
        kind: one of `registry.KINDS`.
        reference: as a user writes it: a name, or a mapping with `name` and fields.
        where: file and key of the reference, for errors.

    Raises:
        PlanError: the component does not exist, or a field is wrong.
    """
    if not isinstance(reference, str | Mapping | None):
        raise PlanError(f"{where} = {shown(reference)}: expected a name, or keys and values")
    fields = {"name": reference} if isinstance(reference, str) else dict(reference or {})
    if "name" not in fields:
        raise PlanError(f"{below(where, 'name')}: is required, it names a {kind}")
    name = fields.pop("name")
    try:
        module = module_name(kind, str(name))
        check_library_name(kind, str(name))
    except PlanError as error:
        place = where if isinstance(reference, str) else below(where, "name")
        raise PlanError(f"{place}: {error}") from None
    traits(kind, str(name))
    values = validated(torch_free_part(module).Recipe, fields, where)
    return Component(kind, {"name": name, **values}, where)


def _check_mistake(recipe: Any, where: Where | str) -> None:
    """What a recipe says of fields that do not go together, by its method `mistake`.

    The method returns None, or the field at fault and the rest of the message.
    """
    if said := recipe.mistake():
        field, text = said
        raise PlanError(f"{below(where, *field.split('.'))} = {text}")
