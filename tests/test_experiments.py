"""DVC's experiments: the code they were given, the store they need, and data that DVC tracks."""

import re
import shutil
from pathlib import Path

import pytest

from helpers.lab import artefacts, attempt, measured, run, script

KL = "src/distillery/losses/kl.py"
LOSS = "return divergence("


def rows(project: Path) -> dict[str, tuple[str, str]]:
    return measured((project / "results/table2.csv").read_text())


def made_by(project: Path) -> dict[str, tuple[str, str]]:
    """The table that this code makes when PYTHONPATH says to run it."""
    copy = shutil.copytree(project, project.parent / "made", symlinks=True)
    run(copy, "distillery", "make", "table2", PYTHONPATH=str(copy / "src"))
    return rows(copy)


def table_of(project: Path, experiment: str) -> dict[str, tuple[str, str]]:
    (ref,) = [
        ref
        for ref in run(project, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        if ref.endswith(f"/{experiment}")
    ]
    return measured(run(project, "git", "show", f"{ref}:results/table2.csv"))


def assert_up_to_date(project: Path) -> None:
    """All files are there, and neither engine has anything to do."""
    assert "Data and pipelines are up to date" in run(project, "dvc", "status")
    assert "nothing to be made" in run(project, "distillery", "plan", "table2")
    printed = attempt(project, "snakemake", "-n", "results/table2.csv")
    assert "Nothing to be done" in printed.stdout + printed.stderr


def test_experiments_run_the_code_they_were_given_and_keep_what_they_made(lab, tmp_path, edit):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    before = rows(copy)
    edit(copy / KL, LOSS, "return 300 * divergence(")
    run(copy, "dvc", "exp", "run", "--temp", "--name", "at-once")
    run(copy, "git", "checkout", "--quiet", "src")
    edit(copy / KL, LOSS, "return -divergence(")
    run(copy, "dvc", "exp", "run", "--queue", "--name", "later")
    later = made_by(copy)
    run(copy, "git", "checkout", "--quiet", "src")
    run(copy, "dvc", "exp", "run", "--run-all")
    assert rows(copy) == before and "src" not in run(copy, "git", "status", "--short")
    assert table_of(copy, "later") == later
    assert later["Random"] == before["Random"] and later["INFER"][0] != before["INFER"][0]
    at_once = table_of(copy, "at-once")
    assert len({table["INFER"][1] for table in (before, at_once, later)}) == 3

    # As docs/lab.md has it: gc that keeps experiments, apply, and back by checkout.
    cells = artefacts(copy)
    run(copy, "dvc", "gc", "--all-commits", "--all-experiments", "--force")
    run(copy, "dvc", "exp", "apply", "at-once")
    assert rows(copy) == at_once and len(artefacts(copy) - cells) == 2
    assert_up_to_date(copy)
    run(copy, "git", "stash", "--quiet")
    run(copy, "dvc", "checkout")
    assert rows(copy) == before and artefacts(copy) == cells


def test_checkout_refuses_to_remove_what_is_not_saved_and_save_mends_that(lab, tmp_path, edit):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    edit(copy / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 4}}}")
    run(copy, "distillery", "make", "table2")
    made = artefacts(copy)
    done = attempt(copy, "dvc", "checkout")
    assert done.returncode != 0 and "unsaved files" in done.stderr and artefacts(copy) == made
    assert "4 files newly tracked" in script(copy, "save").stdout
    run(copy, "dvc", "checkout")
    assert artefacts(copy) == made
    run(copy, "git", "stash", "--quiet")
    run(copy, "dvc", "checkout")
    assert len(made - artefacts(copy)) == 2
    run(copy, "git", "stash", "pop", "--quiet")
    assert "fetch: 0 files" in script(copy, "fetch", "table2").stdout  # the table itself is there
    (copy / "results/table2.md").unlink()
    assert "fetch: 2 files" in script(copy, "fetch", "table2").stdout  # meta.json, from the cache
    assert artefacts(copy) == made


def test_save_puts_back_into_the_cache_what_gc_took(lab, tmp_path):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    before = artefacts(copy)
    shutil.rmtree(copy / ".dvc/cache/files")  # as a gc of another commit
    assert script(copy, "save").returncode == 0
    shutil.rmtree(copy / "results/store/evaluate")
    run(copy, "dvc", "checkout")
    assert artefacts(copy) == before
    assert run(copy, "git", "status", "--short") == ""


@pytest.fixture
def flowers(lab, tmp_path, edit) -> Path:
    """A lab whose data set is a folder of its own, tracked as docs/data.md says."""
    from PIL import Image

    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    for split in ("train", "test"):
        for name in ("iris", "rose"):
            place = copy / "data/flowers" / split / name
            place.mkdir(parents=True)
            for i in range(6):
                Image.new("L", (8, 8), 40 * i).save(place / f"{i}.png")
    scale = copy / "workflow/scales/tiny.yaml"
    edit(scale, "sklearn:digits", "folder:data/flowers")
    edit(scale, "classes: 10, train: 1437, test: 360", "classes: 2, train: 12, test: 12")
    edit(scale, "ipc: [5]", "ipc: [3]")
    return copy


def test_own_data_are_tracked_as_documented_and_reach_clones(flowers, tmp_path):
    run(flowers, "dvc", "add", "data/flowers")
    run(flowers, "git", "add", "data", "workflow")
    staged = run(flowers, "git", "diff", "--cached", "--name-only", "data").split()
    assert staged == ["data/flowers.dvc"]
    run(flowers, "git", "commit", "--quiet", "--message", "data")
    assert run(flowers, "git", "status", "--short", "data") == ""
    run(flowers, "dvc", "push", "data/flowers.dvc")

    clone = tmp_path / "clone"
    run(flowers, "git", "clone", "--quiet", str(flowers), str(clone))
    planned = ids(run(flowers, "distillery", "plan", "table2"))
    assert len(planned) == 10
    assert ids(run(clone, "distillery", "plan", "table2")) == planned  # nothing is pulled
    run(clone, "dvc", "pull", "data/flowers.dvc")
    assert ids(run(clone, "distillery", "plan", "table2")) == planned
    run(clone, "distillery", "data", "digits")
    assert {name.partition("/")[2] for name in artefacts(clone)} < planned


def ids(printed: str) -> set[str]:
    return set(re.findall(r"\b[\w-]+-[0-9a-f]{12}\b", printed))
