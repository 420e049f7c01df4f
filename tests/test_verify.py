"""Adoption after a test: what is made again and differs is not adopted, nor what hangs on it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from distillery.store.artefact import META, meta_writer
from helpers.commands import run_module
from helpers.project import make_project
from helpers.rewording import reword

ALL = 10  # artefacts of the small project: 1 data, 2 teachers, 2 sets, 1 label store, 4 students


def distillery(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module(project, "distillery", *arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("built"))
    done = distillery(project, "make", "table2")
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def copy(built, tmp_path):
    project = tmp_path / "copy"
    shutil.copytree(built, project)
    return project


def metas(project: Path) -> dict[str, dict]:
    """meta.json of every artefact, by stage and id."""
    found = project.glob(f"results/store/*/*/{META}")
    return {f"{m.parent.parent.name}/{m.parent.name}": json.loads(m.read_text()) for m in found}


def adopted(project: Path) -> list[str]:
    """Stage and label of what was adopted."""
    return sorted(
        f"{meta['stage']}/{meta['spec']['label']}"
        for meta in metas(project).values()
        if "adopted_from" in meta
    )


EVERYTHING = [
    *("data/digits", "distill/digits-infer-ipc5-d0", "distill/digits-random-ipc5-d0"),
    *(f"evaluate/digits-infer-ipc5-static-net-a-d0-s{n}" for n in range(2)),
    *(f"evaluate/digits-random-ipc5-hard-net-a-d0-s{n}" for n in range(2)),
    *("label/digits-infer-ipc5-static-d0", "teacher/digits-net-a", "teacher/digits-net-b"),
]
RUNTIME = "src/distillery/store/runtime.py"


def test_code_that_computes_the_same_keeps_everything_after_a_sample(copy):
    before = metas(copy)
    reword(copy / RUNTIME)  # part of every artefact
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 0, done.stderr
    assert adopted(copy) == EVERYTHING
    # One of each stage with each set of modules: the teachers are of one, the students of two.
    same = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("same")]
    assert sorted(address.split("/")[0] for address in same) == [
        *("data", "distill", "distill", "evaluate", "evaluate", "label", "teacher")
    ]
    assert set(same) <= before.keys()
    assert f"{ALL} artefacts adopted" in done.stdout
    assert not (copy / "results/scratch/verify").exists()
    for address, meta in metas(copy).items():
        if "adopted_from" in meta:
            assert meta["files"] == before[f"{meta['stage']}/{meta['adopted_from']['id']}"]["files"]
            assert address not in before
    assert "0 artefacts adopted" in distillery(copy, "adopt", "--verify").stdout


def test_a_share_of_one_and_a_number_make_more_of_each_kind_again(copy):
    reword(copy / RUNTIME)
    done = distillery(copy, "adopt", "--verify", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same ") == ALL


def test_what_differs_is_refused_with_its_kind_and_what_hangs_on_it(copy, edit):
    before = metas(copy)
    loop = copy / "src/distillery/losses/kl.py"  # of INFER's students; its value is recorded
    edit(loop, "return divergence(", "return 1.5 * divergence(")
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("distillery: 2 artefacts not adopted: evaluate/digits-infer-ipc5-")
    assert "student.safetensors differs (2 of its kind)" in message
    assert adopted(copy) == [] and metas(copy) == before


def test_a_teacher_that_differs_takes_along_what_learned_from_it(copy, edit):
    reword(copy / RUNTIME)
    edit(
        copy / "src/distillery/stages/teacher.py",
        "recipe.loss)\n",
        "recipe.loss)\n    images = images\n",
    )
    edit(copy / "src/distillery/stages/teacher.py", 'job.seed("init")', 'job.seed("other")')
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1
    assert "weights.safetensors differs" in done.stderr
    # Random's set and students know no teacher.
    random = [f"evaluate/digits-random-ipc5-hard-net-a-d0-s{student}" for student in range(2)]
    assert adopted(copy) == ["data/digits", "distill/digits-random-ipc5-d0", *random]
    assert "6 artefacts not adopted" in done.stderr and "4 have inputs" in done.stderr
    assert "4 artefacts adopted" in done.stdout


def test_metadata_count_and_circumstances_do_not(copy):
    for meta_file in copy.glob(f"results/store/*/*/{META}"):
        meta = json.loads(meta_file.read_text())
        meta |= {"seconds": 1e6, "created": "2001-01-01T00:00:00Z", "python": "3.11.0"}
        if meta["stage"] == "evaluate" and "random" in meta["id"]:
            meta["metadata"]["accuracy"]["last"] = 1.25
        meta_writer({k: v for k, v in meta.items() if k != "checksum"})(meta_file)
    reword(copy / RUNTIME)
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1
    assert "metadata differ: accuracy.last 1.25 -> " in done.stderr
    # The same modules changed for all four students, so that one speaks for all.
    assert len(adopted(copy)) == ALL - 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "Other GPU"}, "it was made on 'Other GPU', this is '"),
        ({"versions": {"torch": "1.0"}}, "it was made with "),
    ],
)
def test_what_other_machines_made_is_not_compared_and_not_adopted(copy, change, said):
    for meta_file in copy.glob(f"results/store/teacher/*/{META}"):
        meta = json.loads(meta_file.read_text()) | change
        meta_writer({k: v for k, v in meta.items() if k != "checksum"})(meta_file)
    reword(copy / RUNTIME)
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1
    assert "not verified: " + said in done.stderr
    if "versions" in change:
        assert "torch 1.0 (here " in done.stderr
    assert not [address for address in adopted(copy) if "teacher" in address or "infer" in address]
    assert len(adopted(copy)) == 4


def test_a_code_that_fails_is_a_difference(copy, edit):
    edit(
        copy / "src/distillery/stages/label.py",
        "component, recipe =",
        "raise ArtefactError('broken')\n    component, recipe =",
    )
    edit(
        copy / "src/distillery/stages/label.py",
        "from distillery.components import registry\n",
        "from distillery.components import registry\nfrom distillery.errors import ArtefactError\n",
    )
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1 and adopted(copy) == []
    assert "cannot be made again: broken" in done.stderr


def test_an_input_that_is_gone_is_said(copy):
    shutil.rmtree(next((copy / "results/store/teacher").glob("digits-net-b*")))
    reword(copy / RUNTIME)
    done = distillery(copy, "adopt", "--verify")
    assert done.returncode == 1
    assert "which it reads, is not in the store" in done.stderr
    assert not [address for address in adopted(copy) if "infer" in address]
    assert len(adopted(copy)) == 5


@pytest.mark.parametrize("amount", ["0", "1.5", "-1"])
def test_amounts_that_are_none(copy, amount):
    done = distillery(copy, "adopt", "--verify", amount)
    assert done.returncode in (1, 2) and "whole number, or a share below 1" in done.stderr
