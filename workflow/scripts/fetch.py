"""Fetch from DVC the nearest stored ancestors of what a table lacks, and nothing else."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from store import STORE, dvc, tracked

from distillery.errors import DistilleryError
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.store.artefact import META


def frontier(plan: Plan, table: str, known: set[str]) -> list[str]:
    """The files to fetch for a table and its picture.

    Of what the table reads that is meta.json. For what must be made it goes upstream, stops at what
    is on disk, and takes all files of what DVC tracks.

    Args:
        plan: the plan of the project.
        table: name of the table.
        known: paths that DVC tracks.
    """
    files: dict[str, None] = {}
    stored: dict[str, list[str]] = {}
    for path in sorted(known):
        stored.setdefault(path.rpartition("/")[0], []).append(path)

    def upstream(node: Node) -> None:
        for needed in node.upstream():
            visit(needed)

    @functools.cache
    def visit(node: Node) -> None:
        folder = f"{STORE}/{node.address}"
        if plan.whole(node):
            return
        if f"{folder}/{META}" in known:
            files.update(dict.fromkeys(stored[folder]))
        else:
            upstream(node)

    if not plan.fresh(table):
        for node in plan.table_inputs(table):
            meta = f"{STORE}/{node.address}/{META}"
            if not plan.have(node):
                files.update({meta: None}) if meta in known else upstream(node)
    if plan.has_figure(table) and not plan.drawn(table):
        for node in plan.figure_inputs(table):
            visit(node)
    return list(files)


def main(table: str) -> None:
    """Fetch the frontier of `table` in one call."""
    try:
        plan = Plan(Path())
        files = frontier(plan, table, tracked())
    except DistilleryError as error:
        sys.exit(f"fetch: {error}")
    if files:  # a bare `dvc pull` would fetch everything
        dvc("pull", "--quiet", *files)
    print(f"fetch: {len(files)} files for {table}")


if __name__ == "__main__":
    main(sys.argv[1])
