"""The table stage: from a plan file and the store to the five files of a table."""

from __future__ import annotations

from pathlib import Path

from distillery.table.assemble import assemble
from distillery.table.files import read_plan, write


def make_table(plan_file: Path, store: Path, out_stem: Path) -> None:
    """Assemble the table of a plan file (JSON, written by the planner) from `store` and write it beside `out_stem`.

    Raises PlanError when the plan cannot be read, ArtefactError when an artefact it names is missing.
    """
    plan = read_plan(plan_file)
    write(assemble(plan, Path(store)), plan, Path(out_stem))
