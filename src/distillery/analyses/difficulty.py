"""Which test images a student gets right, by how hard a teacher finds them: INFER's Figure 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.nn.functional import cross_entropy

from distillery.analyses.inputs import Result, columns, needed, outputs
from distillery.components.fields import Count

if TYPE_CHECKING:
    from typing import Any

    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("difficulty",)
TRAITS = {"needs": ("teachers", "student")}
COLUMNS = ("bins", "bin", "low", "high", "total", "correct")


@dataclass(frozen=True)
class Recipe:
    """INFER, Figure 8.

    Attributes:
        teachers: network names; the first one's cross entropy is the difficulty.
        bins: intervals of each kind.
    """

    teachers: tuple[str, ...]
    bins: Count = 10


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test images by difficulty, and how many of them the student classifies correctly.

    The difficulty of an image is the teacher's cross entropy, in nats.

    Returns:
        value: percent correct of all.
        values: bins ("width": intervals of equal width over [0, largest]; "quantile": of equal
        counts where no difficulties are equal), bin, low, high, total, correct. Each kind counts
        every test image once.
    """
    samples, teacher = inputs.test_samples(job.device), inputs.teachers[0]
    labels = samples.labels.cpu()
    logits = outputs(job, "teacher", teacher.model, samples).double()
    difficulty = cross_entropy(logits, labels, reduction="none").numpy()
    answers = outputs(job, "student", needed(inputs.student, "student"), samples).argmax(1)
    correct = (answers == labels).numpy()
    edges = {
        "width": np.linspace(0, difficulty.max(), recipe.bins + 1),
        "quantile": np.quantile(difficulty, np.linspace(0, 1, recipe.bins + 1)),
    }
    rows = [
        row
        for kind, bounds in edges.items()
        for row in histogram(kind, bounds, difficulty, correct)
    ]
    metadata = {
        "teacher": {"name": teacher.name, "accuracy": teacher.accuracy},
        "mean_cross_entropy": float(difficulty.mean()),
    }
    return Result(100 * float(correct.mean()), columns(COLUMNS, rows), metadata=metadata)


def histogram(
    kind: str, edges: np.ndarray, difficulty: np.ndarray, correct: np.ndarray
) -> list[tuple[Any, ...]]:
    """A row of `COLUMNS` per bin: [edges[i], edges[i + 1]), the last one closed.

    Args:
        kind: of the bins.
        edges: (bins + 1,), ascending.
        difficulty: (N,), of the images.
        correct: (N,) bool, whether the student is right.
    """
    bins = len(edges) - 1
    # the inner edges alone decide, so that no image falls out at either end
    index = np.searchsorted(edges[1:-1], difficulty, side="right")
    total, right = (
        np.bincount(index, weights, bins).astype(int).tolist() for weights in (None, correct)
    )
    return [
        (kind, i, float(edges[i]), float(edges[i + 1]), total[i], right[i]) for i in range(bins)
    ]
