"""Every kind of change makes what it must, counted with Snakemake itself: 0 needless, 0 missing.

The matrix stands in `helpers.changes`; docs/changes.md is written from it. After a change of the
matrix, WRITE_CHANGES=1 has this file write the page anew.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.changes import ALL, CHANGES, Change, page
from helpers.project import ROOT, make_project

PAGE = ROOT / "docs/changes.md"


def made_by(project: Path) -> Counter:
    """Run Snakemake; the artefacts that it made, by stage, and the table."""
    before = {meta: meta.stat().st_mtime_ns for meta in project.glob("results/store/*/*/meta.json")}
    table = project / "results/table2.json"
    stamp = table.stat().st_mtime_ns if table.exists() else 0
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "results/table2.csv", "--cores", "2"],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = project.glob("results/store/*/*/meta.json")
    made = Counter(m.parent.parent.name for m in after if before.get(m) != m.stat().st_mtime_ns)
    if table.exists() and table.stat().st_mtime_ns != stamp:
        made["table"] += 1
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    project = make_project(tmp_path_factory.mktemp("built"))
    assert made_by(project) == ALL
    return project


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.what)
def test_a_change_makes_what_it_must(change: Change, built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project")
    change.do(project)
    assert made_by(project) == change.jobs
    shutil.rmtree(project)


def test_the_page_is_that_of_the_matrix():
    if os.environ.get("WRITE_CHANGES"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
