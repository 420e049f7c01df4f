"""DVC: repro computes what changed, status is clean after it, a clone fetches what it needs."""

import shutil

import yaml

from distillery.plan.plan import Plan
from helpers.lab import artefacts, attempt, clone_of, run
from helpers.project import ROOT


def test_stages_are_plan_table_save_and_name_the_tables_of_params():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tables = yaml.safe_load((ROOT / "params.yaml").read_text())["tables"]
    assert list(stages) == ["plan", "table", "save"]
    assert stages["table"]["matrix"]["table"] == tables
    assert stages["plan"]["cmd"].split()[5:] == tables
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
    clone = clone_of(lab, tmp_path)
    assert Plan(clone).missing(["table2"]) == []
    done = attempt(clone, "snakemake", "--cores", "2", "results/table2.csv")
    assert done.returncode == 0 and "Nothing to be done" in done.stderr
    assert artefacts(clone) == set()
    edit(clone / "params.yaml", "evaluate: {}", "evaluate: {static: {training: {epochs: 4}}}")
    run(clone, "dvc", "repro")
    stages = [name.split("/")[0] for name in artefacts(clone)]
    # Fetched: data, INFER's set and labels, and of random's two students meta.json. Computed:
    # INFER's two students. No teacher.
    assert sorted(stages) == ["data", "distill", *4 * ["evaluate"], "label"]
    listed = run(clone, "dvc", "ls", "-R", "--dvc-only", ".", "results/store")
    assert listed.count("meta.json") == 12
