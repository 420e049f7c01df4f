"""What a scale and params.yaml name beside recipes: papers, tables, networks of other places."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path

from distillery.components.registry import index
from distillery.errors import PlanError, nearest, shown
from distillery.plan.models import Dataset, Params, Scale
from distillery.plan.origins import Where
from distillery.plan.table_files import table_files

# What `teachers` may say in place of networks; a network of this name could not be named there.
RESERVED = ("student", "ensemble")


def full_name(table: str, paper: str) -> str:
    """`table2` is a table of `paper`; `gift/table2` names its paper."""
    return table if "/" in table else f"{paper}/{table}"


def check_paper(root: Path, paper: str, params: Where) -> None:
    """Refuse a `paper` of params.yaml that has no tables; a project without any has no paper.

    Args:
        root: the project's folder.
        paper: its name.
        params: the place of params.yaml.

    Raises:
        PlanError: it is so.
    """
    papers = {table.partition("/")[0] for table in table_files(root)}
    if papers and paper not in papers:
        raise PlanError(
            f"{params / 'paper'} = {shown(paper)}: no such paper: {nearest(paper, papers)}"
        )


def check_references(root: Path, params: Params, scale: Scale, where: Where, asked: Where) -> None:
    """Refuse names of tables and networks that do not exist.

    Whether the scale has axes for the tables of params.yaml, planning says.

    Args:
        root: the project's folder.
        params: params.yaml.
        scale: with the changes of params.yaml.
        where: the place of the scale.
        asked: the place of params.yaml.

    Raises:
        PlanError: there is one; the message names its place, and the nearest name.
    """
    known = table_files(root)
    for table in scale.tables if known else ():
        if table not in known:
            place = where / "tables" / table
            raise PlanError(f"{place}: no such table: {nearest(table, known)}")
    for table in params.tables if known else ():
        if (full := full_name(table, params.paper)) not in known:
            place = asked / "tables"
            raise PlanError(f"{place}: {shown(table)}: no such table: {nearest(full, known)}")
    _check_networks(scale, where)


def _check_networks(scale: Scale, where: Where) -> None:
    """Networks that an ensemble or an alias names exist, and none has a reserved name."""
    for block, place in _blocks(scale, where):
        for name in sorted({*block.networks} & {*RESERVED}):
            raise PlanError(
                f"{place / 'networks' / name}: `teachers: {name}` means something else; "
                "call the network otherwise"
            )
        known = {*block.networks, *scale.networks}
        _check_known(block.ensemble, known, place / "ensemble")
    everywhere = {name for block, _ in _blocks(scale, where) for name in block.networks}
    for name, network in scale.network_aliases.items():
        _check_known([name, network], everywhere, where / "network_aliases" / name)


def _blocks(scale: Scale, where: Where) -> Iterator[tuple[Scale | Dataset, Where]]:
    """The scale and its data sets, each with its place."""
    yield scale, where
    for name, dataset in scale.datasets.items():
        yield dataset, where / "datasets" / name


def _check_known(names: Iterable[str], known: set[str], place: Where) -> None:
    """Each name is an entry of `networks`, or a component."""
    components = index("network")
    for name in names:
        if name not in known and not any(fnmatch.fnmatchcase(name, c) for c in components):
            hint = nearest(name, {*known, *components})
            raise PlanError(f"{place}: {shown(name)}: no such network: {hint}")
