"""The code that runs is the folder's own: worktrees, clones, and what dvc.yaml starts."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from distillery.errors import PlanError
from distillery.store.own_code import own_source, run_own_code
from helpers.lab import attempt, run
from helpers.project import ROOT, make_project

RUN = ROOT / "workflow/scripts/run.sh"


@pytest.fixture
def started(monkeypatch) -> list:
    """The calls that would replace this process."""
    calls: list = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return calls


def copy(folder: Path) -> Path:
    """A folder with code of its own, as far as this is looked at."""
    package = folder / "src/distillery"
    package.mkdir(parents=True)
    (package / "__main__.py").touch()
    return folder


def test_the_folder_of_the_running_code_and_one_without_code_are_left_alone(tmp_path, started):
    linked = tmp_path / "linked"
    linked.symlink_to(ROOT)
    (tmp_path / "data/src/other").mkdir(parents=True)
    for folder in (ROOT, linked, tmp_path / "data", tmp_path / "absent"):
        assert own_source(folder) is None
        run_own_code(["plan", "--root", str(folder)])
    assert started == []


@pytest.mark.parametrize("words", [["--root", "{}"], ["--root={}"], ["--roo", "{}"], []])
def test_another_copy_is_started_in_place_with_the_same_words(
    tmp_path, started, monkeypatch, words
):
    folder = copy(tmp_path / "a b")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}")
    if not words:
        monkeypatch.chdir(folder)
    argv = ["plan", *(word.format(folder) for word in words), "--write", "--spec", '{"a": 1}']
    run_own_code(argv)
    ((program, command, environment),) = started
    assert program == sys.executable and command == [program, "-m", "distillery", *argv]
    assert environment["PYTHONPATH"] == os.pathsep.join([str(folder / "src"), str(tmp_path)])
    assert environment["PATH"] == os.environ["PATH"]


def test_it_is_not_started_for_ever(tmp_path, started, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(copy(tmp_path) / "src"))
    with pytest.raises(PlanError, match=r"src: Python runs .* in place of this folder's code"):
        run_own_code(["plan", "--root", str(tmp_path)])
    assert started == []


def test_a_wrong_root_is_said_by_the_command_line(started):
    done = attempt(ROOT, sys.executable, "-m", "distillery", "plan", "--root")
    assert done.returncode == 2 and "argument --root: expected one argument" in done.stderr
    run_own_code(["plan", "--root"])
    assert started == []


def ids(printed: str) -> set[str]:
    return set(re.findall(r"\b[\w-]+-[0-9a-f]{12}\b", printed))


@pytest.mark.parametrize("place", ["worktree", "clone"])
def test_a_worktree_and_a_clone_plan_with_their_own_loss(project, tmp_path, edit, place):
    """Their plan is the one of the edited code, said to Python by PYTHONPATH."""
    run(project, "git", "init", "--quiet")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "--quiet", "--message", "code")
    other = tmp_path / "other"
    add = {"worktree": ("worktree", "add", "--quiet", "--detach"), "clone": ("clone", "-q", ".")}
    run(project, "git", *add[place], str(other))
    edit(other / "src/distillery/losses/kl.py", "return divergence(", "return -divergence(")
    python = (sys.executable, "-m", "distillery")
    before = ids(run(project, *python, "plan", "table2"))
    stated = run(tmp_path, *python, "plan", "table2", "--root", "other", PYTHONPATH="other/src")
    changed = ids(stated) - before
    students = "digits-infer-ipc5-static-net-a-d0-s"
    assert len(changed) == 2 and all(students in name for name in changed)
    assert run(tmp_path, "distillery", "plan", "table2", "--root", "other") == stated
    assert ids(run(other, "sh", "workflow/scripts/run.sh", "distillery", "plan", "table2")) == ids(
        stated
    )
    planned = run(other, "snakemake", "-n", "-p", "results/table2.csv")
    assert changed <= ids(planned)


def test_a_snakefile_of_another_folder_is_refused(project, tmp_path):
    other = make_project(tmp_path / "other")
    done = attempt(project, "snakemake", "-n", "--snakefile", str(other / "Snakefile"))
    assert done.returncode == 1
    assert "this folder has code of its own" in done.stdout + done.stderr


def environment(folder: Path) -> Path:
    """An environment with its programs, which are never run."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "snakemake"):
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.fixture
def main_folder(tmp_path) -> Path:
    """A git repository with run.sh and an environment."""
    main = tmp_path / "main folder"
    (main / "workflow/scripts").mkdir(parents=True)
    shutil.copy(RUN, main / "workflow/scripts")
    run(main, "git", "init", "--quiet")
    run(main, "git", "add", ".")
    run(main, "git", "commit", "--quiet", "--message", "code")
    environment(main / ".venv")
    return main


def found(folder: Path, **variables: str) -> list[str]:
    """The python that a command of dvc.yaml finds, and the first folder that Python looks in."""
    words = ("sh", "-c", 'command -v python; echo "${PYTHONPATH%%:*}"')
    printed = run(
        folder, "sh", "workflow/scripts/run.sh", *words, PATH="/usr/bin:/bin", **variables
    )
    return printed.splitlines()


def test_the_environment_is_the_main_folders_and_the_code_the_folders_own(main_folder, tmp_path):
    experiment = main_folder / ".dvc/tmp/exps/tmp1"
    shutil.copytree(main_folder / "workflow", experiment / "workflow")
    tree = tmp_path / "tree"
    run(main_folder, "git", "worktree", "add", "--quiet", str(tree))
    for folder in (main_folder, experiment, tree):
        python, source = found(folder, PYTHONPATH="/elsewhere")
        assert python == str(main_folder / ".venv/bin/python")
        assert source == str(folder / "src")


def test_an_activated_environment_comes_first_when_it_has_the_programs(main_folder, tmp_path):
    active = environment(tmp_path / "active")
    assert found(main_folder, VIRTUAL_ENV=str(active))[0] == str(active / "bin/python")
    (active / "bin/snakemake").unlink()
    python = found(main_folder, VIRTUAL_ENV=str(active))[0]
    assert python == str(main_folder / ".venv/bin/python")


def test_without_an_environment_the_path_decides_or_it_is_said(main_folder, tmp_path):
    shutil.rmtree(main_folder / ".venv")
    done = attempt(main_folder, "sh", "workflow/scripts/run.sh", "true", PATH="/usr/bin:/bin")
    assert done.returncode == 1 and done.stderr.startswith("run.sh: no environment with snakemake")
    path = f"{environment(tmp_path / 'some') / 'bin'}:/usr/bin:/bin"
    words = ("sh", "workflow/scripts/run.sh", "sh", "-c", "command -v python")
    printed = run(main_folder, *words, PATH=path)
    assert printed.strip() == str(tmp_path / "some/bin/python")
