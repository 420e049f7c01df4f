"""DVC: repro computes what changed, status is clean after it, a clone fetches what it needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.plan.plan import Plan
from helpers.project import ROOT, make_project


def run(folder: Path, *command: str) -> str:
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    inherited = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    env = inherited | {
        "PATH": path,
        "PYTHONPATH": str(folder / "src"),
        **dict.fromkeys(names, "test@example.org"),
    }
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def command_of(project: Path) -> None:
    """A `distillery` command that runs this copy's code, as an installed one would."""
    script = project / "bin/distillery"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m distillery "$@"\n')
    script.chmod(0o755)


def artefacts(project: Path) -> set[str]:
    return {
        str(meta.parent.relative_to(project / "results/store"))
        for meta in project.glob("results/store/*/*/meta.json")
    }


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab's repository: built with dvc repro, tables committed, artefacts pushed to a folder."""

    project = make_project(tmp_path_factory.mktemp("lab"))
    command_of(project)
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "/bin/\n")
    run(project, "git", "init", "--quiet", "--initial-branch=main")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "--quiet", "--message", "code")
    run(project, "dvc", "remote", "add", "--default", "lab", str(project.parent / "remote"))
    run(project, "dvc", "repro")
    run(project, "dvc", "push")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "--quiet", "--message", "table 2")
    return project


def test_stages_are_plan_table_save_and_name_the_tables_of_params():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tables = yaml.safe_load((ROOT / "params.yaml").read_text())["tables"]
    assert list(stages) == ["plan", "table", "save"]
    assert stages["table"]["matrix"]["table"] == tables
    assert stages["plan"]["cmd"].split()[3:] == tables
    assert stages["plan"]["outs"] == [{f"results/plan/{t}.json": {"cache": False}} for t in tables]
    assert stages["save"]["deps"] == [f"results/{t}.json" for t in tables]


def test_status_is_clean_and_git_holds_tables_not_artefacts(lab):
    assert "up to date" in run(lab, "dvc", "status")
    tracked = run(lab, "git", "ls-files", "results").split()
    assert "results/table2.csv" in tracked and "results/store/evaluate.dvc" in tracked
    assert not [name for name in tracked if name.endswith((".safetensors", "meta.json"))]


def test_one_evaluation_key_computes_its_cells_and_shows_in_the_diffs(lab, tmp_path, edit):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    before = artefacts(copy)
    edit(copy / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 4}}}")
    run(copy, "dvc", "repro")
    new = artefacts(copy) - before
    assert len(new) == 2 and all(name.startswith("evaluate/digits-infer") for name in new)
    assert "up to date" in run(copy, "dvc", "status")
    assert "evaluate.static.training.epochs" in run(copy, "dvc", "params", "diff")
    assert "INFER" in run(copy, "dvc", "metrics", "diff")
    run(copy, "dvc", "repro")
    assert artefacts(copy) - before == new


def test_an_experiment_in_one_line(lab, tmp_path):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    before = artefacts(copy)
    run(copy, "dvc", "exp", "run", "--set-param", "+evaluate.static.training.epochs=4")
    assert len(artefacts(copy) - before) == 2


def test_a_fresh_clone_plans_nothing_and_an_edit_fetches_only_the_frontier(lab, tmp_path, edit):
    clone = tmp_path / "clone"
    run(lab, "git", "clone", "--quiet", str(lab), str(clone))
    command_of(clone)
    (clone / ".dvc/config").write_text(
        (lab / ".dvc/config").read_text().replace("../..", str(lab.parent))
    )
    run(clone, "dvc", "remote", "modify", "lab", "url", str(lab.parent / "remote"))
    assert Plan(clone).missing(["table2"]) == []
    assert "Nothing to be done" in run_both(
        clone, "snakemake", "--cores", "2", "results/table2.csv"
    )
    assert artefacts(clone) == set()
    edit(clone / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 4}}}")
    run(clone, "dvc", "repro")
    stages = [name.split("/")[0] for name in artefacts(clone)]
    # Fetched: data, both sets, the labels, random's two students. Computed: INFER's two students.
    # No teacher.
    assert sorted(stages) == [
        "data",
        "distill",
        "distill",
        "evaluate",
        "evaluate",
        "evaluate",
        "evaluate",
        "label",
    ]
    listed = run(clone, "dvc", "ls", "-R", "--dvc-only", ".", "results/store")
    assert listed.count("meta.json") == 12


def run_both(folder: Path, *command: str) -> str:
    env = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
