"""Rough cost of an artefact before it is made; never enters a result or an identity.

Work is counted as multiply-adds of the networks (`network_costs`) times images times passes, and
divided by a throughput. Expect a factor of two; the order of magnitude is what a user plans with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillery.plan.checks import instances
from distillery.plan.models import Expected
from distillery.plan.network_costs import NetworkCost, NetworkCosts
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings
from distillery.plan.types import recipe_object
from distillery.store.artefact import META, read_meta
from distillery.store.spec import folder
from distillery.training.recipe import batch_size

START_UP_S = 4.0  # importing torch
# Images whose activations a differentiated step, or a part of the real batch, holds at once.
UNROLLED = 512
BASE_MEMORY = 700 << 20  # a process with torch loaded


@dataclass(frozen=True)
class Cost:
    """What a job takes.

    Attributes:
        seconds: from its start to its end.
        memory: of the host, bytes at the peak.
        activations: on the device that computes, bytes at the peak.
        bytes: stored.
    """

    seconds: float
    memory: float
    activations: float
    bytes: float


def duration(seconds: float) -> str:
    """Seconds as a short text: 40 s, 12 min, 3.5 h, 9 d."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def volume(size: float) -> str:
    """Bytes as a short text."""
    for limit, unit, factor in ((1e6, "kB", 1e3), (1e9, "MB", 1e6), (1e12, "GB", 1e9)):
        if size < limit:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e12:.3g} TB"


class UnknownCostError(Exception):
    """A network could not be measured."""


class Estimator:
    """Estimates nodes with what the scale expects of a data set, or that its artefact states.

    Attributes:
        rate: multiply-adds per second.
    """

    def __init__(self, settings: Settings, store: Path) -> None:
        """Read the known costs of the project's networks."""
        self.settings, self.store = settings, store
        self.networks = NetworkCosts(settings.root)
        rates = self.networks.rates
        self.rate = rates.get(settings.params.scale, rates["demo"])
        self._costs: dict[Node, Cost | None] = {}

    def cost(self, node: Node) -> Cost | None:
        """Cost of one artefact.

        Returns:
            None when nothing is known of its data set yet, its method does not say its work, or a
            network cannot be measured.
        """
        if node not in self._costs:
            self._costs[node] = self._cost(node)
        return self._costs[node]

    def _cost(self, node: Node) -> Cost | None:
        expected = self.settings.dataset(node.dataset).expected or self._stated(node)
        if not expected:
            return None
        try:
            found: Cost | None = getattr(self, f"_{node.spec.stage}")(node, expected)
        except UnknownCostError:
            return None
        return found

    def _stated(self, node: Node) -> Expected | None:
        while node.spec.stage != "data":
            node = node.find_input("data") or node.input("distilled")
        path = folder(self.store, node.address)
        if not (path / META).is_file():
            return None
        stated = read_meta(path)["metadata"]
        return Expected(classes=len(stated["classes"]), shape=stated["shape"], **stated["counts"])

    def total(self, nodes: Iterable[Node]) -> tuple[Cost, int]:
        """The cost of all nodes together, and how many of them have no estimate.

        Seconds and bytes are sums, memory and activations those of the largest job.
        """
        costs = [self.cost(node) for node in nodes]
        known = [cost for cost in costs if cost]
        together = Cost(
            seconds=sum(cost.seconds for cost in known),
            memory=max((cost.memory for cost in known), default=0),
            activations=max((cost.activations for cost in known), default=0),
            bytes=sum(cost.bytes for cost in known),
        )
        return together, len(costs) - len(known)

    def _network(self, network: Mapping[str, Any], expected: Expected) -> NetworkCost:
        found = self.networks.of(network, tuple(expected.shape))
        if found is None:
            raise UnknownCostError
        return found

    def _teachers(self, node: Node, expected: Expected) -> list[NetworkCost]:
        teachers = node.inputs_of("teachers")
        return [self._network(teacher.spec.recipe["network"], expected) for teacher in teachers]

    def _run(
        self, work: float, activations: float, batch: float, extra: float, stored: float
    ) -> Cost:
        """Of multiply-adds, activation bytes of an image, images at once, host and stored bytes."""
        seconds = START_UP_S + work / self.rate
        return Cost(seconds, BASE_MEMORY + extra, 2 * activations * batch, stored)

    def _data(self, node: Node, expected: Expected) -> Cost:
        raw = _pixels(expected) * (expected.train + expected.test)
        kept = node.spec.recipe.get("originals") is not None
        originals = (expected.original_bytes or raw) if kept else 0
        return Cost(START_UP_S + raw / 2e7, BASE_MEMORY, 0, raw * 0.6 + originals)

    def _teacher(self, node: Node, expected: Expected) -> Cost:
        recipe = node.spec.recipe
        network = self._network(recipe["network"], expected)
        training = recipe["training"] or {"epochs": 0, "batch": 256}
        batch = batch_size(expected.train, training["batch"], training.get("batch_up_to"))
        work = network.work * (3 * expected.train * training["epochs"] + expected.test)
        return self._run(
            work, network.activations, batch, _resident(expected), 4 * network.parameters
        )

    def _whiten(self, node: Node, expected: Expected) -> Cost:
        size = _pixels(expected)
        # Covariance and eigenvectors, in float64.
        work = 2 * (expected.train * size**2 + 10 * size**3)
        return self._run(work, 0, 0, _resident(expected) + 5 * 8 * size**2, 4 * size**2)

    def _embed(self, node: Node, expected: Expected) -> Cost:
        teachers = self._teachers(node, expected)
        work = expected.train * _work(teachers)
        stored = 4 * expected.classes**2
        return self._run(work, _activations(teachers), 256, _resident(expected), stored)

    def _distill(self, node: Node, expected: Expected) -> Cost | None:
        recipe, ipc = node.spec.recipe["method"], node.spec.recipe["ipc"]
        method = recipe_object("method", recipe)
        if not hasattr(method, "work"):  # depends on the number of training images
            return None
        passes = method.work(ipc, expected.classes)
        if "network" in recipe:
            return self._unrolled(recipe, ipc, passes, expected)
        teachers = self._teachers(node, expected)
        at_once = recipe.get("micro_batch") or recipe.get("batch") or expected.classes
        return self._run(
            passes * _work(teachers),
            _activations(teachers),
            min(expected.classes, at_once),
            _resident(expected),
            expected.classes * ipc * _pixels(expected),
        )

    def _unrolled(
        self, recipe: Mapping[str, Any], ipc: float, passes: float, expected: Expected
    ) -> Cost:
        """Of a method that trains its own network."""
        network = self._network(recipe["network"], expected)
        whitened = 4 * _pixels(expected) * expected.train + 8 * _pixels(expected) ** 2
        states = 12 * network.parameters * recipe.get("window", 0)
        stored = 4 * expected.classes * (ipc * _pixels(expected) + expected.classes)
        work = passes * network.work
        return self._run(work, network.activations, UNROLLED, whitened + states, stored)

    def _label(self, node: Node, expected: Expected) -> Cost:
        teachers = self._teachers(node, expected)
        labelled = _instances(node, expected) * node.spec.recipe.get("epochs", 1)
        work, stored = labelled * _work(teachers), labelled * expected.classes * 2
        return self._run(work, _activations(teachers), 64, 0, stored)

    def _analyse(self, node: Node, expected: Expected) -> Cost:
        # Passes of one network over the test images; a loss surface takes one for each point.
        recipe, student = node.spec.recipe["analysis"], node.spec.recipe.get("student")
        if "training" in node.spec.recipe:  # one that trains students itself
            whole = self._evaluate(node, expected)
            return replace(whole, seconds=whole.seconds * _trainings(node), bytes=1e6)
        networks = self._teachers(node, expected)
        networks += [self._network(student, expected)] if student else []
        passes = recipe.get("points", 1) ** 2 * recipe.get("images", expected.test)
        work = passes * _work(networks)
        return self._run(work, _activations(networks), 256, _resident(expected), 1e6)

    def _evaluate(self, node: Node, expected: Expected) -> Cost:
        recipe, count = node.spec.recipe, _instances(node, expected)
        training, student = recipe["training"], self._network(recipe["student"], expected)
        labelling = _work(self._teachers(node, expected))
        tests = 1 + training["epochs"] // training["test_every"]
        batch = batch_size(round(count), training["batch"], training.get("batch_up_to"))
        batch = min(batch, training.get("micro_batch") or batch)
        work = count * training["epochs"] * (3 * student.work + labelling)
        work += tests * expected.test * student.work
        held = min(count * _pixels(expected) * 4, _resident(expected) * 2)
        share = 0.5 if training["precision"] == "bf16" else 1
        return self._run(work, student.activations * share, batch, held, 4 * student.parameters)


def _pixels(expected: Expected) -> int:
    channels, height, width = expected.shape
    return channels * height * width


def _resident(expected: Expected) -> float:
    """Bytes of the training images that are held, uint8."""
    return min(_pixels(expected) * expected.train, 2 << 30)


def _work(networks: Iterable[NetworkCost]) -> float:
    return sum(network.work for network in networks)


def _activations(networks: Iterable[NetworkCost]) -> float:
    return max((network.activations for network in networks), default=0.0)


def _instances(node: Node, expected: Expected) -> float:
    recipe = node.input("distilled").spec.recipe
    return instances(recipe["method"], recipe["ipc"], expected.classes)


def _trainings(node: Node) -> float:
    """Trainings on the whole set that an analysis amounts to.

    One for each of the set's states that are kept on the way or, of continual learning, for each
    growing share of the set, tested on a growing share.
    """
    if "steps" in node.spec.recipe["analysis"]:
        return float((node.spec.recipe["analysis"]["steps"] + 1) / 2)
    return float(node.input("distilled").spec.recipe["method"].get("snapshots", 1))
