"""Arithmetic over cells of tables, as claims state it: `infer/table2[INFER; imagenet-1k; ...] - 3`.

A reference names a table, a row and the values of the table's axes in their order; a value left
out, or `*`, means all of that axis, and the reference is then a series with a number for each. A
suffix `.compression_ratio` asks for that column. Numbers, `+ - * /`, parentheses and the functions
of `FUNCTIONS` are all there is; nothing is run.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from distillery.errors import PlanError, nearest, shown

ALL = "*"
ACCURACY = "accuracy"
QUANTITIES = (ACCURACY, "compression_ratio")
LONGEST = 4000  # characters: more can only be a mistake

Place = tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A value with its variance; None where the spread of a cell in it is unknown."""

    value: float
    variance: float | None = 0.0


Series = Mapping[Place, Number]  # by the values of the axes that the reference leaves open
Value = Number | Series | None  # None: not there


@dataclass(frozen=True)
class Reference:
    """A cell, or all cells of a row at the values that are given.

    Attributes:
        table: `paper/table`.
        row: name of its row.
        place: values of its axes in their order, as text; `ALL` where all are meant.
        quantity: of `QUANTITIES`.
    """

    table: str
    row: str
    place: tuple[str, ...]
    quantity: str = ACCURACY


@dataclass(frozen=True)
class Expression:
    """What `parse` found: the tree, and the references by the name that they have in it."""

    tree: ast.expr
    references: Mapping[str, Reference]

    @property
    def cells(self) -> list[Reference]:
        """The references, each once, in order."""
        return list(dict.fromkeys(self.references.values()))


_REFERENCE = re.compile(r"([a-z0-9-]+/[a-z0-9-]+)\[([^\[\]]*)\](?:\.(\w+))?")


def parse(text: str, where: str) -> Expression:
    """Read an expression.

    Args:
        text: of it.
        where: file and field, for errors.

    Raises:
        PlanError: it is no expression of this grammar.
    """
    references: dict[str, Reference] = {}

    def named(found: re.Match[str]) -> str:
        name = f"cell_{len(references)}"
        row, *place = (part.strip() for part in found[2].split(";"))
        quantity = found[3] or ACCURACY
        if quantity not in QUANTITIES:
            raise PlanError(f"{where}: no column '{quantity}': {nearest(quantity, QUANTITIES)}")
        references[name] = Reference(found[1], row, tuple(place), quantity)
        return name

    if len(text) > LONGEST:
        raise PlanError(f"{where}: {len(text)} characters, at most {LONGEST} are read; split it")
    try:
        tree = ast.parse(_REFERENCE.sub(named, text).strip(), mode="eval").body
        _check(tree, references)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlanError(
            f"{where} = {shown(text)}: {error}; expected numbers, + - * /, "
            f"{', '.join(FUNCTIONS)} and cells such as paper/table[row; dataset; student; ipc]"
        ) from None
    return Expression(tree, references)


def _check(node: ast.AST, references: Mapping[str, Reference]) -> None:
    """Every node is one of the grammar.

    Raises:
        ValueError: one is not.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return
        case ast.Name(id=name) if name in references:
            return
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(operand, references)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, references)
            _check(right, references)
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as arguments, keywords=[]) if (
            name in FUNCTIONS and (name not in _OF_ONE or len(arguments) == 1)
        ):
            for argument in arguments:
                _check(argument, references)
        case _:
            raise ValueError(f"'{ast.unparse(node)}' is not understood")


def evaluate(expression: Expression, lookup: Callable[[Reference], Value]) -> Number | None:
    """The number that an expression has over the cells that `lookup` gives.

    Variances are those of independent cells; `min` and its like keep that of the value chosen.

    Args:
        expression: parsed.
        lookup: the number or the series of a reference; None where it is not there.

    Returns:
        The number; None where a cell that it needs is not there, or it divides by zero.

    Raises:
        PlanError: it is a series.
    """
    found = _value(
        expression.tree, {name: lookup(cell) for name, cell in expression.references.items()}
    )
    if isinstance(found, Mapping):
        raise PlanError(
            f"expression {ast.unparse(expression.tree)}: is a series; take its smallest or largest"
        )
    return found if found is not None and math.isfinite(found.value) else None


def _value(node: ast.expr, cells: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Number(float(value))
        case ast.Name(id=name):
            return cells[name]
        case ast.UnaryOp(operand=operand):
            return _each(lambda x: Number(-x.value, x.variance), [_value(operand, cells)])
        case ast.BinOp(left=left, op=op, right=right):
            return _each(_OPERATORS[type(op)], [_value(left, cells), _value(right, cells)])
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name]([_value(argument, cells) for argument in arguments])
    raise AssertionError(ast.dump(node))  # `_check` lets nothing else through


def _each(function: Callable[..., Number], values: list[Value]) -> Value:
    """A function of numbers, place by place where some are series: at the places of all of them."""
    if any(value is None for value in values):
        return None
    series = [value for value in values if isinstance(value, Mapping)]
    if not series:
        return function(*values)
    places = [place for place in series[0] if all(place in one for one in series)]
    return {
        place: function(*(v[place] if isinstance(v, Mapping) else v for v in values))
        for place in places
    }


def _sum_of(sign: int) -> Callable[[Number, Number], Number]:
    def result(a: Number, b: Number) -> Number:
        return Number(a.value + sign * b.value, _plus(a.variance, b.variance))

    return result


def _plus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _product(a: Number, b: Number) -> Number:
    variance = None
    if a.variance is not None and b.variance is not None:
        variance = a.variance * b.value**2 + b.variance * a.value**2
    return Number(a.value * b.value, variance)


def _quotient(a: Number, b: Number) -> Number:
    if b.value == 0:
        return Number(math.nan)
    variance = None
    if a.variance is not None and b.variance is not None:
        variance = a.variance / b.value**2 + b.variance * a.value**2 / b.value**4
    return Number(a.value / b.value, variance)


def _of_each(choose: Callable[..., Number]) -> Callable[[list[Value]], Value]:
    return lambda values: _each(lambda *xs: choose(xs, key=lambda x: x.value), values)


def _of_all(choose: Callable[..., Number]) -> Callable[[list[Value]], Value]:
    """The extreme of all numbers that are there."""

    def chosen(values: list[Value]) -> Value:
        numbers = list(_numbers(values))
        return choose(numbers, key=lambda x: x.value) if numbers else None

    return chosen


def _numbers(values: Iterable[Value]) -> Iterable[Number]:
    for value in values:
        if isinstance(value, Mapping):
            yield from value.values()
        elif value is not None:
            yield value


def _alone(function: Callable[[float], float]) -> Callable[[list[Value]], Value]:
    """A function of one argument; it keeps the variance, so it is of use for exact numbers."""
    return lambda values: _each(lambda x: Number(float(function(x.value)), x.variance), values)


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: _sum_of(1),
    ast.Sub: _sum_of(-1),
    ast.Mult: _product,
    ast.Div: _quotient,
}
# min and max compare their arguments place by place; smallest and largest make one number of all.
FUNCTIONS: dict[str, Callable[[list[Value]], Value]] = {
    "min": _of_each(min),
    "max": _of_each(max),
    "smallest": _of_all(min),
    "largest": _of_all(max),
    "floor": _alone(math.floor),
    "abs": _alone(abs),
    "sqrt": _alone(lambda x: math.sqrt(x) if x >= 0 else math.nan),
}
_OF_ONE = ("floor", "abs", "sqrt")
