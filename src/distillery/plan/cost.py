"""Rough cost of an artefact before it is made: seconds, memory, bytes. Never enters a result or an identity.

Work is counted as multiply-adds of the networks (workflow/costs.yaml, counted by benchmarks/network_costs.py) times images
times passes, and divided by a throughput. Expect a factor of two; the order of magnitude is what a user plans with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from distillery.plan.checks import instances
from distillery.plan.models import Expected
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings, read_yaml
from distillery.plan.types import recipe_object
from distillery.store.artefact import META, read_meta
from distillery.store.spec import folder
from distillery.training.recipe import batch_size

START_UP_S = 4.0  # importing torch
UNROLLED = 512  # images whose activations a differentiated step, or a part of the real batch, holds at once
BASE_MEMORY = 700 << 20  # a process with torch loaded


@dataclass(frozen=True)
class Cost:
    """Seconds, host memory and activations (on the device that computes) in bytes at their peak, bytes stored."""

    seconds: float
    memory: float
    activations: float
    bytes: float


class Estimator:
    """Estimates nodes with what the scale expects of a data set, or that its artefact states."""

    def __init__(self, settings: Settings, store: Path):
        self.settings, self.store = settings, store
        self.table = read_yaml(Path(settings.root) / "workflow/costs.yaml")
        throughput = self.table["multiply_adds_per_second"]
        self.rate = throughput.get(settings.params.scale, throughput["demo"])

    def cost(self, node: Node) -> Cost | None:
        """Cost of one artefact; None when nothing is known about its data set yet."""
        expected = self.settings.dataset(node.dataset).expected or self._stated(node)
        return getattr(self, f"_{node.spec.stage}")(node, expected) if expected else None

    def _stated(self, node: Node) -> Expected | None:
        while node.spec.stage != "data":
            node = node.inputs["data" if "data" in node.inputs else "distilled"]
        path = folder(self.store, node.address)
        if not (path / META).is_file():
            return None
        expected = read_meta(path)["metadata"]
        return Expected(
            classes=len(expected["classes"]), shape=expected["shape"], **expected["counts"]
        )

    def total(self, nodes: Iterable[Node]) -> tuple[Cost, int]:
        """Sum of seconds and bytes, the largest memory, and how many nodes could not be estimated."""
        costs = [self.cost(node) for node in nodes]
        known = [c for c in costs if c]
        peaks = (
            max((getattr(c, part) for c in known), default=0) for part in ("memory", "activations")
        )
        return Cost(sum(c.seconds for c in known), *peaks, sum(c.bytes for c in known)), len(
            costs
        ) - len(known)

    def _network(self, network: dict, expected: Expected) -> tuple[float, float, float]:
        """Multiply-adds and activation bytes of one image's forward pass, and parameters; of an unknown network ResNet-18's."""
        known = self.table["networks"]
        entry = known.get(network["name"], known["resnet18"])
        size = expected.shape[1]
        nearest = min(entry, key=lambda s: abs(int(s) - size))
        area, width = (
            (size / int(nearest)) ** 2,
            network.get("width", entry[nearest].get("width", 1)),
        )
        ratio = width / entry[nearest].get("width", 1)
        row = entry[nearest]
        return (
            row["multiply_adds"] * area * ratio**2,
            row["activations"] * 4 * area * ratio,
            row["parameters"] * ratio**2,
        )

    def _run(
        self, work: float, activations: float, batch: float, extra: float, stored: float
    ) -> Cost:
        return Cost(
            START_UP_S + work / self.rate, BASE_MEMORY + extra, 2 * activations * batch, stored
        )

    def _pixels(self, expected: Expected) -> int:
        return expected.shape[0] * expected.shape[1] * expected.shape[2]

    def _data(self, node: Node, expected: Expected) -> Cost:
        raw = self._pixels(expected) * (expected.train + expected.test)
        return Cost(START_UP_S + raw / 2e7, BASE_MEMORY, 0, raw * 0.6)

    def _resident(self, expected: Expected) -> float:
        return min(self._pixels(expected) * expected.train, 2 << 30)

    def _teacher(self, node: Node, expected: Expected) -> Cost:
        recipe = node.spec.recipe
        work, activations, parameters = self._network(recipe["network"], expected)
        training = recipe["training"] or {"epochs": 0, "batch": 256}
        batch = batch_size(expected.train, training["batch"], training.get("batch_up_to"))
        passes = 3 * expected.train * training["epochs"] + expected.test
        return self._run(
            work * passes, activations, batch, self._resident(expected), 4 * parameters
        )

    def _teachers(self, node: Node, expected: Expected) -> list[tuple[float, float, float]]:
        return [
            self._network(n.spec.recipe["network"], expected)
            for n in node.inputs.get("teachers", [])
        ]

    def _whiten(self, node: Node, expected: Expected) -> Cost:
        size = self._pixels(expected)
        work = 2 * (
            expected.train * size**2 + 10 * size**3
        )  # covariance and eigenvectors, in float64
        return self._run(work, 0, 0, self._resident(expected) + 5 * 8 * size**2, 4 * size**2)

    def _embed(self, node: Node, expected: Expected) -> Cost:
        nets = self._teachers(node, expected)
        work, activations = (
            expected.train * sum(w for w, _, _ in nets),
            max((a for _, a, _ in nets), default=0),
        )
        return self._run(work, activations, 256, self._resident(expected), 4 * expected.classes**2)

    def _unrolled(self, node: Node, expected: Expected) -> Cost:
        """Of a method that trains its own network."""
        recipe, ipc = node.spec.recipe["method"], node.spec.recipe["ipc"]
        method, (work, activations, parameters) = (
            recipe_object("method", recipe),
            self._network(recipe["network"], expected),
        )
        whitened = 4 * self._pixels(expected) * expected.train + 8 * self._pixels(expected) ** 2
        states = 12 * parameters * recipe.get("window", 0)
        stored = 4 * expected.classes * (ipc * self._pixels(expected) + expected.classes)
        return self._run(
            method.work(ipc, expected.classes) * work,
            activations,
            UNROLLED,
            whitened + states,
            stored,
        )

    def _distill(self, node: Node, expected: Expected) -> Cost | None:
        recipe, ipc = node.spec.recipe["method"], node.spec.recipe["ipc"]
        method = recipe_object("method", recipe)
        if not hasattr(method, "work"):  # depends on the number of training images
            return None
        if "network" in recipe:
            return self._unrolled(node, expected)
        nets = self._teachers(node, expected) or [(0.0, 0.0, 0.0)]
        images = expected.classes * ipc
        work = method.work(ipc, expected.classes) * sum(work for work, _, _ in nets)
        batch = min(
            expected.classes, recipe.get("micro_batch") or recipe.get("batch") or expected.classes
        )
        return self._run(
            work,
            max(a for _, a, _ in nets),
            batch,
            self._resident(expected),
            images * self._pixels(expected),
        )

    def _instances(self, node: Node, expected: Expected) -> float:
        recipe = node.inputs["distilled"].spec.recipe
        return instances(recipe["method"], recipe["ipc"], expected.classes)

    def _label(self, node: Node, expected: Expected) -> Cost:
        instances, nets = self._instances(node, expected), self._teachers(node, expected)
        labelled = instances * node.spec.recipe.get("epochs", 1)
        work = labelled * sum(w for w, _, _ in nets)
        return self._run(work, max(a for _, a, _ in nets), 64, 0, labelled * expected.classes * 2)

    def _analyse(self, node: Node, expected: Expected) -> Cost:
        # Passes of one network over the test images; a loss surface takes one for each of its points.
        recipe, student = node.spec.recipe["analysis"], node.spec.recipe.get("student")
        if "training" in node.spec.recipe:  # one that trains students itself
            whole = self._evaluate(node, expected)
            return replace(whole, seconds=whole.seconds * self._students(node), bytes=1e6)
        networks = self._teachers(node, expected) + (
            [self._network(student, expected)] if student else []
        )
        passes = recipe.get("points", 1) ** 2 * recipe.get("images", expected.test)
        total = passes * sum(work for work, _, _ in networks)
        return self._run(
            total, max((a for _, a, _ in networks), default=0), 256, self._resident(expected), 1e6
        )

    def _students(self, node: Node) -> float:
        """Trainings on the whole set that an analysis amounts to: one for each of the set's states that are kept on the way,
        or, of continual learning, for each growing share of the set, tested on a growing share."""
        if "steps" in node.spec.recipe["analysis"]:
            return (node.spec.recipe["analysis"]["steps"] + 1) / 2
        return node.inputs["distilled"].spec.recipe["method"].get("snapshots", 1)

    def _evaluate(self, node: Node, expected: Expected) -> Cost:
        recipe, instances = node.spec.recipe, self._instances(node, expected)
        work, activations, parameters = self._network(recipe["student"], expected)
        training = recipe["training"]
        labelling = sum(w for w, _, _ in self._teachers(node, expected))
        tests = 1 + training["epochs"] // training["test_every"]
        batch = batch_size(instances, training["batch"], training.get("batch_up_to"))
        batch = min(batch, training.get("micro_batch") or batch)
        total = (
            instances * training["epochs"] * (3 * work + labelling) + tests * expected.test * work
        )
        held = min(instances * self._pixels(expected) * 4, self._resident(expected) * 2)
        halved = 0.5 if training["precision"] == "bf16" else 1
        return self._run(total, activations * halved, batch, held, 4 * parameters)
