"""How much memory a job takes at its peak: formulas, in bytes, from what is counted of networks.

docs/results/data/benchmark-memory.json holds them against measured peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from distillery.plan.models import Expected
from distillery.plan.network_costs import NetworkCost
from distillery.store.memory import RESIDENT

FLOAT, DOUBLE = 4, 8
WEIGHTS = 4 * FLOAT  # a trained weight, its gradient and Adam's two moments
BATCH = 4 * FLOAT  # a value of a batch as it is read, augmented, normalised and mixed
TEST_BATCH = 512  # images at a time, as `training.loop.predictions` takes them
CHECKED = 256 * 3 * FLOAT  # images that `sets.contract` looks at together, as floats and a copy
LIVE = 2.0  # widest layers of an inference: other branches, and freed memory that no tensor fits in
# Of recoveries: features are kept once more where statistics are taken from the running mean on.
STATISTICS = 1.5
IMAGES = 10 * FLOAT  # a value of a recovered image: itself, Adam's moments, gradients, augmented
STEP = 4.0  # of `kept`: the graph of a training step that is differentiated twice
CHUNK = 500  # real images at a time of an outer loss, `methods.shared.meta_learning.CHUNK`
JOB = 96 << 20  # libraries that read, decode and write, and what they keep, of any job
WHITENED = 2048  # images at a time of a covariance, `stages.whiten.BATCH`


class Memory(NamedTuple):
    """What a job takes at its peak, beside a process with torch loaded.

    Attributes:
        host: in the host's memory.
        resident: images and labels that are kept whole: on the device, or in the host's memory
            where they do not fit there.
        device: where networks compute: weights, activations, batches.
    """

    host: float = 0.0
    resident: float = 0.0
    device: float = 0.0


def pixels(expected: Expected) -> int:
    """Numbers of an image."""
    channels, height, width = expected.shape
    return channels * height * width


def kept_whole(size: float) -> float:
    """`size`, or 0 where that is not kept whole (`store.memory`)."""
    return size if size <= RESIDENT else 0.0


def real_images(expected: Expected, *counts: int, each: int = 1) -> float:
    """Splits of so many real images, those that are kept whole, of `each` bytes a number."""
    return sum(kept_whole(each * count * pixels(expected)) for count in counts)


def training(network: NetworkCost, batch: float, expected: Expected, share: float = 1.0) -> float:
    """A training step on a batch.

    Args:
        network: what is trained.
        batch: images that go through it together.
        expected: their size.
        share: of float32, the size of a number that is kept for the backward pass.
    """
    activations = share * (network.kept + network.widest)
    return WEIGHTS * network.parameters + batch * (activations + BATCH * pixels(expected))


def inference(networks: Sequence[NetworkCost], batch: float, expected: Expected) -> float:
    """A pass of a batch through each of some networks without gradients."""
    weights = FLOAT * sum(network.parameters for network in networks)
    widest = max((network.widest for network in networks), default=0.0)
    return weights + batch * (LIVE * widest + 2 * FLOAT * pixels(expected))


def tested(network: NetworkCost, expected: Expected) -> float:
    """A pass over the test images, after a training whose weights are there."""
    at_once = min(TEST_BATCH, expected.test)
    return 3 * FLOAT * network.parameters + inference([network], at_once, expected)


def recovery(
    teachers: Sequence[NetworkCost], images: float, expected: Expected, share: float = 1.0
) -> float:
    """A step of images that are optimised against one of some frozen teachers.

    Args:
        teachers: the networks.
        images: that go through one of them together.
        expected: their size.
        share: of float32, the size of a number that is kept for the backward pass.
    """
    weights = FLOAT * sum(teacher.parameters for teacher in teachers)
    kept = max((teacher.kept + teacher.widest for teacher in teachers), default=0.0)
    return weights + images * (STATISTICS * share * kept + IMAGES * pixels(expected))


def unrolled(network: NetworkCost, recipe: Any, images: float, expected: Expected) -> float:
    """A meta-step: the states of its window, one step of it with its graph, the outer loss.

    Args:
        network: the student.
        recipe: of a method that is a `methods.shared.recipes.Unrolled`.
        images: of an inner step.
        expected: the data set.
    """
    states = 3 * FLOAT * network.parameters * (recipe.window + 4)
    step = images * (STEP * network.kept + network.widest)
    real = min(recipe.batch, expected.train)
    chunk = min(CHUNK, real) * (network.kept + network.widest)
    return states + max(step, chunk + BATCH * real * pixels(expected))


def whitening(expected: Expected) -> float:
    """The matrix that whitens images, as it is applied."""
    return 2 * FLOAT * pixels(expected) ** 2


def whitened(expected: Expected) -> float:
    """The covariance of the training images and its eigenvectors, in float64."""
    size = pixels(expected)
    return DOUBLE * (5 * size**2 + 3 * min(WHITENED, expected.train) * size)
