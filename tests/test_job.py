"""The job runner: complete or absent, verified, resumable, and one line when something is wrong."""

import dataclasses
import json
import resource
import signal
import sys
import time
from multiprocessing import get_context
from types import ModuleType

import pytest

from distillery.errors import ArtefactError
from distillery.store.artefact import open_artefact
from distillery.store.fingerprint import code_digest
from distillery.store.job import run
from distillery.store.spec import Spec


@pytest.fixture
def stage(monkeypatch):
    """A stage `toy` whose make is set by the test."""
    module = ModuleType("distillery.stages.toy")
    monkeypatch.setitem(sys.modules, "distillery.toy", ModuleType("distillery.toy"))
    monkeypatch.setitem(sys.modules, "distillery.stages.toy", module)
    return module


def spec(recipe=None, inputs=None, code=None) -> Spec:
    return Spec("toy", "thing", recipe or {"x": 1}, inputs or {}, [], code or code_digest([]))


def write(job):
    (job.out / "value.txt").write_text(str(job.recipe["x"]))
    return {"value": job.recipe["x"]}


def test_artefact_is_complete_and_verified(stage, tmp_path):
    stage.make = write
    path = run(spec(), tmp_path / "store", "cpu")
    made = open_artefact(path)
    assert made.file("value.txt").read_text() == "1"
    assert made.metadata == {"value": 1}
    assert made.id == path.name == spec().id
    assert not list((tmp_path / "scratch").rglob("value.txt"))


def test_identity_covers_recipe_inputs_and_code_only():
    base = spec()
    assert spec({"x": 2}).id != base.id
    assert spec(inputs={"a": "toy/u"}).id != base.id
    assert spec(code="abc").id != base.id
    assert dataclasses.replace(base, local={"source": "elsewhere"}).id == base.id
    assert Spec.loads(base.dumps()) == base


def test_seeds_follow_the_cell_and_the_role(stage, tmp_path):
    seen = {}

    def make(job):
        seen[job.recipe["x"]] = (job.seed("a"), job.seed("b"))
        return {}

    stage.make = make
    for x in (1, 2):
        run(spec({"x": x}), tmp_path / "store", "cpu")
    assert len({*seen[1], *seen[2]}) == 4
    run(spec({"x": 1}), tmp_path / "again", "cpu")
    first = seen[1]
    assert seen[1] == first


def test_nothing_is_left_when_a_job_fails(stage, tmp_path):
    def make(job):
        (job.out / "half.txt").write_text("half")
        raise ValueError("stopped")

    stage.make = make
    with pytest.raises(ValueError, match="stopped"):
        run(spec(), tmp_path / "store", "cpu")
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.rglob("half.txt"))


def test_checkpoints_survive_a_failure_and_go_on_success(stage, tmp_path):
    def make(job):
        mark = job.scratch / "checkpoint"
        if not mark.exists():
            mark.write_text("here")
            raise KeyboardInterrupt
        return write(job)

    stage.make = make
    with pytest.raises(KeyboardInterrupt):
        run(spec(), tmp_path / "store", "cpu")
    path = run(spec(), tmp_path / "store", "cpu")
    assert open_artefact(path).metadata == {"value": 1}
    assert not list((tmp_path / "scratch").rglob("checkpoint"))


def test_a_complete_artefact_is_not_made_again(stage, tmp_path):
    stage.make = write
    run(spec(), tmp_path / "store", "cpu")
    stage.make = None
    run(spec(), tmp_path / "store", "cpu")


def test_source_changed_after_planning(stage, tmp_path):
    stage.make = write
    with pytest.raises(ArtefactError, match="the source changed after planning"):
        run(spec(code="000000000000"), tmp_path / "store", "cpu")


def test_missing_input_is_named(stage, tmp_path):
    stage.make = write
    with pytest.raises(ArtefactError, match="data/absent-1: not in the store"):
        run(spec(inputs={"data": "data/absent-1"}), tmp_path / "store", "cpu")


@pytest.mark.parametrize(
    ("damage", "message"),
    [("", "0 bytes"), ("7", "not what meta.json recorded"), (None, "missing though")],
)
def test_a_damaged_input_is_refused(stage, tmp_path, damage, message):
    stage.make = write
    upstream = run(spec(), tmp_path / "store", "cpu")
    (upstream / "value.txt").unlink()
    if damage is not None:
        (upstream / "value.txt").write_text(damage)
    with pytest.raises(ArtefactError, match=message):
        run(spec({"x": 2}, {"up": f"toy/{upstream.name}"}), tmp_path / "store", "cpu")


def test_truncated_meta_is_refused(stage, tmp_path):
    stage.make = write
    upstream = run(spec(), tmp_path / "store", "cpu")
    text = (upstream / "meta.json").read_text()
    (upstream / "meta.json").write_text(text[: len(text) // 2])
    with pytest.raises(ArtefactError, match="unreadable"):
        open_artefact(upstream)


def test_a_full_disk_is_one_line_and_leaves_nothing(stage, tmp_path):
    def make(job):
        (job.out / "large").write_bytes(bytes(1 << 20))
        return {}

    stage.make = make
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(ArtefactError, match="disk or quota is full"):
            run(spec(), tmp_path / "store", "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.rglob("large"))


def _slow(store, log):
    module = ModuleType("distillery.stages.toy")

    def make(job):
        with open(log, "a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return write(job)

    module.make = make
    sys.modules["distillery.toy"], sys.modules["distillery.stages.toy"] = (
        ModuleType("distillery.toy"),
        module,
    )
    run(spec(), store, "cpu")


def test_two_processes_never_make_the_same_artefact(tmp_path):
    context = get_context("fork")
    both = [
        context.Process(target=_slow, args=(tmp_path / "store", tmp_path / "log")) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_meta_says_what_made_it(stage, tmp_path):
    stage.make = write
    meta = json.loads((run(spec(), tmp_path / "store", "cpu") / "meta.json").read_text())
    assert meta["spec"]["recipe"] == {"x": 1}
    assert meta["versions"]["torch"] and meta["seconds"] >= 0 and meta["peak_memory_bytes"] > 0
    assert meta["files"]["value.txt"]["bytes"] == 1
