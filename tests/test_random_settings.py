"""Random edits of settings end in a plan that holds, or in one line that names the file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from distillery.cli import main
from distillery.plan.plan import Plan
from distillery.store.spec import Spec
from distillery.table.document import TableDocument
from helpers import wide
from helpers.edits import edited, edited_text

MORE = settings(max_examples=2 * settings.default.max_examples)
# A change of params.yaml alone is answered with a place in it, since all else is as it should be.
ALONE = wide.PARAMS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide.make_wide(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="module")
def valid(root: Path) -> dict[str, Any]:
    return wide.read(root)


@contextlib.contextmanager
def changed(root: Path, name: str, content: str | bytes) -> Iterator[None]:
    """The file `name` with another content, for a while."""
    file = root / name
    before = file.read_bytes()
    file.write_bytes(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )
    try:
        yield
    finally:
        file.write_bytes(before)


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def answered(root: Path, *words: str) -> str | None:
    """The one line that a command refuses with, or None where it does not refuse."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--root", str(root)])
    if code == 0:
        assert not err.getvalue()
        return None
    said = err.getvalue()
    assert code == 1 and said.startswith("distillery: ") and said.endswith("\n"), said
    assert len(said.splitlines()) == 1 and len(said) < 3000, said
    assert said.rstrip("\n").isprintable()
    return said


def holds(plan: Plan) -> None:
    """What the plan says can be done: each job's specification is read again as it was written."""
    tables = plan.settings.params.tables
    for node in plan.missing(tables):
        assert Spec.loads(node.spec.dumps()) == node.spec
        assert all(plan.nodes[above.address] is above for above in node.upstream())
    for table in tables:
        document = plan.document(table)
        assert TableDocument.parse(document.json(), table) == document


def check(root: Path, name: str) -> None:
    before = files(root)
    said = answered(root, "plan")
    assert files(root) == before
    if said is None:
        holds(Plan(root))
    else:
        assert any(file in said for file in ((ALONE,) if name == ALONE else wide.FILES)), said


def test_the_settings_are_valid_before_they_are_edited(root: Path) -> None:
    assert answered(root, "plan") is None
    holds(Plan(root))


@MORE
@given(st.data(), st.sampled_from([*wide.FILES, wide.PARAMS, wide.SCALE]))
def test_an_edited_value_is_planned_or_named(
    root: Path, valid: dict[str, Any], data: st.DataObject, name: str
) -> None:
    tree, what = edited(data.draw, valid[name])
    note(f"{name}: {what}")
    with changed(root, name, wide.dumped(tree)):
        check(root, name)


@given(st.data(), st.sampled_from(wide.FILES))
def test_an_edited_text_is_planned_or_named(root: Path, data: st.DataObject, name: str) -> None:
    text = edited_text(data.draw, (root / name).read_text())
    with changed(root, name, text):
        check(root, name)


@given(st.sampled_from(wide.FILES), st.binary(max_size=40), st.booleans())
@example(wide.PARAMS, b"\xff\xfe", False)
def test_bytes_are_refused_or_planned(root: Path, name: str, content: bytes, behind: bool) -> None:
    with changed(root, name, (root / name).read_bytes() + content if behind else content):
        check(root, name)


PLACES = {
    "nothing": lambda file: None,
    "a folder": lambda file: file.mkdir(),
    "a pipe": lambda file: os.mkfifo(file),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a link to nothing": lambda file: file.symlink_to("nothing"),
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("name", [wide.PARAMS, wide.SCALE, wide.TABLE])
@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES)
def test_a_settings_file_that_is_no_file(root, put, name):
    file, aside = root / name, root / "aside"
    file.rename(aside)
    try:
        put(file)
        said = answered(root, "plan")
        assert said is not None and (name in said or file.stem in said)
    finally:
        if file.is_dir():
            file.rmdir()
        aside.replace(file)
