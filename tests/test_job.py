"""The job runner: complete or absent, verified, resumable, and one line when something is wrong."""

import dataclasses
import errno
import hashlib
import json
import resource
import signal
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import pytest
import torch
from filelock import FileLock

from distillery.errors import ArtefactError, PlanError
from distillery.store.artefact import open_artefact
from distillery.store.fingerprint import code_digest
from distillery.store.job import run
from distillery.store.runtime import seed
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
    planned = dataclasses.replace(base, stage="data")
    assert Spec.loads(planned.dumps()) == planned


def test_key_covers_recipe_and_the_keys_of_inputs_but_no_code():
    base, keys = spec(inputs={"up": "toy/u"}), {"up": "1" * 16}
    assert base.key(keys) != base.key({"up": "2" * 16}), "another input"
    assert base.key(keys) != base.key({"other": "1" * 16}), "another role"
    assert base.key({"up": ["1" * 16]}) != base.key({"up": ["1" * 16, "2" * 16]})
    assert base.key(keys) != spec({"x": 2}, {"up": "toy/u"}).key(keys)
    assert base.key(keys) == spec(inputs={"up": "toy/v"}, code="abc").key(keys)


def test_a_later_field_of_a_method_keeps_the_key_where_it_says_what_was_done_before():
    def key(stage, **fields):
        of = spec({"method": {"name": "sre2l", **fields}, "ipc": 1})
        return dataclasses.replace(of, stage=stage).key({})

    assert key("distill", precision="fp32") == key("distill")
    assert key("distill", precision="bf16") != key("distill")
    assert key("evaluate", precision="fp32") != key("evaluate")


@pytest.fixture
def seeds(stage, tmp_path):
    """From the number of a store and a recipe and inputs to the seeds of two roles in that job."""

    def of(store: int, recipe: dict, inputs: dict | None = None) -> tuple[int, int]:
        seen = []

        def make(job):
            seen.append((job.seed("a"), job.seed("b")))
            assert job.generator("a").initial_seed() == job.seed("a")
            return write(job)

        stage.make = make
        run(spec(recipe, inputs), tmp_path / str(store) / "store", "cpu")
        return seen[0]

    return of


def test_seeds_follow_the_recipe_and_the_role(seeds):
    first, other = seeds(0, {"x": 1}), seeds(0, {"x": 2})
    assert len({*first, *other}) == 4
    assert seeds(1, {"x": 1}) == first, "a second run of the same job"


def test_seeds_follow_what_the_inputs_were_made_of(seeds):
    """The recipe of an input counts, the store that it lies in does not."""
    made = {}
    for store, x in ((0, 1), (1, 2), (2, 1)):
        seeds(store, {"x": x})
        made[store] = seeds(store, {"x": 3}, {"up": spec({"x": x}).address})
    assert made[0] == made[2] and not {*made[0]} & {*made[1]}


def test_nothing_is_left_when_a_job_fails(stage, tmp_path):
    def make(job):
        (job.out / "half.txt").write_text("half")
        raise ValueError("stopped")

    stage.make = make
    with pytest.raises(ValueError, match="stopped"):
        run(spec(), tmp_path / "store", "cpu")
    assert left_in(tmp_path / "store") == []
    assert not list(tmp_path.rglob("half.txt"))


def left_in(store: Path) -> list[Path]:
    """The files of a store that are no locks."""
    return [file for file in store.rglob("*") if file.is_file() and ".locks" not in file.parts]


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


def test_a_folder_without_meta_json_is_made_again(stage, tmp_path):
    """A kill between the moves of the files and that of meta.json leaves such a folder."""
    half = tmp_path / "store" / spec().address
    half.mkdir(parents=True)
    (half / "value.txt").write_text("half")
    stage.make = write
    made = open_artefact(run(spec(), tmp_path / "store", "cpu"))
    assert made.path == half and made.file("value.txt").read_text() == "1"


def test_a_file_that_was_not_fetched_is_made_again_beside_its_meta(stage, tmp_path):
    stage.make = write
    path = run(spec(), tmp_path / "store", "cpu")
    before = (path / "meta.json").read_bytes()
    (path / "value.txt").unlink()
    run(spec(), tmp_path / "store", "cpu")
    assert (path / "value.txt").read_text() == "1"
    assert (path / "meta.json").read_bytes() == before, "others may have recorded it"
    (path / "value.txt").unlink()

    def make(job):
        (job.out / "value.txt").write_text("another machine's")
        return {"value": 1}

    stage.make = make
    made = open_artefact(run(spec(), tmp_path / "store", "cpu"))
    assert made.file("value.txt").read_text() == "another machine's"


def make_slowly(root: str, started: str) -> None:
    """A process that makes the artefact of `spec()` in its own project `root`, for a second."""

    def make(job):
        with open(started, "a") as file:
            file.write(f"{job.scratch}\n")
        time.sleep(1)
        return write(job)

    module = ModuleType("distillery.stages.toy")
    module.make = make
    sys.modules |= {"distillery.toy": ModuleType("distillery.toy"), module.__name__: module}
    run(spec(), Path(root) / "store", "cpu")


def test_two_projects_that_share_a_store_by_a_link_make_a_thing_once(tmp_path):
    started = tmp_path / "started"
    (tmp_path / "one/store").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two/store").symlink_to(tmp_path / "one/store")
    processes = [
        get_context("fork").Process(target=make_slowly, args=(str(tmp_path / name), str(started)))
        for name in ("one", "two")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(started.read_text().splitlines()) == 1
    assert open_artefact(tmp_path / "two/store" / spec().address).metadata == {"value": 1}


def test_who_waits_for_another_process_says_so(stage, tmp_path, capfd):
    stage.make = write
    lock = FileLock(tmp_path / "store/.locks" / f"{spec().address}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True)
    with lock:
        waiting = threading.Thread(target=run, args=(spec(), tmp_path / "store", "cpu"))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive()
    waiting.join()
    assert f"{spec().address}: another process is making it" in capfd.readouterr().err
    assert open_artefact(tmp_path / "store" / spec().address).metadata == {"value": 1}


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
    [
        ("", "0 bytes, meta.json says 1"),
        ("11", "2 bytes, meta.json says 1"),
        ("7", "not what meta.json recorded"),
        (None, "missing though"),
    ],
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


@pytest.mark.parametrize("key", ["stage", "id", "spec", "metadata", "files"])
def test_meta_that_lacks_a_key_is_refused(stage, tmp_path, key):
    stage.make = write
    upstream = run(spec(), tmp_path / "store", "cpu")
    meta = json.loads((upstream / "meta.json").read_text())
    del meta[key]
    (upstream / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ArtefactError, match=f"meta.json: lacks {key};"):
        open_artefact(upstream)


def test_one_input_or_several(stage, tmp_path):
    stage.make = write
    paths = [run(spec({"x": x}), tmp_path / "store", "cpu") for x in (2, 3)]
    one, both = f"toy/{paths[0].name}", [f"toy/{path.name}" for path in paths]

    def make(job):
        assert job.input("one").path == paths[0] and job.find_input("one").path == paths[0]
        assert [artefact.path for artefact in job.inputs_of("one")] == paths[:1]
        assert [artefact.path for artefact in job.inputs_of("both")] == paths
        assert job.find_input("none") is None and job.inputs_of("none") == []
        for read in (job.input, job.find_input):
            with pytest.raises(ArtefactError, match="several inputs 'both' where one is read"):
                read("both")
        with pytest.raises(ArtefactError, match="no input 'none'"):
            job.input("none")
        return write(job)

    stage.make = make
    run(spec(inputs={"one": one, "both": both}), tmp_path / "store", "cpu")


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
    assert left_in(tmp_path / "store") == []
    assert not list(tmp_path.rglob("large"))


@pytest.mark.parametrize("reason", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_full_disk_is_told_by_its_number(stage, tmp_path, reason):
    def make(job):
        raise OSError(getattr(errno, reason), "cannot write")

    stage.make = make
    with pytest.raises(ArtefactError, match="disk or quota is full"):
        run(spec(), tmp_path / "store", "cpu")


@pytest.mark.parametrize("text", ["I/O error: No space left on device", "write: File too large"])
def test_a_full_disk_is_told_by_the_words_of_a_library(stage, tmp_path, text):
    def make(job):
        raise RuntimeError(text)

    stage.make = make
    with pytest.raises(ArtefactError, match="disk or quota is full"):
        run(spec(), tmp_path / "store", "cpu")


def test_another_error_of_the_disk_stays_what_it_is(stage, tmp_path):
    def make(job):
        raise PermissionError(errno.EACCES, "not yours")

    stage.make = make
    with pytest.raises(PermissionError, match="not yours"):
        run(spec(), tmp_path / "store", "cpu")


def test_what_a_killed_job_left_behind_is_no_part_of_the_artefact(stage, tmp_path):
    left = tmp_path / "scratch" / spec().address / "out"
    left.mkdir(parents=True)
    (left / "left.txt").write_text("of the job that was killed")
    stage.make = write
    made = open_artefact(run(spec(), tmp_path / "store", "cpu"))
    assert list(made.meta["files"]) == ["value.txt"]
    assert sorted(file.name for file in made.path.iterdir()) == ["meta.json", "value.txt"]


def test_a_folder_is_no_file_of_the_artefact(stage, tmp_path):
    def make(job):
        (job.out / "folder").mkdir()
        return write(job)

    stage.make = make
    made = open_artefact(run(spec(), tmp_path / "store", "cpu"))
    assert list(made.meta["files"]) == ["value.txt"]


def test_metadata_without_a_number_is_no_artefact(stage, tmp_path):
    stage.make = lambda job: {"accuracy": float("nan")}
    with pytest.raises(ArtefactError, match=r"metadata.*JSON"):
        run(spec(), tmp_path / "store", "cpu")
    assert not list(tmp_path.rglob("meta.json"))


# --- torch ----------------------------------------------------------------------------------------


def test_a_seed_is_63_bits_of_key_and_role():
    for role in map(str, range(64)):
        bits = int(hashlib.sha256(f"key/{role}".encode()).hexdigest()[:16], 16)
        assert seed("key", role) == bits // 2 < 2**63, "fits an int64 tensor"


@pytest.fixture
def torch_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_job_computes_in_true_float32_and_repeats(stage, tmp_path, torch_settings):
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.set_deterministic_debug_mode("default")
    stage.make = lambda job: {
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.get_deterministic_debug_mode() > 0,
        "device": str(job.device),
    }
    made = open_artefact(run(spec(), tmp_path / "store", "cpu", threads=2))
    assert made.metadata == {
        "threads": 2,
        "tf32": False,
        "benchmark": False,
        "deterministic": True,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("device", "threads", "message"),
    [("cpu", 0, "--threads 0: must be 1 or more"), ("tpu", 1, "device 'tpu': not on this machine")],
)
def test_a_machine_without_threads_or_device_is_an_error(
    stage, tmp_path, torch_settings, device, threads, message
):
    stage.make = write
    with pytest.raises(PlanError, match=message):
        run(spec(), tmp_path / "store", device, threads)


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
