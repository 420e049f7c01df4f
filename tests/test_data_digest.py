"""The digest of a data source: DVC's own, remembered, and for a source that is not there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.cli import main
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


@pytest.fixture
def settled(monkeypatch) -> None:
    """Files count as old as soon as they are written."""
    monkeypatch.setattr(digest, "COARSE", -(10**9))


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


def test_cache_saves_reading_until_something_changes(tmp_path, readings, settled):
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


def _rewritten(file: Path) -> None:
    """The same number of other bytes in the same file, with its times as they were."""
    found = file.stat()
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def _replaced(file: Path) -> None:
    """Another file under the name, of the same size and with the same times."""
    found, other = file.stat(), file.with_name("other")
    other.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [_rewritten, _replaced])
def test_a_file_of_the_same_size_and_time_is_noticed(tmp_path, settled, change):
    data, cache = _fill(tmp_path / "set"), tmp_path / "cache.json"
    first, before = folder_digest(data, cache), (data / "b.txt").stat()
    change(data / "b.txt")
    after = (data / "b.txt").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert folder_digest(data, cache) == folder_digest(data) != first


def test_a_file_that_may_change_within_its_own_time_is_not_remembered(tmp_path, readings):
    data, cache = _fill(tmp_path / "set"), tmp_path / "cache.json"
    folder_digest(data, cache)
    folder_digest(data, cache)
    assert len(readings) == 2 * len(FILES) and not cache.exists()


def test_cache_keeps_other_folders_and_survives_damage(tmp_path, readings, settled):
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
    with pytest.raises(DataError, match="gone: is a link to nothing"):
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
    (tmp_path / "set.dvc").write_text(text)
    assert place_digest(tmp_path / "set") == expected
    (tmp_path / "set").mkdir()  # as empty as one that is not pulled
    assert place_digest(tmp_path / "set") == (expected or folder_digest(tmp_path / "set"))
    data = _fill(tmp_path / "set")
    if expected is None:
        assert place_digest(data) == folder_digest(data)
    else:
        with pytest.raises(DataError, match=r"set: is not what .*set\.dvc records; `dvc add "):
            place_digest(data)


def test_a_tracked_folder_may_change_only_with_its_record(tmp_path):
    data = _fill(tmp_path / "data/set")
    record = f"outs:\n- md5: {folder_digest(data)}\n  hash: md5\n  path: set\n"
    (tmp_path / "data/set.dvc").write_text(record)
    assert _planned(tmp_path, "folder:data/set").recipe["digest"] == folder_digest(data)
    _rewritten(data / "b.txt")
    with pytest.raises(PlanError, match=r"one\.source: .*data/set: is not what .* records"):
        _planned(tmp_path, "folder:data/set")


def test_nothing_is_pruned_while_data_cannot_be_planned(project, edit, capsys):
    """Otherwise all that was made of them would look as if no plan reached it."""
    assert main(["data", "digits", "--root", str(project)]) == 0
    data = _fill(project / "data/set")
    record = f"outs:\n- md5: {folder_digest(data)}\n  hash: md5\n  path: set\n"
    (project / "data/set.dvc").write_text(record)
    scale = project / "workflow/scales/tiny.yaml"
    edit(scale, "teacher:\n", "  own: {source: 'folder:data/set'}\nteacher:\n")
    assert main(["prune", "--yes", "--root", str(project)]) == 0
    _rewritten(data / "b.txt")
    assert main(["prune", "--yes", "--root", str(project)]) == 1
    assert "data/set: is not what" in capsys.readouterr().err
    assert len(list(project.glob("results/store/data/*/meta.json"))) == 1


def test_rehash_reads_again_what_no_time_betrays(project, edit, monkeypatch, settled, capsys):
    """As where the clock was set back, or the file system keeps no time of change."""
    data = _fill(project / "data/set")
    edit(project / "workflow/scales/tiny.yaml", "sklearn:digits", "folder:data/set")
    listing = digest._listing
    monkeypatch.setattr(digest, "_listing", lambda p: [(n, s, 0, 0, 0) for n, s, *_ in listing(p)])

    def planned(*options: str) -> set[str]:
        assert main(["plan", "table2", "--root", str(project), *options]) == 0
        return set(re.findall(r"^data +(digits-[0-9a-f]{12})", capsys.readouterr().out, re.M))

    first = planned()
    _rewritten(data / "b.txt")
    assert planned() == first and len(first) == 1
    second = planned("--rehash")
    assert second != first and planned() == second
