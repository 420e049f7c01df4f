"""Every kind of change makes what it must, counted with Snakemake itself: 0 needless, 0 missing.

The matrix stands in `helpers.changes`; docs/changes.md is written from it. After a change of the
matrix, WRITE_CHANGES=1 has this file write the page anew.
"""

import os
import shutil
from pathlib import Path

import pytest

from helpers.changes import ALL, CHANGES, Change, page
from helpers.commands import built_by_snakemake
from helpers.project import ROOT, make_project

PAGE = ROOT / "docs/changes.md"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    project = make_project(tmp_path_factory.mktemp("built"))
    assert built_by_snakemake(project)[0] == ALL
    return project


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.what)
def test_a_change_makes_what_it_must(change: Change, built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project")
    change.do(project)
    assert built_by_snakemake(project)[0] == change.jobs
    shutil.rmtree(project)


def test_the_page_is_that_of_the_matrix():
    if os.environ.get("WRITE_CHANGES"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
