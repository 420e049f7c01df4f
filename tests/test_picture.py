"""A figure through all stages: analyses of students, the table, the picture and its data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from distillery.errors import ArtefactError, PlanError
from distillery.plan.plan import Plan
from distillery.stages.picture import make_picture
from distillery.stages.table import make_table
from distillery.store.artefact import read_meta
from distillery.table.document import TableShape
from helpers.project import make_project
from helpers.rewording import reword
from helpers.tables import cell, document, evaluation, put

FIGURE = """
title: "a small figure"
analysis: difficulty
figure: difficulty
columns: [student, ipc]
rows: [{row: Random, method: random, labels: hard}]
"""


ACCURACIES = """
title: "accuracies"
figure: accuracy
columns: [student, ipc]
rows: [{row: Random, method: random, labels: hard}]
"""


def snakemake(project: Path, target: str = "results/infer/figure8.png", *arguments: str) -> str:
    """Run Snakemake on a picture; what it printed."""
    command = [sys.executable, "-m", "snakemake", target, "--cores", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):

    project = make_project(tmp_path_factory.mktemp("figure"))
    (project / "workflow/tables/infer/figure8.yaml").write_text(FIGURE)
    (project / "workflow/tables/infer/figure4.yaml").write_text(ACCURACIES)
    scale = project / "workflow/scales/tiny.yaml"
    settings = yaml.safe_load(scale.read_text())
    settings["analyse"] = {"difficulty": {"teachers": ["net-a"], "bins": 3}}
    grid = {"dataset": ["digits"], "student": ["net-b"], "ipc": [5]}
    settings["tables"] |= {"infer/figure8": grid, "infer/figure4": grid}
    scale.write_text(yaml.safe_dump(settings))
    output = snakemake(project)
    assert (
        "9 of 9 steps" in output
    )  # data, teacher, distill, 2 students, 2 analyses, table, picture
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
    assert record["measured"] == pytest.approx(
        sum(meta["metadata"]["value"] for meta in metas) / 2, abs=1e-4
    )
    # The analysis counts correct answers of the very students that were evaluated.
    students = [
        read_meta(path.parent) for path in built.glob("results/store/evaluate/*net-b*/meta.json")
    ]
    assert record["measured"] == pytest.approx(
        sum(s["metadata"]["accuracy"]["last"] for s in students) / 2, abs=1e-4
    )


def test_the_data_stand_beside_the_picture(built):
    values = pd.read_csv(built / "results/infer/figure8.values.csv")
    assert list(values.columns[:4]) == ["row", "dataset", "ipc", "student"]
    assert set(values["student_of_draw"]) == {0, 1}
    one = values[(values["student_of_draw"] == 0) & (values["bins"] == values["bins"].iloc[0])]
    assert one["total"].sum() == 360  # every test image of the digits is in one bin
    with Image.open(built / "results/infer/figure8.png") as image:
        assert image.size[0] > 1000
    assert (built / "results/infer/figure8.pdf").read_bytes().startswith(b"%PDF")


def test_a_drawn_figure_is_not_drawn_again(copy):
    assert "Nothing to be done" in snakemake(copy)


def test_a_drawn_figure_needs_no_artefacts(copy):
    shutil.rmtree(copy / "results/store")
    assert "Nothing to be done" in snakemake(copy)


def test_changed_drawing_code_draws_again_and_computes_nothing(copy):
    reword(copy / "src/distillery/figures/difficulty.py")
    output = snakemake(copy)
    assert "1 of 1 steps" in output and "picture infer/figure8" in output


def test_the_same_values_give_the_same_picture(built, copy):
    (copy / "results/infer/figure8.picture.json").unlink()
    snakemake(copy)
    for suffix in ("png", "pdf", "values.csv"):
        name = f"results/infer/figure8.{suffix}"
        assert (copy / name).read_bytes() == (built / name).read_bytes(), suffix


def test_accuracies_are_drawn_from_the_table_alone(copy):
    assert "2 of 2 steps" in snakemake(
        copy, "results/infer/figure4.png"
    )  # its students exist: table, picture
    shutil.rmtree(copy / "results/store")
    (copy / "results/infer/figure4.png").unlink()
    assert "1 of 1 steps" in snakemake(copy, "results/infer/figure4.png")


def test_a_picture_is_of_the_plan_that_snakemake_was_given(copy):
    snakemake(copy, "results/infer/figure8.png", "--config", "students=1")
    values = pd.read_csv(copy / "results/infer/figure8.values.csv")
    assert set(values["student_of_draw"]) == {0}
    assert "Nothing to be done" in snakemake(
        copy, "results/infer/figure8.png", "--config", "students=1"
    )


def test_a_picture_without_its_very_table_is_one_line(copy, tmp_path):
    plan = Plan(copy).write_plan_stamp("infer/figure8")
    with pytest.raises(
        ArtefactError, match=r"figure8.csv: not made yet; `distillery table infer/figure8`"
    ):
        make_picture(plan, copy / "results/store", tmp_path / "figure8")
    table = copy / "results/infer/figure8.csv"
    table.write_text(table.read_text().replace("digits", "others"))
    with pytest.raises(
        ArtefactError, match=r"figure8.csv: made from another plan, or edited since"
    ):
        make_picture(plan, copy / "results/store", copy / "results/infer/figure8")


def test_a_picture_over_a_tables_own_axis_and_its_data(tmp_path):
    store, stem, gammas = tmp_path / "store", tmp_path / "figure3", (0.5, 0.0)
    for gamma in gammas:
        put(store, f"evaluate/{gamma}", evaluation(40 - 10 * gamma, 45.0))
    own = {"distilled": ("distill/s",), "data": "data/d"}
    made = [{"axes": {"gamma": g}, "evaluations": ((f"evaluate/{g}",),)} | own for g in gammas]
    cells = [cell("RDED", "rded", "dynamic", **changes) for changes in made]
    shape = TableShape(("RDED",), ("student", "ipc", "gamma"), "dataset")
    sweep = document(cells, table="gift/figure3", figure="sweep", axes=("gamma",), shape=shape)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(sweep.json()))
    make_table(plan, store, stem)
    make_picture(plan, store, stem)
    values = pd.read_csv(f"{stem}.values.csv")
    assert list(values.columns[:5]) == ["row", "dataset", "ipc", "student", "gamma"]
    assert values[["gamma", "value"]].to_numpy().tolist() == [[0.5, 35.0], [0.0, 40.0]]
    assert Image.open(f"{stem}.png").size[0] > 1000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "analysis: difficulty",
            "analysis: dificulty",
            r"figure8.yaml.analysis = 'dificulty': does not exist: did you mean",
        ),
        (
            "figure: difficulty",
            "figure: landscape",
            r"figure8.yaml.figure = 'landscape': does not draw the table's analysis",
        ),
        (
            "figure: difficulty",
            "figure: accuracy",
            r"figure8.yaml.figure = 'accuracy': does not draw the table's analysis",
        ),
    ],
)
def test_a_figure_that_does_not_draw_its_analysis_is_one_line(copy, edit, old, new, message):
    edit(copy / "workflow/tables/infer/figure8.yaml", old, new)
    with pytest.raises(PlanError, match=message):
        Plan(copy).cells("infer/figure8")
