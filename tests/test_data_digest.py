"""The digest of a data source: DVC's own, remembered, and for a source that is not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.data import digest
from distillery.data.digest import folder_digest, place_digest
from distillery.errors import DataError, PlanError
from distillery.plan.context import Context
from distillery.plan.stage_plans.data import plan_data
from distillery.store.spec import Spec
from helpers.planning import settings_with

FILES = {
    "b.txt": "b",
    "a/z.txt": "z",
    "a.txt": "a",
    "a/ü-日.txt": "u",
    "Z": "",
    "crlf.txt": "1\r\n2\r\n",
    "a b/c.txt": "c",
}


def _fill(root: Path) -> Path:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def _dvc(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments, "-q"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_digest_is_dvcs(tmp_path):
    data = _fill(tmp_path / "set")
    (data / ".git").mkdir()
    (data / ".git/config").write_text("not data")
    _dvc(tmp_path, "init", "--no-scm")
    _dvc(tmp_path, "add", "set")
    recorded = yaml.safe_load((tmp_path / "set.dvc").read_text())["outs"][0]["md5"]
    assert folder_digest(data) == recorded
    shutil.rmtree(data)
    assert place_digest(tmp_path / "set") == recorded


@pytest.fixture
def readings(monkeypatch) -> list[Path]:
    """The files that are read for their content."""
    read: list[Path] = []
    original = digest._md5
    monkeypatch.setattr(digest, "_md5", lambda file: read.append(file) or original(file))
    return read


def test_cache_saves_reading_until_something_changes(tmp_path, readings):
    data, cache = _fill(tmp_path / "set"), tmp_path / "deeper/cache.json"
    first = folder_digest(data, cache)
    assert len(readings) == len(FILES)
    assert folder_digest(data, cache) == first == folder_digest(data) and len(readings) == 2 * len(
        FILES
    )
    (data / "b.txt").write_text("c")
    os.utime(data / "b.txt", ns=(1, 1))
    changed = folder_digest(data, cache)
    assert changed != first and changed == folder_digest(data)
    (data / "b.txt").rename(data / "c.txt")
    assert folder_digest(data, cache) == folder_digest(data) not in (first, changed)


def test_cache_keeps_other_folders_and_survives_damage(tmp_path, readings):
    one, two, cache = _fill(tmp_path / "one"), _fill(tmp_path / "two"), tmp_path / "cache.json"
    assert folder_digest(one, cache) == folder_digest(two, cache)
    assert len(json.loads(cache.read_text())) == 2
    readings.clear()
    folder_digest(one, cache)
    assert readings == []
    for damage in ("", "[1]", '{"half'):
        cache.write_text(damage)
        assert folder_digest(one, cache) == folder_digest(one)


def test_links_and_missing_folders_are_errors(tmp_path):
    data = _fill(tmp_path / "set")
    (data / "linked").symlink_to(data / "a", target_is_directory=True)
    with pytest.raises(DataError, match="linked: is a link to a folder"):
        folder_digest(data)
    (data / "linked").unlink()
    (data / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"gone: unreadable \(No such file"):
        folder_digest(data)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        folder_digest(tmp_path / "nowhere")


def _planned(folder: Path, source: str) -> Spec:
    """What is planned for a data set with this source in a project in `folder`."""
    shutil.rmtree(folder / "workflow", ignore_errors=True)
    settings = settings_with(folder, {"datasets": {"one": {"source": source}}})
    return plan_data("one", Context(settings)).spec


@pytest.mark.parametrize("place", ["data/set", "data/set/", "{}/data/set"])
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_source_on_disk_is_its_content_wherever_it_lies(tmp_path, kind, place):
    data = _fill(tmp_path / "data/set")
    spec = _planned(tmp_path, f"{kind}:{place.format(tmp_path)}")
    assert spec.recipe["source"] == kind and spec.recipe["digest"] == folder_digest(data)
    assert Path(spec.local["source"].removeprefix(f"{kind}:")) == data


@pytest.mark.parametrize("source", ["sklearn:digits", "torchvision:CIFAR10"])
def test_a_source_of_a_fixed_release_is_its_own_digest(tmp_path, source):
    spec = _planned(tmp_path, source)
    assert spec.recipe["source"] == spec.recipe["digest"] == source and spec.local == {}


def test_a_source_that_is_not_there_is_planned_and_an_unknown_one_is_not(tmp_path):
    assert place_digest(tmp_path / "data/absent") is None
    assert _planned(tmp_path, "parquet:data/absent").recipe["digest"] == "absent"
    with pytest.raises(PlanError, match="no such kind as 'foldr': did you mean 'folder'"):
        _planned(tmp_path, "foldr:data/set")


TRACKED, OTHER = "1" * 32 + ".dir", "2" * 32 + ".dir"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"outs:\n- md5: {TRACKED}\n  size: 3\n  nfiles: 1\n  hash: md5\n  path: set\n", TRACKED),
        (
            f"deps:\n- md5: {OTHER}\n  hash: md5\n  path: x\n"
            f"outs:\n- md5: {TRACKED}\n  hash: md5\n  path: set\n",
            TRACKED,
        ),
        (
            f"outs:\n- md5: {TRACKED}\n  size: 3\n  path: set\n",
            None,
        ),  # written by DVC 2: another hash of text files
        ("outs:\n- path: set\n  hash: md5\n", None),
    ],
)
def test_a_dvc_file_stands_for_its_folder(tmp_path, text, expected):
    data = _fill(tmp_path / "set")
    (tmp_path / "set.dvc").write_text(text)
    assert place_digest(data) == (expected or folder_digest(data))
