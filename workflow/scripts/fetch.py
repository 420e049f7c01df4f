"""Fetch from DVC the nearest stored ancestors of what a table lacks, and nothing else."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from dvc.repo import Repo
from store import STORE, bring, check_out, script, tracked

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


def fetch(plan: Plan, table: str) -> int:
    """Fetch the frontier of `table`.

    An artefact that lacks an object, or has a damaged one, is said and left out, and its own
    ancestors are fetched in its place: the run makes it again.

    Returns:
        The number of files fetched.
    """
    with Repo() as repo:
        known, count = tracked(repo), 0
        while files := frontier(plan, table, set(known)):
            lost = bring(repo, {known[file] for file in files})
            folders = {_folder(file) for file in files if known[file] in lost}
            good = {file: known[file] for file in files if _folder(file) not in folders}
            check_out(repo, good)
            count += len(good)
            for file in files:
                if known[file] in lost:
                    print(
                        f"fetch: {file}: its object is {lost[known[file]]}; will be made again",
                        file=sys.stderr,
                    )
            known = {file: oid for file, oid in known.items() if _folder(file) not in folders}
            if not folders:
                break
    return count


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def main(table: str) -> None:
    """Fetch the frontier of `table`, and say how many files that were."""
    print(f"fetch: {fetch(Plan(Path()), table)} files for {table}")


if __name__ == "__main__":
    script("fetch", lambda: main(sys.argv[1]))
