"""benchmarks/gpu: it runs with few packages, goes on where it was, and compares like with like."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample, one_hot

from distillery.components import registry
from distillery.methods import infer
from distillery.nets.network import build_network
from distillery.unroll.network import FlatNetwork
from distillery.unroll.optimizers import Adam
from distillery.unroll.window import InnerTraining, batched_loss, meta_gradients
from helpers.jobs import quiet_job_in
from helpers.project import ROOT
from helpers.tiny import tiny_set, tiny_teacher

FOLDER = ROOT / "benchmarks/gpu"
sys.path.append(str(FOLDER))

import cells  # noqa: E402
import check  # noqa: E402
import page  # noqa: E402
import plain  # noqa: E402
import run  # noqa: E402
from record import Records, Step, chosen, may_match  # noqa: E402

# What the README says that it needs.
NAMED = "torch torchvision numpy scipy pyarrow pillow safetensors scikit-learn filelock tqdm"
NAMED += " pydantic pyyaml"
OWN = "distillery record check measure cells plain"
BLOCK = '''
import sys
ALLOWED = {*sys.stdlib_module_names, *%r}
class Few:
    """Finds those modules only: for all others, it is as if nothing were installed."""

    finders = sys.meta_path[:]

    def find_spec(self, name, path=None, target=None):
        if path is None and name not in ALLOWED and not name.startswith("_"):
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec), None)

    def find_distributions(self, *context):
        from importlib.metadata import MetadataPathFinder
        return MetadataPathFinder.find_distributions(*context)

sys.meta_path[:] = [Few()]
'''


def modules_of(named: list[str]) -> set[str]:
    """The top-level modules of distributions, and of all that these need."""
    modules: dict[str, set[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for name in distributions:
            modules.setdefault(plain_name(name), set()).add(module)
    found, left = set(), [plain_name(name) for name in named]
    while left:
        name = left.pop()
        if name in modules and name not in found:
            found.add(name)
            needed = metadata.requires(name) or []
            left += [plain_name(line) for line in needed if "extra ==" not in line]
    return set().union(*(modules[name] for name in found))


def plain_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


@pytest.fixture
def few_packages(tmp_path):
    """The environment of a Python that finds those packages only, and no installed project."""
    allowed = sorted(modules_of(NAMED.split())) + OWN.split()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(BLOCK % allowed)
    return os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}


def options(out: Path, **changes) -> Namespace:
    known = {"out": out, "tiny": True, "device": "cpu", "threads": 1, "only": [], "list": False}
    known |= {"data": None, "vectors": None, "podd_steps": None, "podd_minutes": 4.0, "set": []}
    return Namespace(**known | {"teacher_epochs": 20, "until": float("inf")} | changes)


# --- a run ----------------------------------------------------------------------------------------


def test_parts_of_a_tiny_run_with_the_packages_of_such_a_machine(tmp_path, few_packages):
    command = [sys.executable, "-c", "import pandas"]
    blocked = subprocess.run(command, env=few_packages, capture_output=True, text=True)
    assert "No module named 'pandas'" in blocked.stderr
    steps = ["check/set random", "check/network convnet", "measure/labels, convnet8"]
    steps += ["cells/data*", "cells/*/digits-random-*"]
    command = [sys.executable, FOLDER / "run.py", "--out", tmp_path / "out", "--tiny"]
    command += ["--device", "cpu", "--threads", "1"]
    for step in steps:
        command += ["--only", step]
    done = subprocess.run(command, env=few_packages, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "out/report"
    checked = [json.loads(line) for line in (report / "check.jsonl").read_text().splitlines()]
    assert {row["step"] for row in checked} == {"set random", "network convnet"}
    assert all(row["ok"] and row["relative_error"] < 1e-5 for row in checked)
    with (report / "measure.csv").open(newline="") as file:
        sides = [row["side"] for row in csv.DictReader(file)]
    assert sides == ["plain loop", "project"]
    with (report / "printed.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["row"], row["printed"], row["steps"]) == ("Random", "31.0", "4")
    assert 0 < float(row["measured"]) < 100 and "another data set" in row["differs"]
    text = page.page(report)
    assert "| infer/table1 | Random | 5 | convnet-w16 |  | 31.0 ± 0.5 |" in text
    assert "2 of 2 results agree" in text


def test_without_a_gpu_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main() == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no CUDA device" in said.err
    assert not (tmp_path / "out").exists()


# --- going on -------------------------------------------------------------------------------------


@pytest.fixture
def part(monkeypatch):
    """Put steps in place of a part's; returns the list of those that ran."""
    ran: list[str] = []

    def put(*steps: Step) -> list[str]:
        module = ModuleType("check")
        module.steps = lambda options: list(steps)
        monkeypatch.setitem(sys.modules, "check", module)
        return ran

    put.step = lambda name, rows=(), error=None, **kind: Step(
        name, lambda: _do(ran, name, rows, error), **kind
    )
    return put


def _do(ran, name, rows, error):
    ran.append(name)
    if error:
        raise error
    return list(rows)


def test_steps_that_are_done_are_not_done_again_and_a_failure_stops_no_other(tmp_path, part):
    steps = part.step("a", [{"x": 1}]), part.step("b", error=ValueError("no\nmore"))
    ran = part(*steps, part.step("c", [{"y": 2}, {"y": 3}]))
    asked = options(tmp_path, worker="check")
    assert run._work(asked) == 1 and ran == ["a", "b", "c"]
    assert run._work(asked) == 1 and ran == ["a", "b", "c"]
    records = Records(tmp_path, "check")
    found = [{k: v for k, v in row.items() if k != "step_seconds"} for row in records.rows()]
    assert found == [
        {"step": "a", "x": 1},
        {"step": "b", "error": "ValueError: no"},
        {"step": "c", "y": 2},
        {"step": "c", "y": 3},
    ]
    records.report()
    assert (tmp_path / "report/check.csv").read_text().startswith("step,step_seconds,x,error,y\n")
    records.retry_failed()
    run._work(asked)
    assert ran == ["a", "b", "c", "b"]


def test_a_step_that_no_process_finishes_is_given_up_unless_it_resumes(tmp_path, part):
    ran = part(part.step("ends its process"), part.step("goes on", resumes=True))
    records = Records(tmp_path, "check")
    for _ in range(run.TRIES):
        records.begin("ends its process")
        records.begin("goes on")
    assert run._work(options(tmp_path, worker="check")) == 1
    assert ran == ["goes on"]
    assert "was not finished" in records.rows()[0]["error"]


def test_a_broken_device_ends_the_process_and_the_end_of_the_time_the_part(tmp_path, part):
    steps = part.step("a", error=RuntimeError("CUDA error: misaligned address")), part.step("b")
    ran = part(*steps)
    assert run._work(options(tmp_path, worker="check")) == run.POISONED and ran == ["a"]
    assert run._work(options(tmp_path, worker="check", until=0.0)) == run.STOPPED and ran == ["a"]


def test_patterns_choose_steps_and_the_parts_that_have_them():
    assert chosen("check/set infer", []) and chosen("check/set infer", ["x", "check/set *"])
    assert not chosen("check/set infer", ["cells/*"])
    assert may_match("cells", ["c*/set"]) and not may_match("measure", ["check/*", "cells/*"])


# --- check ----------------------------------------------------------------------------------------


def test_every_name_of_the_registry_is_checked(tmp_path):
    names = {step.name for step in check.steps(options(tmp_path))}
    kinds = {"method": "set {}", "label": "student, labels {}", "loss": "student, loss {}"}
    kinds |= {"refinement": "student, refinement {}", "mixing": "student, mixing {}"}
    kinds |= {"optimizer": "student, optimizer {}", "network": "network {}"}
    for kind, form in kinds.items():
        for name in registry.index(kind):
            # Two rows may ask for one student; it then has the name of the first.
            same = (kind, name) in {("label", "hard"), ("loss", "kl"), ("mixing", "none")}
            assert "*" in name or same or form.format(name) in names, (kind, name)
    assert {"whiten digits-zca", "embed digits-classes"} <= names
    assert sum(name.startswith("teacher") for name in names) == 4


def test_a_relative_error_is_euclidean_and_sees_what_is_not_finite():
    expected = torch.tensor([3.0, 4.0])
    assert check.relative_error(expected, torch.tensor([3.0, 4.5])) == pytest.approx(0.1)
    assert check.relative_error(expected, torch.tensor([3.0, torch.nan])) == float("inf")
    assert check.relative_error(expected, torch.tensor([3.0, torch.inf])) == float("inf")


# --- plain loops: the mathematics of the project --------------------------------------------------


def test_the_plain_compensator_is_the_projects(tmp_path):
    train = tiny_set()
    teacher, recipe = tiny_teacher(train), infer.Recipe(("net-0",), iterations=5, augment=())
    job = quiet_job_in(tmp_path)
    natural = train.images[torch.stack([train.of_class(c)[:1] for c in range(4)], 1)]
    with job.progress(5, "") as bar:
        expected = infer.compensators(natural, 0, teacher, train, recipe, job, bar)
    images = (natural[0].float() / 255 - 0.5) / 0.25
    found = plain.compensator(teacher.model, images, torch.arange(4), 5, False, most=0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_plain_meta_step_is_the_projects(monkeypatch):
    monkeypatch.setattr(plain, "flip_or_rotate", lambda images: images)
    recipe, stream = {"name": "convnet", "width": 4, "norm": "instance"}, torch.Generator()
    module = build_network(recipe, (1, 8, 8), 3).double()
    images, real = (
        torch.randn(n, 1, 8, 8, dtype=torch.float64, generator=stream.manual_seed(n))
        for n in (6, 20)
    )
    labels, classes = one_hot(torch.arange(6) % 3).double(), torch.arange(20) % 3
    network, adam = FlatNetwork(module), Adam()
    inner = InnerTraining(
        network=network, optimizer=adam, batch=lambda step: (torch.arange(6), lambda x: x)
    )
    theta = network.initial(5)
    expected = meta_gradients(
        inner,
        theta,
        adam.start(theta),
        images,
        labels,
        range(4),
        batched_loss(network, real, classes, 500),
    ).images
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found = plain.meta_step(module, images, labels, (real, classes), 0, 4)
    # The plain loop lets Adam move the biases that the norm cancels.
    assert check.relative_error(expected, found) < 1e-4


def test_plain_augmentations_sample_as_torch_does():
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(5, 2, 8, 8, generator=stream)
    theta = torch.eye(2, 3) + 0.3 * torch.randn(5, 2, 3, generator=stream)
    grid = affine_grid(theta, [5, 2, 8, 8], align_corners=False)
    expected = grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(plain._sampled(images, grid), expected, rtol=1e-4, atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cropped = plain.crop_and_flip(images, pad=1)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    for image, found in zip(padded, cropped, strict=True):
        sides = [
            side[:, t : t + 8, l : l + 8]
            for t in range(3)
            for l in range(3)  # noqa: E741
            for side in (image, image.flip(2))
        ]
        assert any(torch.equal(found, side) for side in sides)


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "rounded"), [(734.9, 700), (99, 90), (9.9, 9), (0.4, 0)])
def test_meta_steps_are_rounded_down_to_one_digit(number, rounded):
    assert cells.round_down(number) == rounded


def test_meta_steps_fit_their_minutes_and_are_fixed_when_they_are_known(tmp_path):
    asked = options(tmp_path, podd_minutes=2.0)
    assert cells.meta_steps(options(tmp_path, list=True)) == cells.DEFAULT_STEPS
    records = Records(tmp_path, "measure")
    row = {"what": "podd, 96 images", "side": "project", "seconds": 0.31}
    records.write("meta-step, podd", 1.0, [row | {"side": "plain loop", "seconds": 9.0}, row])
    assert cells.meta_steps(asked) == 300  # of 387
    records.write("meta-step, podd", 1.0, [row | {"seconds": 0.1}])
    assert cells.meta_steps(asked) == 300
    assert cells.meta_steps(options(tmp_path, podd_steps=70)) == 70


def test_the_papers_cells_differ_from_the_papers_in_what_is_stated_only(tmp_path):
    data = tmp_path / "cifar10"
    data.mkdir()
    table = pa.table({"image": [b"never read"], "label": pa.array([0], pa.int16())})
    for split in ("train", "test"):
        pq.write_table(table, data / f"{split}.parquet")
    asked = options(tmp_path / "out", tiny=False, data=data, podd_steps=300)
    plan = cells._plan(asked)
    found = {(c.row.row, c.ipc): c for name in (cells.INFER, cells.PODD) for c in plan.cells(name)}
    printed = {key: cell.published.mean for key, cell in found.items()}
    assert printed == {
        ("Random", 10): 29.6,
        ("INFER", 10): 32.0,
        ("INFER+Dyn", 10): 30.7,
        ("PoDD", 1): 59.1,
        ("PoDD", 0.3): 42.3,
    }
    assert "parallel_groups = 10" in found["INFER", 10].reason
    assert "meta_steps = 300" in found["PoDD", 1].reason
    infer_recipe = found["INFER", 10].distilled[0].spec.recipe["method"]
    assert (infer_recipe["iterations"], infer_recipe["alpha"]) == (1000, 1.0)
    student = found["INFER", 10].students[0].spec.recipe["training"]
    assert (student["epochs"], student["batch"]) == (400, 64)
    podd = found["PoDD", 0.3].distilled[0].spec.recipe["method"]
    assert (podd["meta_steps"], podd["window"], podd["labels"]) == (300, 60, "learned")
    teachers = [n for n in plan.nodes.values() if n.spec.stage == "teacher"]
    assert {n.spec.recipe["training"]["epochs"] for n in teachers} == {20}
    changed = cells._plan(options(**vars(asked) | {"set": ["distill.infer.iterations=7"]}))
    cell = next(c for c in changed.cells(cells.INFER) if c.row.row == "INFER")
    assert cell.distilled[0].spec.recipe["method"]["iterations"] == 7
