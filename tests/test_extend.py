"""docs/extend.md: its worked example is a paper that works, its tables are those of the code."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.components.contracts import CONTRACTS
from distillery.components.registry import KINDS
from distillery.components.traits import TRAITS
from distillery.plan.settings import merge
from helpers.project import ROOT

PAGE = (ROOT / "docs/extend.md").read_text()
EXAMPLE = PAGE.partition("## A worked example")[2].partition("\n## ")[0]
SCALE = "workflow/scales/demo.yaml"
BLOCKS = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", EXAMPLE, re.DOTALL)
FILES = {path: text for path, text in BLOCKS if path != SCALE}
ENTRIES = [yaml.safe_load(text) for path, text in BLOCKS if path == SCALE]
COMMANDS = re.findall(r"^(distillery .*?) *(?:#.*)?$", EXAMPLE, re.MULTILINE)
COMPONENTS = ("methods.class_mean", "losses.huber", "training.augmentations.noise")

PLAN = """
import json
from pathlib import Path
from distillery.plan.plan import Plan
nodes = Plan(Path()).missing(["means/table1"])
print(json.dumps([[n.spec.stage, n.spec.recipe, n.spec.roots] for n in nodes]))
"""


def copy(folder: Path, *, without: int | str | None = None) -> Path:
    """The project with the example: its files and its entries in the scale, without one."""
    for name in ("src", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", folder)
    for path, text in FILES.items():
        assert not (folder / path).exists()
        if path != without:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
    entries = [entry for i, entry in enumerate(ENTRIES) if i != without]
    scale = merge(yaml.safe_load((folder / SCALE).read_text()), *entries)
    (folder / SCALE).write_text(yaml.safe_dump(scale))
    return folder


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
    )


def test_each_part_of_the_example_is_one_file_and_one_entry():
    kinds = [path.rsplit("/", 1)[0] for path in FILES]
    assert kinds == [
        *("src/distillery/methods", "src/distillery/losses"),
        *("src/distillery/training/augmentations", "workflow/tables/means"),
    ]
    leaves = [json.dumps(entry) for entry in ENTRIES]
    assert len(leaves) == 4
    for leaf, name in zip(leaves, ("class-mean", "huber", "noise", "means/table1"), strict=True):
        assert name in leaf


def test_the_example_plans_at_demo_scale(tmp_path):
    done = python(copy(tmp_path), "-c", PLAN)
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout)
    distill = [recipe for stage, recipe, _ in nodes if stage == "distill"]
    assert {"method": {"name": "class-mean", "group": 4}, "ipc": 5} in distill
    students = [(recipe, roots) for stage, recipe, roots in nodes if stage == "evaluate"]
    assert len(students) == 2 * 3  # two rows, three students
    ours = [(r, roots) for r, roots in students if r["loss"] == {"name": "huber", "delta": 1.0}]
    assert [r["training"]["augment"] for r, _ in ours] == [["crop:1", "noise:0.05"]] * 3
    roots = {root for _, _, roots in nodes for root in roots}
    assert {f"distillery.{name}" for name in COMPONENTS} <= roots


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_example_answer(tmp_path, command):
    done = python(copy(tmp_path), "-m", *command.split())
    assert done.returncode == 0, done.stderr
    assert "class-mean" in done.stdout or "noise:0.05" in done.stdout


def test_the_example_runs(tmp_path):
    root = copy(tmp_path)
    short = {
        "evaluate": {"hard": {"training": {"epochs": 2}}, "means": {"training": {"epochs": 2}}}
    }
    short |= {"label": {"static": {"teachers": ["convnet-w16"]}}, "students": 1}
    params = merge(yaml.safe_load((root / "params.yaml").read_text()), short)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    done = python(root, "-m", "distillery", "make", "means/table1")
    assert done.returncode == 0, done.stderr
    rows = (root / "results/means/table1.csv").read_text()
    assert "Class means" in rows and "Random" in rows


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (0, "class-mean"),
        (1, "means"),
        (3, "means/table1"),
        *(
            (path, name)
            for path, name in zip(FILES, ("class-mean", "huber", "noise"), strict=False)
        ),
        ("workflow/tables/means/table1.yaml", "means/table1"),
    ],
)
def test_every_file_and_entry_is_needed_and_its_lack_is_one_line(tmp_path, missing, message):
    root = copy(tmp_path, without=missing)
    done = python(root, "-m", "distillery", "plan", "means/table1")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr


def table(heading: str) -> list[list[str]]:
    """The cells of the Markdown table whose first column is called `kind`, after `heading`."""
    rows = PAGE.partition(heading)[2].partition("| kind |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_page_lists_all_kinds_and_their_folders():
    listed = {row[0]: re.match(r"`([\w/]+)`", row[1])[1] for row in table("## What a component is")}
    assert listed == KINDS
    assert listed.keys() == CONTRACTS.keys()


def test_the_page_lists_the_functions_of_the_contracts():
    for kind, _, defines, _ in table("## What a component is"):
        functions = {name for name in vars(CONTRACTS[kind]) if not name.startswith("_")}
        assert functions <= set(re.findall(r"`(\w+)`", defines)), kind


def test_the_page_lists_all_traits_and_their_defaults():
    listed = {(row[0], row[1].strip("`")): row[2].strip("`") for row in table("**Traits.**")}
    assert listed == {
        (kind, field.name): repr(field.default)
        for kind, traits in TRAITS.items()
        for field in dataclasses.fields(traits)
    }
