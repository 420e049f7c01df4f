"""Whether a statement at the top of a module has any effect but to bind its names.

Such a statement counts only where its names are used. All others count as soon as their module is
imported. What is not known here to have no effect has one.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping

from distillery.store.definitions import CodeItem, Definition, bindings, full_name, items
from distillery.store.source_text import module_file

# Callables that only make what they return, by module. Decorators are among them.
_MAKERS = {
    "builtins": (
        "abs bool bytes complex dict dict.fromkeys enumerate float frozenset int len list max min "
        "object ord pow range repr reversed round set slice sorted str str.maketrans sum tuple "
        "type zip property classmethod staticmethod"
    ),
    "typing": "TypeVar NewType overload final cast",
    "dataclasses": "dataclass field",
    "abc": "abstractmethod",
    "functools": "cache lru_cache cached_property partial wraps total_ordering",
    "contextlib": "contextmanager",
    "re": "compile",
    "pathlib": "Path",
    "types": "MappingProxyType",
    "enum": "auto",
    "collections": "OrderedDict defaultdict namedtuple",
    "torch": "no_grad enable_grad inference_mode",
}
# Classes from which one may derive without an effect.
_BASES = {
    "builtins": "object dict Exception ValueError TypeError",
    "typing": "NamedTuple TypedDict Protocol Generic",
    "abc": "ABC",
    "enum": "Enum StrEnum IntEnum",
    "torch": "nn.Module autograd.Function",
}
_METHODS = {"split", "join", "strip", "format", "encode", "lower", "upper"}
_CONSTRUCTORS = {"__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__"}
_TRANSPARENT = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Starred),
    *(ast.Subscript, ast.Slice, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.BinOp),
    *(ast.JoinedStr, ast.FormattedValue, ast.ListComp, ast.SetComp, ast.DictComp),
    *(ast.GeneratorExp, ast.comprehension, ast.expr_context, ast.operator, ast.boolop),
    *(ast.unaryop, ast.cmpop, ast.keyword),
)


@functools.cache
def inert(module: str, item: CodeItem) -> bool:
    """Whether running an item of `module` does nothing but bind its names."""
    if item.content is None:
        return item.library is None and item.names != ("*",)
    return not _HOOKS & set(item.names) and _statement(module, item.content)


_HOOKS = {"__getattr__", "__dir__", "__path__"}  # that the import system calls


def _listed(name: str | None, table: Mapping[str, str]) -> bool:
    library, _, rest = (name or "").partition(".")
    return rest in table.get(library, "").split()


def _statement(module: str, node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return _class(module, node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        run = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return all(_decorator(module, part) for part in node.decorator_list) and all(
            _expression(module, part) for part in run
        )
    if isinstance(node, ast.Assign):
        return all(_plain_target(target) for target in node.targets) and _expression(
            module, node.value
        )
    if isinstance(node, ast.AnnAssign):
        named = isinstance(node.target, ast.Name)
        return named and (node.value is None or _expression(module, node.value))
    return isinstance(node, ast.Pass)


def _plain_target(target: ast.expr) -> bool:
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
    return all(isinstance(part, ast.Name) for part in parts)


def _decorator(module: str, node: ast.expr) -> bool:
    """Whether a decorator, which is called with what it decorates, only makes what it returns."""
    called = node.func if isinstance(node, ast.Call) else node
    if isinstance(called, ast.Attribute) and called.attr in ("setter", "deleter"):
        return True  # of a property
    return _listed(full_name(module, called), _MAKERS)


def _class(module: str, node: ast.ClassDef) -> bool:
    body = [
        part
        for part in node.body
        if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
    ]
    return (
        not node.keywords
        and all(_base(module, base) for base in node.bases)
        and all(_decorator(module, part) for part in node.decorator_list)
        and all(_expression(module, part) for part in node.decorator_list)
        and all(_statement(module, part) for part in body)
    )


def _base(module: str, node: ast.expr) -> bool:
    """Whether deriving a class from `node` has no effect."""
    base = node.value if isinstance(node, ast.Subscript) else node
    name = full_name(module, base)
    if _listed(name, _BASES):
        return True
    found = own_definition(name)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return False
    origin, parent = found[0], found[1]
    methods = {part.name for part in parent.body if isinstance(part, Definition)}
    return "__init_subclass__" not in methods and _class(origin, parent)


def own_definition(name: str | None) -> tuple[str, Definition] | None:
    """The one definition in this package with the dotted name `name`, and the module it is in."""
    module, _, short = (name or "").rpartition(".")
    if not module or module_file(module) is None:
        return None
    places = bindings(module).get(short, ())
    if len(places) != 1:
        return None
    item = items(module)[places[0]]
    if item.imported:
        source = (item.imported.module, *filter(None, [item.imported.name]))
        return own_definition(".".join(source)) if item.imported.module != module else None
    return (module, item.content) if isinstance(item.content, Definition) else None


def _expression(module: str, node: ast.AST) -> bool:
    """Whether evaluating an expression has no effect.

    Reading an attribute or an item and calculating have none; `<<` and `>>` are often given one.
    """
    if isinstance(node, ast.Lambda):
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        return all(_expression(module, part) for part in defaults)
    if isinstance(node, ast.Call):
        parts = [*node.args, *node.keywords]
        return _called(module, node.func) and all(_expression(module, part) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift | ast.RShift):
        return isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
    return isinstance(node, _TRANSPARENT) and all(
        _expression(module, part) for part in ast.iter_child_nodes(node)
    )


def _called(module: str, node: ast.expr) -> bool:
    """Whether a call of `node` only makes what it returns."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant | ast.JoinedStr):
        return node.attr in _METHODS
    name = full_name(module, node)
    if _listed(name, _MAKERS):
        return True
    found = own_definition(name)
    return found is not None and isinstance(found[1], ast.ClassDef) and _plain(*found)


@functools.cache
def _plain(module: str, node: ast.ClassDef) -> bool:
    """Whether making an object of a class runs none of our code: a dataclass or a NamedTuple."""
    methods = {part.name for part in node.body if isinstance(part, Definition)}
    made = [
        keyword.value
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
        for keyword in part.keywords
        if keyword.arg == "default_factory"
    ]
    library = {"typing.NamedTuple", "typing.Protocol", "builtins.object"}
    bases = [full_name(module, base) for base in node.bases]
    found = [own_definition(name) for name in bases if name not in library]
    return (
        not methods & _CONSTRUCTORS
        and _class(module, node)
        and all(_factory(module, factory) for factory in made)
        and all(base and isinstance(base[1], ast.ClassDef) and _plain(*base) for base in found)
    )


def _factory(module: str, node: ast.expr) -> bool:
    return _expression(module, node.body) if isinstance(node, ast.Lambda) else _called(module, node)
