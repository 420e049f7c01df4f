"""Which test images a student gets right, by how hard a teacher finds them: INFER's Figure 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.nn.functional import cross_entropy

from distillery.analyses.inputs import Result, outputs
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
    """teachers: network names; the first one's cross entropy is the difficulty. bins: of each kind."""

    teachers: tuple[str, ...]
    bins: Count = 10


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test images per interval of the teacher's cross entropy (nats), and how many of them the student classifies correctly.

    values: bins ("width": equal width over [0, largest]; "quantile": equal counts where no values are equal), bin, low, high,
    total, correct. Each kind counts every test image once. value: percent correct of all.
    """
    samples = inputs.test_samples(job.device)
    labels = samples.labels.cpu()
    hardness = cross_entropy(
        outputs(inputs.teachers[0].model, samples).double(), labels, reduction="none"
    ).numpy()
    correct = (outputs(inputs.student, samples).argmax(1) == labels).numpy()
    edges = {
        "width": np.linspace(0, hardness.max(), recipe.bins + 1),
        "quantile": np.quantile(hardness, np.linspace(0, 1, recipe.bins + 1)),
    }
    rows = [
        row for kind, bounds in edges.items() for row in histogram(kind, bounds, hardness, correct)
    ]
    values = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    teacher = inputs.teachers[0]
    metadata = {
        "teacher": {"name": teacher.name, "accuracy": teacher.accuracy},
        "mean_cross_entropy": float(hardness.mean()),
    }
    return Result(100 * float(correct.mean()), values, metadata=metadata)


def histogram(
    kind: str, edges: np.ndarray, hardness: np.ndarray, correct: np.ndarray
) -> list[tuple[Any, ...]]:
    """A row of `COLUMNS` per bin: [edges[i], edges[i + 1]), the last one closed. Inner edges alone decide, so none is lost."""
    bins = len(edges) - 1
    index = np.searchsorted(edges[1:-1], hardness, side="right")
    total, right = (
        np.bincount(index, weights, bins).astype(int).tolist() for weights in (None, correct)
    )
    return [
        (kind, i, float(edges[i]), float(edges[i + 1]), total[i], right[i]) for i in range(bins)
    ]
