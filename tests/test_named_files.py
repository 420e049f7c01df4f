"""A file that a recipe names, of any component, counts by its content and not by its path."""

import os
import re
import shlex
import subprocess

import pytest

from distillery.plan.named_files import by_content, content, names_a_file
from helpers.commands import run_module

METHOD = '''"""Random images, and a file that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillery.methods.shared.selection import draw, real_images

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("reading",)


@dataclass(frozen=True)
class Recipe:
    """path: a text file."""

    path: str


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: int, teachers: list[Teacher], job: Job
) -> DistilledSet:
    with open(recipe.path) as file:
        job.scratch.joinpath("seen").write_text(file.read())
    return real_images("reading", train, draw(train, ipc, job.generator("draw")), ipc)
'''


@pytest.fixture
def reading(project, edit):
    """A project with a method whose recipe names notes.txt."""
    (project / "src/distillery/methods/reading.py").write_text(METHOD)
    scale = project / "workflow/scales/tiny.yaml"
    edit(scale, "  random: {}", "  random: {}\n  reading: {path: notes.txt}")
    edit(project / "workflow/tables/infer/table2.yaml", "method: random,", "method: reading,")
    (project / "notes.txt").write_text("one")
    return project


def distillery(project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the project's own copy of the package."""
    return run_module(project, "distillery", *arguments)


def planned_set(project) -> str:
    """The id of the set of the method that reads a file."""
    done = distillery(project, "plan", "table2")
    assert done.returncode == 0, done.stderr
    (found,) = set(re.findall(r"digits-reading-ipc5-d0-[0-9a-f]{12}(?= )", done.stdout))
    return found


def test_names_of_fields_that_hold_files():
    assert all(map(names_a_file, ("path", "file", "label_path", "weights_file")))
    assert not any(map(names_a_file, ("paths", "profile", "filed", "pathology", "")))


def test_the_identity_has_the_content_and_the_job_the_path(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    recipe = {"method": {"name": "m", "path": "a.txt", "lr": 0.1}, "ipc": 5}
    named, local = by_content(recipe, tmp_path, content)
    # of "x", by sha256sum
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert named == {"method": {"name": "m", "path": f"sha256:{digest}", "lr": 0.1}, "ipc": 5}
    assert local == {"method": {"name": "m", "path": str(tmp_path / "a.txt"), "lr": 0.1}}


def test_a_recipe_without_files_is_left_alone(tmp_path):
    recipe = {"training": {"augment": ["crop:1"], "lr": 0.1}, "ipc": 5}
    assert by_content(recipe, tmp_path, content) == (recipe, {})


def test_a_file_that_is_not_there_still_plans(tmp_path):
    named, local = by_content({"file": "b.txt"}, tmp_path, content)
    assert named == {"file": "sha256:absent"} and local == {"file": str(tmp_path / "b.txt")}


def test_another_content_is_another_set_and_the_old_one_comes_back(reading):
    first = planned_set(reading)
    (reading / "notes.txt").write_text("two")
    second = planned_set(reading)
    (reading / "notes.txt").write_text("one")
    assert second != first == planned_set(reading)
    (reading / "elsewhere.txt").write_text("one")
    scale = reading / "workflow/scales/tiny.yaml"
    scale.write_text(scale.read_text().replace("notes.txt", "elsewhere.txt"))
    assert planned_set(reading) == first, "the place does not count"


def test_another_content_of_the_same_size_and_time_is_another_set(reading):
    first, file = planned_set(reading), reading / "notes.txt"
    found = file.stat()
    file.write_text("eno")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert file.stat().st_size == found.st_size and planned_set(reading) != first


def test_a_job_reads_the_file_and_refuses_another_content(reading):
    assert distillery(reading, "data", "digits").returncode == 0
    commands = distillery(reading, "plan", "table2", "--commands").stdout.splitlines()
    (command,) = [line for line in commands if "digits-reading" in line and " distill " in line]
    spec = shlex.split(command)[-1]
    (reading / "notes.txt").write_text("two")
    done = distillery(reading, "distill", "--spec", spec)
    assert done.returncode == 1 and "notes.txt: changed since planning" in done.stderr
    (reading / "notes.txt").unlink()
    done = distillery(reading, "distill", "--spec", spec)
    assert done.returncode == 1 and "notes.txt: no such file" in done.stderr
    (reading / "notes.txt").write_text("one")
    done = distillery(reading, "distill", "--spec", spec)
    assert done.returncode == 0, done.stderr
