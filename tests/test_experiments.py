"""DVC's experiments: the code they were given, the store they need, and data that DVC tracks."""

import shutil
from pathlib import Path

import pytest

from helpers.lab import artefacts, attempt, measured, run, script

KL = "src/distillery/losses/kl.py"
LOSS = "return divergence("


def rows(project: Path) -> dict[str, tuple[str, str]]:
    return measured((project / "results/table2.csv").read_text())


def other_loss(project: Path, edit, factor: str) -> dict[str, tuple[str, str]]:
    """Change the loss, and the table that this code makes when PYTHONPATH says to run it."""
    edit(project / KL, LOSS, f"return {factor} * divergence(")
    copy = shutil.copytree(project, project.parent / f"loss {factor}", symlinks=True)
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
    at_once = other_loss(copy, edit, "-30")
    run(copy, "dvc", "exp", "run", "--temp", "--name", "at-once")
    run(copy, "git", "checkout", "--quiet", "src")
    later = other_loss(copy, edit, "300")
    run(copy, "dvc", "exp", "run", "--queue", "--name", "later")
    run(copy, "git", "checkout", "--quiet", "src")
    run(copy, "dvc", "exp", "run", "--run-all")

    assert len({str(table["INFER"]) for table in (before, at_once, later)}) == 3
    assert table_of(copy, "at-once") == at_once and table_of(copy, "later") == later
    assert rows(copy) == before and "src" not in run(copy, "git", "status", "--short")

    # As docs/lab.md has it: gc that keeps experiments, apply, and back by checkout.
    cells = artefacts(copy)
    run(copy, "dvc", "gc", "--all-commits", "--all-experiments", "--force")
    run(copy, "dvc", "exp", "apply", "later")
    assert rows(copy) == later and len(artefacts(copy) - cells) == 2
    assert_up_to_date(copy)
    run(copy, "git", "stash", "--quiet")
    run(copy, "dvc", "checkout")
    assert rows(copy) == before and artefacts(copy) == cells
    assert_up_to_date(copy)


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
    assert "fetch: 4 files" in script(copy, "fetch", "table2").stdout  # from the cache
    assert artefacts(copy) == made


def test_save_puts_back_into_the_cache_what_gc_took(lab, tmp_path):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    tracked = run(copy, "git", "ls-files", "results/store")
    meta = next(copy.glob("results/store/evaluate/*/meta.json"))
    shutil.rmtree(copy / ".dvc/cache/files")
    listings = copy.parent / "listings"
    assert "listings" not in tracked and not listings.exists()
    assert script(copy, "save").returncode == 0
    run(copy, "dvc", "checkout")
    assert meta.is_file()
    assert_up_to_date(copy)


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


def test_own_data_are_tracked_as_documented_and_reach_clones_and_experiments(flowers, tmp_path):
    run(flowers, "dvc", "add", "data/flowers")
    run(flowers, "git", "add", "data", "workflow")
    staged = run(flowers, "git", "diff", "--cached", "--name-only", "data").split()
    assert staged == ["data/flowers.dvc"]
    run(flowers, "git", "commit", "--quiet", "--message", "data")
    assert run(flowers, "git", "status", "--short", "data") == ""
    run(flowers, "dvc", "push", "data/flowers.dvc")

    clone = tmp_path / "clone"
    run(flowers, "git", "clone", "--quiet", str(flowers), str(clone))
    planned = run(flowers, "distillery", "plan", "table2")
    assert run(clone, "distillery", "plan", "table2") == planned  # nothing is pulled
    run(clone, "dvc", "pull", "data/flowers.dvc")
    assert run(clone, "distillery", "plan", "table2") == planned

    run(flowers, "dvc", "exp", "run", "--temp", "--name", "own-data")
    assert table_of(flowers, "own-data").keys() == {"Random", "INFER"}
