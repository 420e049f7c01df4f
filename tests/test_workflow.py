"""The rules: one for each stage, from one loop; a dry run that leaves no trace."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from distillery.plan.claims import CLAIMS
from distillery.plan.claims_files import claims_are_current
from distillery.store.spec import STAGES
from helpers.commands import run_module

STAGES_OF_TABLE = ("data", "teacher", "distill", "label", "evaluate")


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a project."""
    return run_module(project, "snakemake", *arguments)


def snakemake(project: Path, *arguments: str) -> str:
    """What Snakemake prints; it must end well."""
    done = run(project, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(project: Path) -> dict[str, int]:
    """Every file but those below results/scratch and .snakemake, with its time of change."""
    skipped = ("results/scratch/", ".snakemake/")
    paths = [path for path in project.rglob("*") if path.is_file()]
    times = {str(path.relative_to(project)): path.stat().st_mtime_ns for path in paths}
    return {
        name: time
        for name, time in times.items()
        if not name.startswith(skipped) and "__pycache__" not in name
    }


@pytest.fixture
def folder_project(project: Path, edit) -> Path:
    """A project whose data set is a folder, whose content the planner hashes and remembers."""
    from PIL import Image

    for split in ("train", "test"):
        for name in ("a", "b"):
            place = project / "data/tiny" / split / name
            place.mkdir(parents=True)
            for i in range(8):
                Image.new("L", (8, 8), 40 * i).save(place / f"{i}.png")
    edit(project / "workflow/scales/tiny.yaml", "sklearn:digits", "folder:data/tiny")
    edit(
        project / "workflow/scales/tiny.yaml",
        "classes: 10, train: 1437, test: 360",
        "classes: 2, train: 16, test: 16",
    )
    return project


def test_a_dry_run_writes_nothing_outside_scratch(folder_project):
    before = files(folder_project)
    printed = snakemake(folder_project, "-n", "results/table2.csv")
    assert re.search(r"^evaluate +\d+$", printed, re.MULTILINE)  # it did plan jobs
    assert files(folder_project) == before


def test_each_rule_calls_its_own_stage(project):
    """The loop binds its variable: a job of stage X runs `distillery X`, below store/X."""
    printed = snakemake(project, "-n", "-p", "results/table2.csv")
    command = r"-m distillery (\w+) --device (\w+) .*? > results/logs/(\w+)/"
    calls = re.findall(command, printed)
    assert {call for call, _, _ in calls} == set(STAGES_OF_TABLE)
    assert all(call == log for call, _, log in calls)
    assert {device for call, device, _ in calls if call == "data"} == {"cpu"}
    counted = Counter(call for call, _, _ in calls)
    stated = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    assert {stage: str(count) for stage, count in counted.items()} == {
        s: stated[s] for s in counted
    }


def test_every_stage_has_a_rule_of_its_name(project):
    """Profiles set resources by rule name; profiles/slurm names all but the first."""
    listed = snakemake(project, "--list-rules").split()
    assert set(STAGES) < set(listed)


def test_the_whole_graph_can_be_drawn(project):
    graph = snakemake(project, "--rulegraph", "dot", "results/table2.csv", "--config", "full_dag=1")
    assert all(f'label = "{stage}"' in graph for stage in STAGES_OF_TABLE)


WRONG = {
    "a table that does not exist": (["results/tabel2.csv"], "did you mean 'infer/table2'"),
    "a picture of a table": (["results/table2.png"], "has no figure"),
    "a setting": (["results/table2.csv", "--config", "sclae=tiny"], "did you mean 'scale'"),
    "a scale": (["results/table2.csv", "--config", "scale=tyni"], "did you mean 'tiny'"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_names_come_with_the_nearest(arguments, words, project):
    done = run(project, "-n", *arguments)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


def test_a_double_key_is_refused_before_snakemake_takes_the_last(project, edit):
    edit(project / "params.yaml", "students: 2", "students: 2\nstudents: 1")
    done = run(project, "-n")
    assert done.returncode != 0
    assert "key 'students' stands on line 4 and again on line 5" in done.stdout + done.stderr


def test_claims_are_written_once_and_again_when_another_hand_was_in_them(project):
    claims, target = project / CLAIMS, ("--cores", "1", "results/claims.csv")
    rows = "INFER", "Random"  # of the one table that it has
    ours, theirs = (f"infer/table2[{row}; imagenet-1k; resnet18; 10]" for row in rows)
    claim = f"X1,infer,,result,cells,INFER above Random,1.0,points,{ours} - {theirs},"
    claims.write_text(claims.read_text().splitlines()[0] + f"\n{claim}\n")
    snakemake(project, *target)
    written = project / "results/claims.csv"
    content = written.read_bytes()
    assert claims_are_current(project) and "Nothing to be done" in snakemake(project, *target)
    written.write_bytes(content.replace(b"infer", b"inferior", 1))
    snakemake(project, *target)
    assert written.read_bytes() == content
