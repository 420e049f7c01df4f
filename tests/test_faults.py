"""Every call of the file system fails once, in publishing an artefact and in writing a table.

Nothing finished is lost, nothing half-made can be seen, and the same call made again succeeds.
"""

import errno
import io
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from distillery.errors import ArtefactError
from distillery.store import atomic
from distillery.store.artefact import META, open_artefact
from distillery.store.fingerprint import code_digest
from distillery.store.job import run
from distillery.store.spec import Spec

ERRORS = ("ENOSPC", "EXDEV", "EACCES", "EIO")
# What `store.atomic` and the writers that it is given call.
CALLS = [(os, "replace"), (os, "link"), (os, "open"), (os, "fsync"), (os, "mkdir"), (io, "open")]
CALLS += [(shutil, "copyfile")]


class Faults:
    """Counts calls, and lets call number `at` fail with `code`; counted while `on`."""

    def __init__(self, monkeypatch):
        self.on, self.count, self.at, self.code = False, 0, None, 0
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self.wrapped(getattr(module, name)))

    def wrapped(self, call):
        def counted(*arguments, **options):
            if self.on:
                self.count += 1
                if self.count == self.at:
                    raise OSError(self.code, os.strerror(self.code), str(arguments[0]))
            return call(*arguments, **options)

        return counted

    def during(self, action, at=None, code="EIO"):
        """Run `action` with call `at` failing; the error it raised, or None."""
        self.on, self.count, self.at, self.code = True, 0, at, getattr(errno, code)
        try:
            return action()
        except (OSError, ArtefactError) as error:
            return error
        finally:
            self.on = False


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


@pytest.fixture
def job(tmp_path, monkeypatch, faults):
    """From a folder's name to a run of a job whose faults begin when its work is done."""
    made = []

    def make(job):
        made.append(job.out)
        for name in ("a.bin", "b.bin"):
            (job.out / name).write_bytes(os.urandom(0) + name.encode() * 100)
        return {"value": 1}

    toy = ModuleType("distillery.stages.toy")
    toy.make = make
    monkeypatch.setitem(sys.modules, "distillery.stages.toy", toy)
    spec = Spec("toy", "thing", {"x": 1}, {}, [], code_digest([]))
    publish = sys.modules["distillery.store.job"].publish

    def guarded(*arguments):
        error = faults.during(lambda: publish(*arguments), guarded.at, guarded.code)
        if error:
            raise error

    guarded.at, guarded.code = None, "EIO"
    monkeypatch.setattr("distillery.store.job.publish", guarded)

    def start(name: str, at=None, code="EIO") -> Path:
        guarded.at, guarded.code = at, code
        return run(spec, tmp_path / name / "store", "cpu")

    start.made, start.spec = made, spec
    return start


def test_no_fault_of_publishing_loses_the_work_or_shows_half_of_it(job, faults, tmp_path):
    job("clean")
    calls = faults.count
    assert calls >= 10  # three files: linked, synced and renamed, and the folder
    failed = 0
    for at in range(1, calls + 1):
        for code in ERRORS:
            name, before = f"{at}-{code}", len(job.made)
            target = tmp_path / name / "store" / job.spec.address
            try:
                job(name, at, code)
            except ArtefactError as error:
                failed += 1
                assert "waits in" in str(error) or (target / META).exists()
            shown = (target / META).exists()
            if shown:  # what can be seen is whole
                assert open_artefact(target).metadata == {"value": 1}
            job(name)
            assert open_artefact(target).file("a.bin").read_bytes() == b"a.bin" * 100
            assert len(job.made) == before + 1, "the work was done again"
            assert not [f for f in target.iterdir() if f.name.startswith(".")]
    assert failed >= calls  # the faults were felt


def test_a_store_on_another_file_system(job, monkeypatch, tmp_path):
    """As where results/store is a mount: neither a link nor a rename crosses the border."""

    def crossing(call):
        def checked(source, target, **options):
            if ("store" in Path(source).parts) != ("store" in Path(target).parts):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
            return call(source, target, **options)

        return checked

    for name in ("replace", "link", "rename"):
        monkeypatch.setattr(os, name, crossing(getattr(os, name)))
    path = job("mounted")
    assert open_artefact(path).file("b.bin").read_bytes() == b"b.bin" * 100
    assert len(job.made) == 1


def test_files_that_belong_together_appear_together(faults, tmp_path):
    """While they are written no target changes; the last file, which vouches for all, is last."""
    targets = [tmp_path / "out" / name for name in ("t.csv", "t.md", "t.json")]

    def write(version):
        return lambda: atomic.write_together({t: atomic.text_writer(version) for t in targets})

    assert faults.during(write("old")) is None
    calls = faults.count
    for at in range(1, calls + 1):
        for code in ERRORS:
            for target in targets:
                target.write_text("old")
            failed = faults.during(write("new"), at, code)
            texts = [target.read_text() for target in targets]
            assert set(texts) <= {"old", "new"}
            if texts[-1] == "new":
                assert set(texts) == {"new"}
            if failed and at <= calls - 1 - len(targets):  # before the first rename
                assert set(texts) == {"old"}
            assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
                "t.csv",
                "t.json",
                "t.md",
            ]
