"""A lab's repository, and its commands as a user's shell runs them."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.project import make_project

# As a shell with the activated environment has it: the code that its commands run is not said.
SHELL = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
SHELL.pop("PYTHONPATH", None)
SHELL |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
SHELL |= dict.fromkeys(
    ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    "test@example.org",
)


def attempt(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with these environment variables besides the shell's."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=SHELL | variables
    )


def run(folder: Path, *command: str, **variables: str) -> str:
    """What a command that ends well prints on stdout."""
    done = attempt(folder, *command, **variables)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the workflow, as dvc.yaml does."""
    path = f"workflow/scripts/{name}.py"
    return attempt(folder, "sh", "workflow/scripts/run.sh", "python", path, *arguments)


def make_lab(folder: Path) -> Path:
    """Built with dvc repro, its tables committed, its artefacts pushed to `folder`/remote."""
    project = make_project(folder)
    run(project, "git", "init", "--quiet", "--initial-branch=main")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "--quiet", "--message", "code")
    run(project, "dvc", "remote", "add", "--default", "lab", str(folder / "remote"))
    run(project, "dvc", "repro")
    run(project, "dvc", "push")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "--quiet", "--message", "table 2")
    return project


def clone_of(lab: Path, folder: Path) -> Path:
    """A fresh clone in `folder`/clone, with a copy of the remote of its own in `folder`/remote."""
    clone = folder / "clone"
    run(lab, "git", "clone", "--quiet", str(lab), str(clone))
    shutil.copytree(lab.parent / "remote", folder / "remote")
    run(clone, "dvc", "remote", "modify", "--local", "lab", "url", str(folder / "remote"))
    return clone


def artefacts(project: Path) -> set[str]:
    """The addresses of the artefacts on disk."""
    return {
        str(meta.parent.relative_to(project / "results/store"))
        for meta in project.glob("results/store/*/*/meta.json")
    }


def measured(table: str) -> dict[str, tuple[str, str]]:
    """Accuracy and evaluations of each row of a table's CSV."""
    rows = csv.DictReader(table.splitlines())
    return {row["row"]: (row["measured"], row["ids"]) for row in rows}
