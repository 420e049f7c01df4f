"""Jobs counted with Snakemake itself, beyond the matrix of test_changes.py."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from helpers.commands import built_by_snakemake as snakemake
from helpers.commands import run_module
from helpers.project import make_project
from helpers.rewording import reword


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One complete build, shared; each test edits a copy of it."""

    project = make_project(tmp_path_factory.mktemp("built"))
    made, _ = snakemake(project)
    assert made == {"data": 1, "teacher": 2, "distill": 2, "label": 1, "evaluate": 4, "table": 1}
    return project


@pytest.fixture
def copy(built, tmp_path):
    """A copy of the built project, every file's time set to now: times must not matter."""
    project = tmp_path / "copy"
    shutil.copytree(built, project, copy_function=shutil.copy)
    return project


def test_nothing_to_do(copy):
    made, output = snakemake(copy)
    assert made == {}
    assert "Nothing to be done" in output


def test_the_bytes_of_a_table_are_those_that_sets_and_labels_state(built):
    metadata = {
        path.parent.name: json.loads(path.read_text())["metadata"]
        for path in built.glob("results/store/*/*/meta.json")
    }
    with open(built / "results/table2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["Random", "INFER"]
    for row in rows:
        parts = [metadata[row[name]] for name in ("distilled_id", "label_id") if row[name]]
        stored = sum(sum(part["bytes"].values()) for part in parts)
        assert int(row["bytes"]) == stored > 0
        raw = metadata[row["data_id"]]["raw_bytes"]
        assert float(row["cr_stored"]) == pytest.approx(100 * stored / raw, abs=0.005)
        counted = sum(sum(part["numbers"].values()) for part in parts)
        assert int(row["pixels"]) + int(row["label_floats"]) <= counted


def test_editing_a_loss_reruns_the_cells_with_that_loss(copy):
    reword(copy / "src/distillery/losses/kl.py")
    assert snakemake(copy)[0] == {"evaluate": 2, "table": 1}


def test_a_revert_costs_a_table(copy, edit):
    edit(copy / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 3}}}")
    first = (copy / "results/table2.csv").read_bytes()
    snakemake(copy)
    edit(copy / "params.yaml", "evaluate: {static: {training: {epochs: 3}}}", "evaluate: {}")
    assert snakemake(copy)[0] == {"table": 1}
    assert (copy / "results/table2.csv").read_bytes() == first


def test_a_deleted_artefact_is_made_again_only_when_something_needs_it(copy, edit):
    label = next((copy / "results/store/label").iterdir())
    kept = (label / "labels.safetensors").read_bytes()
    shutil.rmtree(label)
    assert snakemake(copy)[0] == {}
    (copy / "results/table2.csv").unlink()
    assert snakemake(copy)[0] == {"table": 1}, "a table reads its evaluations alone"
    shutil.rmtree(next((copy / "results/store/evaluate").glob("*-infer-*")))
    (copy / "results/table2.csv").unlink()
    assert snakemake(copy)[0] == {"label": 1, "evaluate": 1, "table": 1}
    assert (label / "labels.safetensors").read_bytes() == kept


def test_files_that_were_not_fetched_are_made_again_when_a_job_needs_them(copy):
    stored = next((copy / "results/store/distill").glob("*-infer-*/*.safetensors"))
    kept, meta = stored.read_bytes(), (stored.parent / "meta.json").read_bytes()
    stored.unlink()
    shutil.rmtree(next((copy / "results/store/evaluate").glob("*-infer-*")))
    (copy / "results/table2.csv").unlink()
    made, _ = snakemake(copy)
    assert made == {"distill": 1, "evaluate": 1, "table": 1} and stored.read_bytes() == kept
    assert (stored.parent / "meta.json").read_bytes() == meta, "others may have recorded it"


def test_edits_by_one_engine_and_back_by_the_other(copy, edit):
    """Snakemake has seen the table's plan at its first run, and must see that it is stale."""
    first = (copy / "results/table2.csv").read_bytes()
    edit(copy / "params.yaml", "evaluate: {}", "evaluate: {hard: {training: {epochs: 1}}}")
    distillery(copy, "make", "results/table2.csv")
    assert (copy / "results/table2.csv").read_bytes() != first
    edit(copy / "params.yaml", "evaluate: {hard: {training: {epochs: 1}}}", "evaluate: {}")
    assert snakemake(copy)[0] == {"table": 1}
    assert (copy / "results/table2.csv").read_bytes() == first
    assert snakemake(copy)[0] == {}


def test_a_clone_with_the_store_copied_in_assembles_the_table(copy):
    for path in ("results/table2.csv", "results/table2.json"):
        (copy / path).unlink()
    shutil.rmtree(copy / ".snakemake")
    assert snakemake(copy)[0] == {"table": 1}


def test_a_clone_with_committed_tables_and_no_store_plans_nothing(copy):
    for folder in (
        "results/store",
        "results/scratch",
        "results/logs",
        "results/benchmarks",
        ".snakemake",
    ):
        shutil.rmtree(copy / folder)
    made, output = snakemake(copy)
    assert made == {}
    assert "Nothing to be done" in output


def test_two_builds_from_scratch_are_byte_identical(built, tmp_path):

    again = make_project(tmp_path)
    snakemake(again)
    for suffix in ("csv", "json", "md", "tex", "metrics.json"):
        assert (again / f"results/table2.{suffix}").read_bytes() == (
            built / f"results/table2.{suffix}"
        ).read_bytes()
    weights = {
        f.relative_to(built): f.read_bytes() for f in built.glob("results/store/*/*/*.safetensors")
    }
    assert weights and all((again / f).read_bytes() == content for f, content in weights.items())


def test_adoption_keeps_artefacts_of_rewritten_code(copy):
    rewrite_loop(copy)
    # Two teachers and four students train with the loop; INFER's set and its labels have these
    # teachers as inputs.
    assert "8 artefacts adopted" in adopt(copy)
    assert snakemake(copy)[0] == {"table": 1}
    metas = [json.loads(m.read_text()) for m in copy.glob("results/store/*/*/meta.json")]
    assert sum("adopted_from" in m for m in metas) == 8


def test_adoption_refuses_what_other_teachers_made(copy, edit):
    # The recipes of INFER's set, its labels and its students stay the same; one teacher does not.
    rewrite_loop(copy)
    edit(copy / "params.yaml", "evaluate: {}", "teacher: {net-a: {training: {epochs: 3}}}")
    printed = adopt(copy)
    assert "3 artefacts adopted" in printed
    metas = [json.loads(m.read_text()) for m in copy.glob("results/store/*/*/meta.json")]
    adopted = [m["spec"]["label"] for m in metas if "adopted_from" in m]
    random = [f"digits-random-ipc5-hard-net-a-d0-s{student}" for student in range(2)]
    assert sorted(adopted) == sorted(["digits-net-b", *random])


def rewrite_loop(project: Path) -> None:
    reword(project / "src/distillery/training/loop.py")


def adopt(project: Path) -> str:
    return distillery(project, "adopt")


def distillery(project: Path, *arguments: str) -> str:
    done = run_module(project, "distillery", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prune_removes_what_no_plan_reaches(copy, edit):
    # What a change in params.yaml sets aside is kept, since the scale alone still reaches it; what
    # the scale gave up goes.
    edit(copy / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 3}}}")
    assert prune(copy) == "0 artefacts removed"
    edit(
        copy / "workflow/scales/tiny.yaml",
        "static: {loss: {name: kl, temperature: 4.0}",
        "static: {loss: {name: kl, temperature: 5.0}",
    )
    assert prune(copy) == "2 artefacts removed"
    assert len(list(copy.glob("results/store/*/*/meta.json"))) == 8


def prune(project: Path) -> str:
    return distillery(project, "prune", "--yes").splitlines()[-1]


def test_without_the_profile_no_cell_runs_needlessly(copy):
    made, _ = snakemake(copy, "--workflow-profile", "none")
    assert set(made) <= {"table"}
