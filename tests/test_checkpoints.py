"""Killed anywhere, a job goes on to the bytes of one that was not: the mechanism and each loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Generator, Tensor
from torch.nn import functional as F

from distillery.analyses.inputs import AnalysisInputs
from distillery.components import registry
from distillery.embeddings import features
from distillery.errors import DistilleryError
from distillery.labels import fkd, static
from distillery.losses.target import Target
from distillery.methods.shared import meta_learning
from distillery.stages import whiten
from distillery.store import checkpoint
from distillery.store.checkpoint import Checkpoint, Pace, folding, gathered, load_state, save_state
from distillery.store.job import Job
from distillery.training import loop
from distillery.training.loop import predictions, train
from distillery.training.recipe import Mix, Optimizer, Training
from helpers.jobs import job_in
from helpers.kills import Killed, saving, until_done
from helpers.labels import TEACHERS, TRAIN, infer_set
from helpers.methods import INFER, METHODS, SRE2L, classes, distil, two_teachers
from helpers.sources import folders, parquets, run_in
from helpers.tiny import tiny_net, tiny_set, tiny_teacher
from helpers.training import network, samples

CONSTANTS = {"mean": (0.5,), "std": (0.25,)}


# --- a job of each kind: from a job to all that comes out of it -----------------------------------


def recovery(reference: dict, job: Job) -> dict[str, Tensor]:
    teachers = two_teachers(tiny_set())
    made = distil({"augment": ["batch-flip", "roll:4"], **reference}, tiny_set(), 5, job, teachers)
    return made.tensors


def real_images(reference: dict, job: Job) -> dict[str, Tensor]:
    return distil(reference, tiny_set(), 3, job, [tiny_teacher(tiny_set())]).tensors


def unrolled(name: str, job: Job) -> dict[str, Tensor]:
    method, recipe, ipc = METHODS[name]
    recipe = recipe.__class__(**vars(recipe) | {"snapshots": 2})
    made = method.distill(classes(), recipe, ipc=ipc, teachers=[], job=job)
    snapshots = load_file(job.out / meta_learning.SNAPSHOTS)
    history = torch.tensor(list((job.out / meta_learning.HISTORY).read_bytes()))
    return made.tensors | snapshots | {"history": history}


def loss(logits: Tensor, target: Target) -> Tensor:
    return F.cross_entropy(logits, target.mixed)


def training(optimizer: Optimizer, precision: str, mix: str, job: Job) -> dict[str, Tensor]:
    augment = ("crop:1", "flip", "resized-crop")
    recipe = Training(3, 32, optimizer, augment=augment, mix=Mix(mix), precision=precision)
    model = network()
    history = train(model, samples(), recipe, loss, job, test=samples(90))
    numbers = torch.tensor([*history.loss, *history.accuracy.values()], dtype=torch.float64)
    assert not (job.scratch / f"{loop.CHECKPOINT}.pt").exists()
    return dict(model.state_dict()) | {"history": numbers}


def files(job: Job) -> dict[str, Tensor]:
    return {file.name: torch.tensor(list(file.read_bytes())) for file in job.out.iterdir()}


def replayed(job: Job) -> dict[str, Tensor]:
    recipe = fkd.Recipe(("a", "b"), 3, 8, ("crop:1", "flip"), Mix("cutmix"))
    fkd.make(recipe, infer_set().expand(), TEACHERS, job, **CONSTANTS)
    return files(job)


def static_labels(job: Job) -> dict[str, Tensor]:
    static.make(static.Recipe(("a", "b")), infer_set().expand(), TEACHERS, job, **CONSTANTS)
    return files(job)


def whitening(job: Job) -> dict[str, Tensor]:
    whiten.make(job)
    return files(job)


def embedding(job: Job) -> dict[str, Tensor]:
    return {"means": features.class_means(TRAIN, TEACHERS[:1], job)}


def converted(kind: str, job: Job) -> dict[str, object]:
    """A data set with every finding; sources live beside the job, the same for all runs."""
    root = job.out.parent.parent / "source"
    if not root.exists():
        if kind == "folder":
            folders(root, count=7, mode="RGBA")
        else:
            parquets(root, (0, 1, 1, 0, 1, 0, 0), (0, 1, 1, 0, 0), rows=2)
    made = run_in(job.out.parent, f"{kind}:{root}", size=6)
    return files(job) | {"metadata": json.dumps(made.metadata)}


def answers(job: Job) -> dict[str, Tensor]:
    return {"answers": predictions(network(), samples(), 8, job)}


def analysis(reference: dict, job: Job) -> dict[str, object]:
    component, recipe = registry.build("analysis", reference)
    inputs = AnalysisInputs(
        TRAIN, tiny_set(seed=1), infer_set(), None, TEACHERS, tiny_net(TRAIN, 5, 2), (0.5,), (0.25,)
    )
    found = component.analyse(inputs, recipe, job)
    values = {name: list(column) for name, column in found.values.items()}
    return {"value": found.value, **values, **found.arrays}


INFER_GROUPS = {**INFER, "parallel_groups": 2, "micro_batch": 3}
SRE2L_GROUPS = {**SRE2L, "parallel_groups": 2, "batch": 3}
CDA = {**SRE2L, "name": "cda", "augment": ["batch-resized-crop", "roll:4"]}
G_VBSM = {
    "name": "g-vbsm",
    "teachers": ["a", "b"],
    "iterations": 3,
    "batch": 6,
    "augment": ["batch-flip", "roll:4"],
    "reference_augment": ["flip"],
    "reference_batch": 16,
}
DIVERGENCE = {"name": "divergence", "teachers": ["a"], "mixes": 100, "augment": ["crop:1", "flip"]}
LANDSCAPE = {"name": "landscape", "points": 3, "images": 5}
SIMILARITY = {"name": "similarity", "teachers": ["a"]}
DIFFICULTY = {"name": "difficulty", "teachers": ["a"], "bins": 3}
BOUNDARY = {"name": "boundary", "classes": 3, "per_class": 6, "grid": 5}
MOMENTUM, ADAMW = Optimizer("sgd", 0.05, nesterov=True), Optimizer("adamw", decay="matrices")
KINDS: dict[str, Callable[[Job], dict[str, object]]] = {
    "infer": partial(recovery, {k: v for k, v in INFER.items() if k != "augment"}),
    "infer in groups": partial(recovery, {k: v for k, v in INFER_GROUPS.items() if k != "augment"}),
    "sre2l": partial(recovery, {k: v for k, v in SRE2L_GROUPS.items() if k != "augment"}),
    "cda": partial(recovery, CDA),
    "g-vbsm": partial(recovery, G_VBSM),
    "rded": partial(real_images, {"name": "rded", "teachers": ["a"], "pool": 10, "crops": 120}),
    "k-means": partial(real_images, {"name": "k-means", "teachers": ["a"]}),
    "herding": partial(real_images, {"name": "herding", "teachers": ["a"]}),
    "bptt": partial(unrolled, "bptt"),
    "rat-bptt": partial(unrolled, "rat-bptt"),
    "podd": partial(unrolled, "podd"),
    "sgd": partial(training, MOMENTUM, "fp32", "mixup"),
    "adamw": partial(training, ADAMW, "bf16", "cutmix"),
    "lookahead": partial(training, Optimizer("timm:lookahead_lion", 1e-3), "fp32", "cutmix"),
    "fkd": replayed,
    "static": static_labels,
    "whiten": whitening,
    "features": embedding,
    "data of folders": partial(converted, "folder"),
    "data of parquet": partial(converted, "parquet"),
    "predictions": answers,
    "divergence": partial(analysis, DIVERGENCE),
    "landscape": partial(analysis, LANDSCAPE),
    "similarity": partial(analysis, SIMILARITY),
    "difficulty": partial(analysis, DIFFICULTY),
    "boundary": partial(analysis, BOUNDARY),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch, one_thread):
    """Batches of a few images, so that every loop has several steps; a data set for `whiten`."""
    for module in ("distillery.labels.static", "distillery.embeddings.features"):
        monkeypatch.setattr(f"{module}.BATCH", 10)
    monkeypatch.setattr("distillery.analyses.inputs.BATCH", 16)
    monkeypatch.setattr("distillery.analyses.divergence.BATCH", 16)
    monkeypatch.setattr("distillery.methods.rded.BATCH", 400)
    few = partial(predictions, batch=40)
    monkeypatch.setattr(loop, "predictions", lambda *args, **more: few(*args, **more))
    monkeypatch.setattr(whiten, "BATCH", 10)
    monkeypatch.setattr("distillery.data.write.GROUP_ROWS", 2)
    monkeypatch.setattr(whiten, "load_images", lambda data, split: TRAIN)


def fresh(folder: Path, key: str = "key") -> Job:
    data = SimpleNamespace(id="tiny")
    return job_in(folder, key, recipe={"ridge": 0.1}, inputs={"data": data})


def same(found: dict[str, object], expected: dict[str, object]) -> bool:
    def equal(one: object, other: object) -> bool:
        return one.equal(other) if isinstance(one, Tensor) else one == other

    return found.keys() == expected.keys() and all(
        equal(value, expected[name]) for name, value in found.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_job_goes_on_where_it_was_to_the_same_bytes(kind, tmp_path):
    """It makes no step again that was saved, wherever it died."""
    work, chance = KINDS[kind], Random(kind)
    expected = work(fresh(tmp_path / "plain"))
    with saving() as every:
        assert same(work(fresh(tmp_path / "saved")), expected)
    assert len(every) > 2, "too short to be killed"
    for saves in {1, len(every), *chance.sample(range(1, len(every)), min(3, len(every) - 1))}:
        for before in (False, True):
            folder = tmp_path / f"{saves}-{before}"
            with saving(saves, before), pytest.raises(Killed):
                work(fresh(folder))
            with saving() as rest:
                assert same(work(fresh(folder)), expected), (saves, before)
            assert len(rest) == len(every) - saves + before, (saves, before)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again_with_saves_at_random_it_has_the_same_bytes(kind, tmp_path):
    work = KINDS[kind]
    expected = work(fresh(tmp_path / "plain"))
    deaths = 0
    for seed in range(4):
        found, died = until_done(lambda s=seed: work(fresh(tmp_path / f"{s}")), Random(seed))
        assert same(found, expected)
        deaths += died
    assert deaths


@pytest.mark.parametrize("kind", ["infer", "g-vbsm", "rded", "podd", "sgd", "fkd", "whiten"])
def test_checkpoints_of_another_job_count_as_none(kind, tmp_path):
    work = KINDS[kind]
    with saving() as every:
        expected = work(fresh(tmp_path / "plain", "mine"))
    with saving(len(every) - 1), pytest.raises(Killed):
        work(fresh(tmp_path / "theirs", "theirs"))
    with saving() as again:
        assert same(work(fresh(tmp_path / "theirs", "mine")), expected)
    assert len(again) == len(every)


# --- the mechanism --------------------------------------------------------------------------------


def draws(stream: Generator, die: list[int], part: int) -> list[object]:
    """A result that follows from all that was drawn before; the process dies at some parts."""
    if die and part == die[0]:
        die.pop(0)
        raise Killed
    return [
        part,
        torch.rand(3, generator=stream),
        {"text": float(torch.rand((), generator=stream))},
    ]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.integers(1, 12),
    die=st.lists(st.integers(0, 11), max_size=5),
    due=st.integers(0, 2**32),
    fold=st.booleans(),
)
def test_a_loop_that_dies_at_any_step_ends_as_if_it_had_not(
    parts, die, due, fold, tmp_path_factory
):
    folder, chance, remaining = tmp_path_factory.mktemp("loop"), Random(due), list(die)

    def loop(die: list[int], resumable: bool) -> list:
        job, stream = job_in(folder), Generator().manual_seed(7)
        if not fold:
            if not resumable:
                return [draws(stream, die, part) for part in range(parts)]
            return gathered(
                job, "loop", range(parts), partial(draws, stream, die), streams=[stream]
            )

        def add(total: tuple[Tensor, int], part: int) -> tuple[Tensor, int]:
            _, drawn, _ = draws(stream, die, part)
            return total[0] * 0.7 + drawn, total[1] + part

        each = folding(job, "loop", streams=[stream]) if resumable else reduce
        return list(each(add, range(parts), (torch.zeros(3), 0)))

    expected = loop([], resumable=False)
    for _ in range(len(die) + 1):
        with saving(due=chance):
            try:
                found = loop(remaining, resumable=True)
                break
            except Killed:
                continue
    assert str(found) == str(expected) and len(found) == len(expected)


def test_a_save_holds_what_is_new_alone(tmp_path):
    """Results of a list are written once: the sum of the files does not grow with their number."""
    with saving() as saves:
        gathered(job_in(tmp_path), "list", range(5), lambda part: torch.full((1000,), float(part)))
    assert saves == [f"list-{n}.pt" for n in range(5)]
    sizes = [file.stat().st_size for file in (tmp_path / "scratch").iterdir()]
    assert len(sizes) == 5 and max(sizes) < 4000 + 2500


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path):
    whole = torch.arange(100_000.0)
    save_state({"view": whole[7:9], "nest": [(whole[:2],)]}, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 4000
    assert load_state(tmp_path / "state.pt")["view"].tolist() == [7, 8]


OTHERS = {
    "half a file": lambda state: b"PK\x03\x04half",
    "nothing": lambda state: b"",
    "a list": lambda state: [state],
    "nothing in it": lambda state: {},
    "of another device": lambda state: state | {"of": state["of"] | {"device": "cuda"}},
    "of another job": lambda state: state | {"of": state["of"] | {"key": "other"}},
    "of another loop": lambda state: state | {"of": state["of"] | {"loop": "other"}},
    "of a longer loop": lambda state: state | {"of": state["of"] | {"part": [None, 9]}},
    "of another part": lambda state: state | {"of": state["of"] | {"part": [1, 4]}},
    "without streams": lambda state: state | {"streams": []},
    "with short streams": lambda state: state | {"streams": [torch.zeros(3, dtype=torch.uint8)]},
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("fold", [False, True])
def test_what_is_no_checkpoint_of_this_loop_counts_as_none(fold, other, tmp_path):
    def loop(made: list[int]) -> list:
        job, stream = job_in(tmp_path), Generator().manual_seed(7)

        def make(part: int) -> Tensor:
            made.append(part)
            return torch.rand(2, generator=stream)

        if not fold:
            return gathered(job, "loop", range(4), make, streams=[stream])
        each = folding(job, "loop", streams=[stream])
        return list(each(lambda total, part: (total[0] + make(part),), range(4), (torch.zeros(2),)))

    file = tmp_path / "scratch" / ("loop.pt" if fold else "loop-0.pt")
    with saving():
        expected = loop([])
    read = load_state(file)
    loop(first := [])
    assert first == [], "it is used where it is one"
    content = OTHERS[other](read)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    again = loop(made := [])
    assert made[:1] == [0] and str(again) == str(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"results": []},
        {"results": None},
        {"results": [1.0] * 5},
        {"total": None, "results": "text"},
        {"total": [1], "results": {}},
        {"done": 5, "results": [1.0] * 5},
        {"done": 0, "results": []},
        {"done": "1", "results": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("fold", [False, True])
def test_results_that_are_none_are_made_again(fold, change, tmp_path):
    def loop(made: list[int]) -> object:
        if not fold:
            return gathered(job_in(tmp_path), "loop", range(4), lambda p: made.append(p) or 1.0)
        each = folding(job_in(tmp_path), "loop")
        return each(lambda total, p: made.append(p) or (total[0] + 1.0,), range(4), (0.0,))

    with saving():
        expected = loop([])
    name = "loop.pt" if fold else "loop-0.pt"
    state = load_state(tmp_path / "scratch" / name)
    change = {key: value for key, value in change.items() if key in state}
    if change:
        torch.save(state | change, tmp_path / "scratch" / name)
        assert loop(made := []) == expected
        assert made[:1] == [0]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    monkeypatch.delenv(checkpoint.ENVIRONMENT, raising=False)
    clock = Clock()
    monkeypatch.setattr(checkpoint, "time", clock)
    return clock


def loop_of(clock: Clock, pace: Pace, steps: int, step: float, save: float) -> list[float]:
    """When a loop saves whose steps and saves take so many seconds."""
    saves = []
    for _ in range(steps):
        clock.now += step
        if pace.due():
            with pace.saving():
                saves.append(clock.now)
                clock.now += save
    return saves


def test_a_cheap_save_comes_every_minute(clock):
    assert loop_of(clock, Pace(), 300, 1.0, 0.0) == [60.0, 120.0, 180.0, 240.0, 300.0]
    start = clock.now
    saves = loop_of(clock, Pace(), 3, 100.0, 1.0)
    assert [now - start for now in saves] == [100.0, 201.0, 302.0]


def test_a_dear_save_takes_its_share_of_the_time_and_no_more(clock):
    """At 30 s a save, a fortieth of the time allows one in 20 minutes, the first one apart."""
    saves = loop_of(clock, Pace(), 7200, 1.0, 30.0)
    assert saves[0] == 60
    assert all(30 * (count + 1) <= now / 40 for count, now in enumerate(saves) if count)
    assert len(saves) == int(7200 / 40 / 30), "the share is used"


def test_a_loop_that_ends_saves_what_took_a_second(clock, tmp_path, monkeypatch):
    def part(seconds: float) -> float:
        clock.now += seconds
        return seconds

    for seconds, saved in ((0.3, 0), (0.6, 1), (70.0, 2)):
        folder = tmp_path / str(seconds)
        gathered(job_in(folder), "list", [seconds] * 2, part)
        assert len(list((folder / "scratch").iterdir())) == saved
        folding(job_in(folder), "fold")(lambda total, s: (part(s),), [seconds] * 2, (0.0,))
        assert (folder / "scratch/fold.pt").is_file() == bool(saved)


def test_the_loops_within_a_loop_share_their_files(tmp_path):
    def row(x: int) -> list[int]:
        return gathered(job_in(tmp_path), "row", range(4 - x), lambda y: 10 * x + y, within=x)

    with saving() as saves:
        found = gathered(job_in(tmp_path), "rows", range(3), row)
    assert found == [[0, 1, 2, 3], [10, 11, 12], [20, 21]] and len(saves) == 9 + 3
    with saving() as again:
        assert row(2) == [20, 21] and not again
        assert row(1) == [10, 11, 12] and len(again) == 3


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_the_environment_sets_the_seconds_whatever_a_save_costs(text, seconds, clock, monkeypatch):
    monkeypatch.setenv(checkpoint.ENVIRONMENT, text)
    pace = Pace()
    for _ in range(3):
        assert not pace.due() or not seconds
        clock.now += seconds
        assert pace.due()
        with pace.saving():
            clock.now += 1e6


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan"])
def test_seconds_that_are_no_number_are_an_error(text, monkeypatch):
    monkeypatch.setenv(checkpoint.ENVIRONMENT, text)
    with pytest.raises(
        DistilleryError, match=rf"{checkpoint.ENVIRONMENT} = '{text}': is no number"
    ):
        Pace()


def test_loops_that_share_a_file_do_not_read_each_others_state(tmp_path):
    whole = Checkpoint(job_in(tmp_path), "steps")
    with saving():
        whole = Checkpoint(job_in(tmp_path), "steps")
        whole.of(3).offer(lambda: {"steps": 5})
    assert whole.of(3).load() == {"steps": 5}
    assert whole.of(4).load() is None and whole.load() is None
    whole.remove()
    whole.remove()
    assert whole.of(3).load() is None


# --- kill -9 --------------------------------------------------------------------------------------

PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from helpers.jobs import job_in
from helpers.methods import INFER, distil, two_teachers
from helpers.tiny import tiny_set
from safetensors.torch import save_file

folder, train = Path(sys.argv[1]), tiny_set()
job = job_in(folder)
recipe = {**INFER, "iterations": 150, "augment": ["roll:4"]}
save_file(distil(recipe, train, 5, job, two_teachers(train)).tensors, folder / "made.safetensors")
"""


def process(folder: Path, seconds: str | None) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != checkpoint.ENVIRONMENT}
    environment |= {checkpoint.ENVIRONMENT: seconds} if seconds else {}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-c", PROCESS, str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_kill_9_leaves_what_the_next_process_ends_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert process(whole, None).wait() == 0
    chance, deaths = Random(9), 0
    for _ in range(4):
        running = process(killed, "0")
        scratch, saves = killed / "scratch", chance.randint(20, 150)
        seen: set[int] = set()
        while running.poll() is None and len(seen) < saves:
            with suppress(FileNotFoundError):  # renamed under our eyes
                seen |= {file.stat().st_mtime_ns for file in scratch.glob("[!.]*.pt")}
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        deaths += running.wait() == -signal.SIGKILL
    assert deaths >= 2
    assert process(killed, "0").wait() == 0
    made = (folder / "made.safetensors" for folder in (whole, killed))
    assert next(made).read_bytes() == next(made).read_bytes()
