"""Estimates of what a plan would run: networks looked up or measured, and no estimate at all."""

import json
import subprocess
import sys

import pytest
import yaml

from distillery.nets.costs import CLASSES, count
from distillery.plan import network_costs
from distillery.plan.cost import BASE_MEMORY, Cost, Estimator
from distillery.plan.explain import summary
from distillery.plan.memory import JOB
from distillery.plan.network_costs import NetworkCosts
from distillery.plan.nodes import Node
from helpers.planning import planned
from helpers.project import ROOT

CONVNET = {"name": "convnet", "width": 4, "norm": "batch"}


@pytest.fixture
def unknown(project):
    """The tiny project, whose file of known costs does not name the convnet."""
    file = project / "workflow/costs.yaml"
    table = yaml.safe_load(file.read_text())
    del table["networks"]["convnet"]
    file.write_text(yaml.safe_dump(table))
    return project


@pytest.fixture
def programs(monkeypatch):
    """The processes that are started to measure, each as its arguments."""
    started, run = [], subprocess.run

    def recorded(command, **options):
        started.append(command[3:])
        return run(command, **options)

    monkeypatch.setattr(network_costs.subprocess, "run", recorded)
    return started


def test_counts_of_a_convnet_by_hand():
    # Width 2, depth 2, 8 x 8 grey images: convolutions of 3 x 3 with a bias each, batch norm,
    # ReLU and 2 x 2 pooling, then a linear layer on the 2 x 2 x 2 flattened.
    found = count({"name": "convnet", "width": 2, "norm": "batch"}, (1, 8, 8))
    convolutions = [(1, 2, 64), (2, 2, 16)]
    work = sum(9 * inputs * outputs * area for inputs, outputs, area in convolutions)
    assert found["multiply_adds"] == work + 8 * CLASSES
    weights = sum(9 * inputs * outputs + outputs for inputs, outputs, _ in convolutions)
    assert found["parameters"] == weights + 2 * 2 * 2 + 8 * CLASSES + CLASSES
    layers = [3 * outputs * area + outputs * area // 4 for _, outputs, area in convolutions]
    assert found["activations"] == sum(layers) + 8 + CLASSES
    # The widest layer takes 2 x 8 x 8 numbers and gives as many.
    assert found["widest"] == 2 * 2 * 64
    # A convolution keeps its input; so do the norm, which keeps two numbers a channel besides, and
    # the pooling; the ReLU keeps its output, the pooling's input. The 8 are the classifier's.
    inputs = [(inputs + 2 * outputs) * area for inputs, outputs, area in convolutions]
    assert sum(inputs) + 8 <= found["kept"] <= sum(inputs) + 8 + 2 * (2 + 2)


def test_the_file_of_known_costs_is_what_is_counted():
    known = yaml.safe_load((ROOT / "workflow/costs.yaml").read_text())["networks"]
    for name, shape in (("convnet", (3, 32, 32)), ("wrn16_2", (3, 32, 32))):
        counted = dict(count({"name": name}, shape))
        assert {key: known[name][32][key] for key in counted} == counted


def test_a_known_network_is_scaled_by_area_and_width(project, programs):
    costs = NetworkCosts(project)
    at_32 = costs.of({"name": "convnet", "width": 128}, (3, 32, 32))
    assert at_32 == (50929664, 4 * 390912, 4 * 262144, 504420)
    half = costs.of({"name": "convnet", "width": 64}, (3, 16, 16))
    assert half == (50929664 / 16, 4 * 390912 / 8, 4 * 262144 / 8, 504420 / 4)
    assert costs.of({"name": "convnet", "width": 128}, (3, 60, 60)).parameters == 652260
    assert programs == []


def test_an_unknown_network_is_measured_once(unknown, programs):
    counted = count(CONVNET, (1, 8, 8))
    held = 4 * counted["kept"], 4 * counted["widest"]
    expected = (counted["multiply_adds"], *held, counted["parameters"])
    costs = NetworkCosts(unknown)
    assert costs.of(CONVNET, (1, 8, 8)) == costs.of(CONVNET, (1, 8, 8)) == expected
    assert programs == [["distillery.nets.costs", json.dumps(CONVNET), "[1, 8, 8]"][1:]]
    assert NetworkCosts(unknown).of(CONVNET, (1, 8, 8)) == expected  # by another plan
    assert len(programs) == 1
    assert NetworkCosts(unknown).of(CONVNET, (1, 16, 16)).work > expected[0]
    assert len(programs) == 2
    (written,) = {path.parent for path in unknown.rglob("*.json")}
    assert written == unknown / "results/scratch/network_costs"


@pytest.mark.parametrize("network", [{"name": "timm:no-such-network"}, {"name": "nothing"}])
def test_a_network_that_cannot_be_built_has_no_cost(project, network):
    assert NetworkCosts(project).of(network, (3, 32, 32)) is None
    assert not (project / "results/scratch").exists()


def test_a_measurement_that_was_cut_off_is_made_again(unknown, programs):
    found = NetworkCosts(unknown).of(CONVNET, (1, 8, 8))
    (file,) = (unknown / "results/scratch/network_costs").glob("*.json")
    file.write_text('{"multiply')
    assert NetworkCosts(unknown).of(CONVNET, (1, 8, 8)) == found
    assert len(programs) == 2


def test_no_estimate_without_the_cost_of_a_network(unknown, monkeypatch):
    monkeypatch.setattr(network_costs, "_measure", lambda network, shape: None)
    plan = planned(unknown)
    estimator, missing = Estimator(plan.settings, plan.store), plan.missing(["table2"])
    stages = [node.spec.stage for node in missing if estimator.cost(node) is None]
    # Random images take no network; everything else is trained, distilled or labelled with one.
    assert [node.spec.label for node in missing if estimator.cost(node)] == [
        *("digits", "digits-random-ipc5-d0")
    ]
    assert "8 without an estimate" in summary(missing, estimator, "tiny") and len(stages) == 8


def test_a_method_that_does_not_say_its_work_has_no_estimate(project, edit):
    edit(project / "workflow/scales/tiny.yaml", "random: {}", "herding: {teachers: [net-a]}")
    edit(project / "workflow/tables/infer/table2.yaml", "method: random", "method: herding")
    plan = planned(project)
    estimator, missing = Estimator(plan.settings, plan.store), plan.missing(["table2"])
    unestimated = [node.spec.label for node in missing if estimator.cost(node) is None]
    assert unestimated == ["digits-herding-ipc5-d0"]
    assert "1 without an estimate" in summary(missing, estimator, "tiny")


def test_the_work_of_a_teacher(project):
    plan = planned(project)
    estimator = Estimator(plan.settings, plan.store)
    estimator.rate = 1e6
    (node,) = (n for n in plan.missing(["table2"]) if n.spec.label == "digits-net-a")
    network = estimator.networks.of(CONVNET, (1, 8, 8))
    passes = 3 * 1437 * 2 + 360  # forward and backward in two epochs, and one test
    assert estimator.cost(node) == Cost(
        seconds=pytest.approx(4 + network.work * passes / 1e6),
        memory=BASE_MEMORY + JOB,
        resident=64 * (1437 + 360),
        # Testing 360 images at a time takes more than training 64.
        device=4 * 4 * network.parameters + 360 * (2 * network.widest + 2 * 4 * 64),
        bytes=4 * network.parameters,
    )


def test_a_total_adds_time_and_bytes_and_takes_the_largest_job(project, monkeypatch):
    plan = planned(project)
    estimator = Estimator(plan.settings, plan.store)
    costs = iter([Cost(1, 20, 3, 7, 4), None, Cost(10, 2, 30, 5, 40)])
    monkeypatch.setattr(Estimator, "cost", lambda self, node: next(costs))
    nodes: list[Node] = plan.missing(["table2"])[:3]
    assert estimator.total(nodes) == (Cost(11, 20, 30, 7, 44), 1)


def test_measuring_imports_no_torch_in_the_planner(unknown):
    script = (
        "import sys; from distillery.cli import main; main(['plan', 'table2']);"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=unknown,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(unknown / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert "without an estimate" not in done.stdout
    assert list((unknown / "results/scratch/network_costs").iterdir())


@pytest.mark.parametrize(
    ("published", "bytes_of_originals"), [(None, 64 * 1797), (9_000_000, 9_000_000)]
)
def test_originals_that_are_kept_are_stored_besides(published, bytes_of_originals, project):
    digits = {"size": 8, "expected": {"original_bytes": published}}

    def stored(**more):
        plan = planned(project, datasets={"digits": digits | more})
        (node,) = (n for n in plan.missing(["table2"]) if n.spec.stage == "data")
        return Estimator(plan.settings, plan.store).cost(node).bytes

    assert stored(originals="keep") - stored() == pytest.approx(bytes_of_originals)
