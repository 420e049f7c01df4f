"""What files say of a paper's printed numbers: columns and names that these really have."""

from __future__ import annotations

from collections.abc import Iterable

from distillery.errors import PlanError, nearest
from distillery.plan.table_models import PaperWords, Table
from distillery.table.published import PublishedNumbers


def check_published(table: Table, where: str, numbers: PublishedNumbers) -> None:
    """Refuse keys and names that find no printed number, whatever the setting.

    Args:
        table: whose rows and axes say where their printed numbers are.
        where: its file.
        numbers: of the table's paper.

    Raises:
        PlanError: there is one; the message has the nearest that is printed.
    """
    for row in table.rows:
        for column, name in row.published.items():
            place = f"{where}: row '{row.row}': published.{column}"
            _check_column(column, numbers.told_apart, place)
            _check_name(name, column, numbers, place)
    for axis, meaning in table.axes.items():
        place = f"{where}.axes.{axis}"
        if meaning.published:
            _check_column(axis, numbers.told_apart, f"{place}.published: {axis}")
        values = list(map(str, [*meaning.values, *table.paper.get(axis, [])]))
        for value, variant in meaning.variants.items():
            if value not in values:
                hint = nearest(value, values)
                raise PlanError(f"{place}.variants.{value}: no such value: {hint}")
            _check_name(variant, "variant", numbers, f"{place}.variants.{value}")


def check_words(words: PaperWords, numbers: PublishedNumbers, where: str) -> None:
    """Refuse words of a paper that none of its files in workflow/published has.

    Args:
        words: of the paper.
        numbers: what it prints; words of a paper that prints none are not checked.
        where: file and key of the words.

    Raises:
        PlanError: there is one; the message has the nearest that is printed.
    """
    if not numbers.columns:
        return
    for column, meanings in words.same.items():
        _check_column(column, numbers.columns, f"{where}.same.{column}")
        for name, meaning in meanings.items():
            for other in meaning if isinstance(meaning, dict) else ():
                _check_column(other, numbers.columns, f"{where}.same.{column}.{name}.{other}")
    for name in words.hard_labels_where_blank:
        _check_name(name, "method", numbers, f"{where}.hard_labels_where_blank")
    for start in words.variants_of_one_table:
        if not any(variant.startswith(start) for variant in numbers.names("variant")):
            hint = nearest(start, numbers.names("variant"))
            raise PlanError(f"{where}.variants_of_one_table: no variant begins '{start}': {hint}")


def _check_column(column: str, valid: Iterable[str], place: str) -> None:
    if column not in valid:
        raise PlanError(f"{place}: no such column of printed numbers: {nearest(column, valid)}")


def _check_name(name: str, column: str, numbers: PublishedNumbers, place: str) -> None:
    """A name that a file prints, or blank for what the paper does not say."""
    if name and name not in numbers.names(column):
        hint = nearest(name, numbers.names(column))
        raise PlanError(f"{place} = '{name}': printed nowhere: {hint}")
