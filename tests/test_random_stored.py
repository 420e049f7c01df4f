"""Random edits of meta.json and of job specifications: refused in one line, or without effect."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from distillery.cli import main
from distillery.errors import ArtefactError
from distillery.plan.explain import Explainer
from distillery.plan.plan import Plan
from distillery.store.artefact import META, open_artefact, read_meta
from distillery.store.job import run
from distillery.store.spec import Spec
from helpers import wide
from helpers.edits import edited, edited_text


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wide project with its data artefact."""
    root = wide.make_wide(tmp_path_factory.mktemp("stored"))
    (data,) = (node.spec for node in planned(root) if node.spec.stage == "data")
    run(data, root / "results/store", "cpu")
    return root


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    plan = Plan(root)
    plan.cells("table2")
    return plan


def planned(root: Path) -> list[Any]:
    plan = Plan(root)
    return plan.missing(plan.settings.params.tables)


def refusal(*words: str) -> str | None:
    """The one line that a command refuses with, or None where it does not refuse."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    said = err.getvalue()
    if code == 0:
        return None
    assert code == 1 and said.startswith("distillery: ") and len(said.splitlines()) == 1, said
    return said


def as_json(tree: Any) -> str:
    return json.dumps(tree, indent=1, sort_keys=False)


def check_meta(root: Path, plan: Plan, content: str) -> None:
    nodes = list(plan.nodes.values())[:3]
    (folder,) = (root / "results/store/data").iterdir()
    file = folder / META
    before = file.read_text()
    valid = json.loads(before)
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        for read in (read_meta, lambda path: open_artefact(path).meta):
            try:
                assert read(folder) == valid
            except ArtefactError as error:
                assert str(folder) in str(error) and len(str(error).splitlines()) == 1
        # What the plan reads of a store passes over a meta.json that is none, and tells the rest.
        explainer = Explainer(plan)
        stored = [meta for metas in explainer.stored.values() for meta in metas]
        assert stored in ([], [valid])
        assert all(explainer.why(node) and explainer.estimator.cost(node) for node in nodes)
    finally:
        file.write_text(before)


@given(st.data())
def test_an_edited_meta_json_is_refused_or_the_same(
    root: Path, plan: Plan, data: st.DataObject
) -> None:
    (file,) = (root / "results/store/data").glob(f"*/{META}")
    tree, what = edited(data.draw, json.loads(file.read_text()))
    note(what)
    check_meta(root, plan, as_json(tree))


@pytest.mark.parametrize("version", [None, 1, 0, -1, True])
def test_a_meta_json_that_lost_its_format_is_not_taken_for_an_earlier_one(root, plan, version):
    (file,) = (root / "results/store/data").glob(f"*/{META}")
    meta = json.loads(file.read_text()) | {"format": version}
    check_meta(root, plan, as_json({k: v for k, v in meta.items() if v is not None}))


@given(st.data())
def test_an_edited_text_of_meta_json_is_refused_or_the_same(
    root: Path, plan: Plan, data: st.DataObject
) -> None:
    (file,) = (root / "results/store/data").glob(f"*/{META}")
    check_meta(root, plan, edited_text(data.draw, file.read_text()))


def listing(root: Path) -> set[Path]:
    return set(root.parent.rglob("*"))


def check_spec(root: Path, spec: Spec, text: str) -> None:
    try:
        read = Spec.loads(text)
    except ArtefactError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith("--spec: ")
    else:
        assert asdict(read) == asdict(spec)
        return  # the job as it was planned
    before = listing(root)
    said = refusal(spec.stage, f"--spec={text}", "--root", str(root))
    assert said is not None and "--spec: " in said
    assert listing(root) == before


@pytest.fixture(scope="module")
def specs(root: Path) -> dict[str, Spec]:
    """One planned job of each stage."""
    return {node.spec.stage: node.spec for node in planned(root)}


@given(st.data())
def test_an_edited_job_is_refused_and_writes_nothing(
    root: Path, specs: dict[str, Spec], data: st.DataObject
) -> None:
    spec = specs[data.draw(st.sampled_from(sorted(specs)))]
    tree, what = edited(data.draw, json.loads(spec.dumps()))
    note(what)
    check_spec(root, spec, as_json(tree))


@given(st.data())
def test_an_edited_text_of_a_job_is_refused_and_writes_nothing(
    root: Path, specs: dict[str, Spec], data: st.DataObject
) -> None:
    spec = specs[data.draw(st.sampled_from(sorted(specs)))]
    check_spec(root, spec, edited_text(data.draw, spec.dumps()))


@pytest.mark.parametrize("text", ["", " ", "--", "-1"])
def test_a_job_that_is_no_json_is_refused(root, specs, text):
    check_spec(root, specs["whiten"], text)


@pytest.mark.parametrize("stage", ["distill", "evaluate"])
def test_a_job_whose_inputs_are_not_there_names_them(root, specs, stage):
    """As when a line of `plan --commands` is called before the ones above it."""
    said = refusal(stage, "--spec", specs[stage].dumps(), "--root", str(root))
    assert said is not None and "not in the store; run the plan that makes it" in said
    assert not list((root / "results/store").glob(f"{stage}/*/*"))
