"""Rough cost of an artefact before it is made; never enters a result or an identity.

Work is counted as multiply-adds of the networks (`network_costs`) times images times passes, and
divided by a throughput. Expect a factor of two; the order of magnitude is what a user plans with.
What memory is taken for says `memory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillery.plan import memory
from distillery.plan.checks import instances
from distillery.plan.memory import Memory
from distillery.plan.models import Expected
from distillery.plan.network_costs import NetworkCost, NetworkCosts
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings
from distillery.plan.types import recipe_object, traits
from distillery.store.artefact import META, read_meta
from distillery.store.spec import folder
from distillery.training.recipe import batch_size

START_UP_S = 4.0  # importing torch
BASE_MEMORY = 700 << 20  # a process with torch loaded
LABEL_BATCH = 256  # instances that are labelled together, or whose features are taken


@dataclass(frozen=True)
class Cost:
    """What a job takes.

    Attributes:
        seconds: from its start to its end.
        memory: of the host, bytes at the peak, whatever computes.
        resident: bytes of images and labels that are kept whole: on the device that computes, or in
            the host's memory where they do not fit there.
        device: bytes at the peak where networks compute: weights, activations, batches.
        bytes: stored.
    """

    seconds: float
    memory: float
    resident: float
    device: float
    bytes: float

    def on_host(self, on_gpu: bool) -> float:
        """Bytes of the host's memory; a GPU computes, or the CPU."""
        return self.memory + self.resident + (0 if on_gpu else self.device)


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

        Seconds and bytes are sums, memory that of the largest job, each kind by itself.
        """
        costs = [self.cost(node) for node in nodes]
        known = [cost for cost in costs if cost]
        together = Cost(
            seconds=sum(cost.seconds for cost in known),
            memory=max((cost.memory for cost in known), default=0),
            resident=max((cost.resident for cost in known), default=0),
            device=max((cost.device for cost in known), default=0),
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

    def _run(self, work: float, takes: Memory, stored: float) -> Cost:
        """Of multiply-adds, memory beside a process with torch, and stored bytes."""
        seconds = START_UP_S + work / self.rate
        host = BASE_MEMORY + memory.JOB + takes.host
        return Cost(seconds, host, takes.resident, takes.device, stored)

    def _data(self, node: Node, expected: Expected) -> Cost:
        raw = memory.pixels(expected) * (expected.train + expected.test)
        in_memory = 0 if "source" in node.spec.local else 2 * raw  # of sources that are libraries'
        host = BASE_MEMORY + memory.JOB + in_memory
        kept = node.spec.recipe.get("originals") is not None
        stored = raw * 0.6 + ((expected.original_bytes or raw) if kept else 0)
        return Cost(START_UP_S + raw / 2e7, host, 0, 0, stored)

    def _teacher(self, node: Node, expected: Expected) -> Cost:
        recipe = node.spec.recipe
        network = self._network(recipe["network"], expected)
        training = recipe["training"] or {"epochs": 0, "batch": 256}
        work = network.work * (3 * expected.train * training["epochs"] + expected.test)
        device = memory.tested(network, expected)
        counts = [expected.test]
        if recipe["training"]:
            step = memory.training(network, _batch(training, expected.train), expected)
            device, counts = max(device, step), [expected.train, expected.test]
        takes = Memory(0, memory.real_images(expected, *counts), device)
        return self._run(work, takes, 4 * network.parameters)

    def _whiten(self, node: Node, expected: Expected) -> Cost:
        size = memory.pixels(expected)
        # Covariance and eigenvectors, in float64.
        work = 2 * (expected.train * size**2 + 10 * size**3)
        resident = memory.real_images(expected, expected.train)
        return self._run(work, Memory(0, resident, memory.whitened(expected)), 4 * size**2)

    def _embed(self, node: Node, expected: Expected) -> Cost:
        teachers = self._teachers(node, expected)
        work = expected.train * _work(teachers)
        resident = memory.real_images(expected, expected.train)
        takes = Memory(0, resident, memory.inference(teachers, LABEL_BATCH, expected))
        return self._run(work, takes, 4 * expected.classes**2)

    def _distill(self, node: Node, expected: Expected) -> Cost | None:
        reference, ipc = node.spec.recipe["method"], node.spec.recipe["ipc"]
        method = recipe_object("method", reference)
        if not hasattr(method, "work"):  # depends on the number of training images
            return None
        passes, stored = method.work(ipc, expected.classes), _stored(reference, ipc, expected)
        checked = memory.CHECKED * memory.pixels(expected)
        host = 2 * stored + checked  # as it was made, and put together
        if "network" in reference:
            network = self._network(reference["network"], expected)
            images = method.images_per_step(ipc, expected.classes)
            device = memory.unrolled(network, method, images, expected)
            whitens = node.find_input("whitening") is not None
            device += memory.whitening(expected) if whitens else 0
            device += 1e9 * method.graph_gb
            each = memory.FLOAT if whitens else 1
            resident = memory.real_images(expected, expected.train, each=each)
            # Whitened images are made from the images, which are there as well.
            resident += memory.real_images(expected, expected.train) if whitens else 0
            return self._run(passes * network.work, Memory(host, resident, device), stored)
        teachers = self._teachers(node, expected)
        learned, seen = _at_once(method, ipc, expected)
        device = max(
            memory.recovery(teachers, learned, expected, _share(reference)),
            memory.inference(teachers, seen, expected),
        )
        reads = getattr(method, "reads_images", True)
        resident = memory.real_images(expected, expected.train) if reads else 0
        return self._run(passes * _work(teachers), Memory(host, resident, device), stored)

    def _label(self, node: Node, expected: Expected) -> Cost:
        teachers, recipe = self._teachers(node, expected), node.spec.recipe
        labelled = _instances(node, expected) * recipe.get("epochs", 1)
        of_an_epoch = _instances(node, expected) * expected.classes * 2
        batch = _batch(recipe, _instances(node, expected)) if "batch" in recipe else LABEL_BATCH
        read, images = _read(node, expected)
        resident = images if "batch" in recipe else 0
        # Logits as they come, joined, and in the number format that is stored.
        takes = Memory(
            read + 5 * of_an_epoch, resident, memory.inference(teachers, batch, expected)
        )
        work, stored = labelled * _work(teachers), labelled * expected.classes * 2
        return self._run(work, takes, stored)

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
        read, images = _read(node, expected) if node.find_input("distilled") else (0.0, 0.0)
        resident = memory.real_images(expected, expected.train, expected.test) + images
        device = memory.inference(networks, LABEL_BATCH, expected)
        return self._run(work, Memory(read, resident, device), 1e6)

    def _evaluate(self, node: Node, expected: Expected) -> Cost:
        recipe, count = node.spec.recipe, _instances(node, expected)
        training, student = recipe["training"], self._network(recipe["student"], expected)
        teachers = self._teachers(node, expected)
        tests = 1 + training["epochs"] // training["test_every"]
        work = count * training["epochs"] * (3 * student.work + _work(teachers))
        work += tests * expected.test * student.work
        batch = _batch(training, count)
        part = min(batch, training.get("micro_batch") or batch)
        step = memory.training(student, part, expected, _share(training))
        labelling = memory.inference(teachers, batch, expected) if teachers else 0
        # The teachers' weights stay; what they compute is gone before the student's step.
        weights = memory.FLOAT * sum(teacher.parameters for teacher in teachers)
        device = weights + max(step, labelling, memory.tested(student, expected))
        read, images = _read(node, expected)
        labels = count * expected.classes * 2 if node.find_input("label") else 0
        each = memory.FLOAT if node.find_input("whitening") else 1
        resident = images + labels + memory.real_images(expected, expected.test, each=each)
        return self._run(work, Memory(read, resident, device), 4 * student.parameters)


def _share(recipe: Mapping[str, Any]) -> float:
    """The share of float32's bytes that activations take."""
    return 0.5 if recipe.get("precision") == "bf16" else 1.0


def _batch(training: Mapping[str, Any], count: float) -> float:
    """Images of a step of a training on so many."""
    batch = batch_size(round(count), training["batch"], training.get("batch_up_to"))
    return min(batch, count)


def _at_once(method: Any, ipc: float, expected: Expected) -> tuple[float, float]:
    """Images that go through a teacher together: with gradients, and without.

    The recipe's `at_once` says so; a method without one is taken to recover a batch of classes.
    """
    if not getattr(method, "teachers", ()):
        return 0, 0
    if hasattr(method, "at_once"):
        learned, seen = method.at_once(ipc, expected.classes)
        return learned, seen
    batch = getattr(method, "micro_batch", None) or getattr(method, "batch", None)
    return min(expected.classes, batch or expected.classes), 0


def _stored(method: Mapping[str, Any], ipc: float, expected: Expected) -> float:
    """Bytes of a distilled set; of JPEG files as many as of levels, which is too much."""
    if traits("method", method["name"]).whole_data:
        return 0.0
    recipe, size = recipe_object("method", method), memory.pixels(expected)
    if hasattr(recipe, "stored_bytes"):
        return float(recipe.stored_bytes(ipc, expected.classes, size))
    return expected.classes * ipc * size


def _read(node: Node, expected: Expected) -> tuple[float, float]:
    """Bytes of a job's distilled set as it is read and checked, and of its instances kept whole."""
    recipe = node.input("distilled").spec.recipe
    method, size = recipe["method"], memory.pixels(expected)
    levels = not hasattr(recipe_object("method", method), "stored_bytes") or method.get("jpeg")
    images = memory.kept_whole(_instances(node, expected) * size * (1 if levels else memory.FLOAT))
    return _stored(method, recipe["ipc"], expected) + memory.CHECKED * size, images


def _work(networks: Iterable[NetworkCost]) -> float:
    return sum(network.work for network in networks)


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
