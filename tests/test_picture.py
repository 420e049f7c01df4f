"""A figure through the whole flow: analyses of students, the table of their values, the picture and the data beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from distillery.artefact import read_meta
from distillery.errors import ArtefactError
from distillery.plan.plan import Plan
from distillery.table.picture import make_picture

FIGURE = """
title: "a small figure"
analysis: difficulty
figure: difficulty
columns: [student, ipc]
rows: [{row: Random, method: random, labels: hard}]
"""


def snakemake(project: Path) -> str:
    """Run Snakemake on the picture; what it printed."""
    command = [sys.executable, "-m", "snakemake", "results/infer/figure8.png", "--cores", "2"]
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    from conftest import make_project

    project = make_project(tmp_path_factory.mktemp("figure"))
    (project / "workflow/tables/infer/figure8.yaml").write_text(FIGURE)
    scale = project / "workflow/scales/tiny.yaml"
    settings = yaml.safe_load(scale.read_text())
    settings["analyse"] = {"difficulty": {"teachers": ["net-a"], "bins": 3}}
    settings["tables"]["infer/figure8"] = {"dataset": ["digits"], "student": ["net-b"], "ipc": [5]}
    scale.write_text(yaml.safe_dump(settings))
    output = snakemake(project)
    assert "9 of 9 steps" in output  # data, teacher, distill, 2 students, 2 analyses, table, picture
    return project


@pytest.fixture
def copy(built, tmp_path):
    """A copy with every file's time set to now, as a checkout does."""
    project = tmp_path / "copy"
    shutil.copytree(built, project, copy_function=shutil.copy)
    return project


def test_the_value_of_a_figure_is_what_its_analyses_found(built):
    record = pd.read_csv(built / "results/infer/figure8.csv").iloc[0]
    metas = [read_meta(path.parent) for path in built.glob("results/store/analyse/*/meta.json")]
    assert record["n"] == len(metas) == 2
    assert record["measured"] == pytest.approx(sum(meta["facts"]["value"] for meta in metas) / 2, abs=1e-4)
    # The analysis counts correct answers of the very students that were evaluated.
    students = [read_meta(path.parent) for path in built.glob("results/store/evaluate/*net-b*/meta.json")]
    assert record["measured"] == pytest.approx(sum(s["facts"]["accuracy"]["last"] for s in students) / 2, abs=1e-4)


def test_the_data_stand_beside_the_picture(built):
    values = pd.read_csv(built / "results/infer/figure8.values.csv")
    assert list(values.columns[:4]) == ["row", "dataset", "ipc", "student"]
    assert set(values["repeat"]) == {0, 1}
    one = values[(values["repeat"] == 0) & (values["bins"] == values["bins"].iloc[0])]
    assert one["total"].sum() == 360  # every test image of the digits is in one bin
    with Image.open(built / "results/infer/figure8.png") as image:
        assert image.size[0] > 1000
    assert (built / "results/infer/figure8.pdf").read_bytes().startswith(b"%PDF")


def test_a_drawn_figure_is_not_drawn_again(copy):
    assert "Nothing to be done" in snakemake(copy)


def test_a_drawn_figure_needs_no_artefacts(copy):
    shutil.rmtree(copy / "results/store")
    assert "Nothing to be done" in snakemake(copy)


def test_changed_drawing_code_draws_again_and_computes_nothing(copy, edit):
    edit(copy / "src/distillery/figures/difficulty.py", "NAMES = (", "SPACE = 1\nNAMES = (")
    output = snakemake(copy)
    assert "1 of 1 steps" in output and "picture infer/figure8" in output


def test_the_same_values_give_the_same_picture(built, copy):
    (copy / "results/infer/figure8.picture.json").unlink()
    snakemake(copy)
    for suffix in ("png", "pdf", "values.csv"):
        name = f"results/infer/figure8.{suffix}"
        assert (copy / name).read_bytes() == (built / name).read_bytes(), suffix


def test_a_picture_without_its_table_is_one_line(built, tmp_path):
    plan = Plan(built)
    with pytest.raises(ArtefactError, match=r"figure8.csv: not made yet; `distillery table infer/figure8`"):
        make_picture(plan.document("infer/figure8"), built / "results/store", tmp_path / "figure8")
