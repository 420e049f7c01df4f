"""Fetch from DVC the nearest stored ancestors of what a table lacks, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from store import STORE, dvc, tracked

from distillery.errors import DistilleryError
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan


def frontier(plan: Plan, table: str, known: set[str]) -> list[str]:
    """The files to fetch for a table and its picture.

    It goes upstream from what is missing, stops at what is on disk, and takes what DVC tracks.

    Args:
        plan: the plan of the project.
        table: name of the table.
        known: paths that DVC tracks.
    """
    files: list[str] = []
    seen: set[Node] = set()
    stored: dict[str, list[str]] = {}
    for path in sorted(known):
        stored.setdefault(path.rpartition("/")[0], []).append(path)

    def visit(node: Node) -> None:
        if node in seen or plan.have(node):
            return
        seen.add(node)
        folder = f"{STORE}/{node.address}"
        if f"{folder}/meta.json" in known:
            files.extend(stored[folder])
        else:
            for upstream in node.upstream():
                visit(upstream)

    if not plan.fresh(table):
        for node in plan.table_inputs(table):
            visit(node)
    if plan.settings.table(plan.settings.full_name(table)).figure and not plan.drawn(table):
        for node in plan.figure_inputs(table):
            visit(node)
    return files


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
