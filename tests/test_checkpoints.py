"""Killed anywhere, a job goes on to the bytes of one that was not: each loop, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from distillery.analyses.inputs import AnalysisInputs
from distillery.components import registry
from distillery.embeddings import features
from distillery.labels import fkd, static
from distillery.losses.target import Target
from distillery.methods.shared import meta_learning, snapshots
from distillery.stages import whiten
from distillery.store import checkpoint
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


def loops(files: list[str]) -> list[str]:
    """The states of loops among saved files; a snapshot is written again with a lost one."""
    return [file for file in files if not file.startswith("snapshot-")]


def unrolled(name: str, job: Job) -> dict[str, Tensor]:
    method, recipe, ipc = METHODS[name]
    recipe = recipe.__class__(**vars(recipe) | {"snapshots": 2})
    made = method.distill(classes(), recipe, ipc=ipc, teachers=[], job=job)
    kept = load_file(job.out / snapshots.SNAPSHOTS)
    history = torch.tensor(list((job.out / meta_learning.HISTORY).read_bytes()))
    return made.tensors | kept | {"history": history}


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
    made = run_in(job.out.parent, f"{kind}:{root}", size=6, originals="keep")
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
            assert len(loops(rest)) == len(loops(every[saves - before :])), (saves, before)


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
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
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
