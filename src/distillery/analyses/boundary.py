"""Decision regions of a student between a few classes: INFER's Figure 2, right.

They are drawn on a t-SNE map of the student's features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from distillery.analyses.inputs import Result, fixed_choice, needed, outputs
from distillery.components.fields import Count, Positive
from distillery.nets.features import penultimate

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("boundary",)
TRAITS = {"needs": ("student",)}
MARGIN = 0.05  # around the points, of their extent


@dataclass(frozen=True)
class Recipe:
    """INFER, Figure 2, right; the paper states none of these settings.

    Attributes:
        classes: drawn at random, the same for every student.
        per_class: test images of each class, the first in the test set.
        perplexity: of t-SNE; at most a third of the images is used.
        neighbours: of the classifier that colours the map.
        grid: places of the map per axis.
    """

    classes: Count = 7
    per_class: Count = 100
    perplexity: Positive = 30.0
    neighbours: Count = 15
    grid: Count = 200


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """A t-SNE map of test images of a few classes, and the student's predictions all over it.

    The map is of the student's penultimate features; its predictions are restricted to those
    classes.

    Deviation: the paper shows the picture and says no more; t-SNE has no inverse, hence the
    classifier on the map.

    Returns:
        value: percent of these images that the student gets right among these classes.
        values: class, images, correct.
        arrays: points (N, 2); labels and predictions (N,), positions in `classes`; classes (c,),
        labels of the data set, ascending; grid (2, g), places along x and y; region (g, g), the
        class at (grid[0, column], grid[1, row]) by k nearest neighbours on the predictions.
    """
    samples, student = inputs.test_samples(job.device), needed(inputs.student, "student")
    chosen = fixed_choice("boundary", recipe.classes, len(inputs.classes)).sort().values
    members = [inputs.test.of_class(label)[: recipe.per_class] for label in chosen.tolist()]
    counts = list(map(len, members))
    indices = torch.cat(members)
    labels = torch.arange(len(chosen)).repeat_interleave(torch.tensor(counts))
    predictions = outputs(job, "predictions", student, samples, indices)[:, chosen].argmax(1)
    features = outputs(job, "features", partial(penultimate, student), samples, indices)
    points = embed(features.numpy(), recipe)
    grid, region = regions(points, predictions.numpy(), recipe)
    correct = predictions == labels
    values = {
        "class": [inputs.classes[label] for label in chosen.tolist()],
        "images": counts,
        "correct": torch.bincount(labels[correct], minlength=len(chosen)).tolist(),
    }
    arrays = {
        "points": torch.from_numpy(points),
        "grid": torch.from_numpy(grid),
        "region": torch.from_numpy(region),
        "labels": labels,
        "predictions": predictions,
        "classes": chosen,
    }
    return Result(100 * correct.double().mean().item(), values, arrays)


def embed(features: np.ndarray, recipe: Recipe) -> np.ndarray:
    """A t-SNE map (N, 2) float32 of `features` (N, F): fixed seed, PCA start."""
    perplexity = min(recipe.perplexity, (len(features) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    # one thread, so that sums are taken in one order and the map is the same again
    with threadpool_limits(1):
        return tsne.fit_transform(features).astype(np.float32)


def regions(
    points: np.ndarray, predictions: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class all over the map, by k nearest neighbours.

    Args:
        points: (N, 2), places of the images.
        predictions: (N,) int64, classes of the images.
        recipe: `neighbours` and `grid`.

    Returns:
        The places (2, g) float32 along x and y, over the extent of the points and a margin, and
        the class (g, g) int64 at each, rows along y.
    """
    low, high = points.min(0), points.max(0)
    margin = MARGIN * (high - low)
    grid = np.linspace(low - margin, high + margin, recipe.grid, dtype=np.float32).T
    places = np.stack(np.meshgrid(*grid), -1).reshape(-1, 2)
    nearest = KNeighborsClassifier(min(recipe.neighbours, len(points))).fit(points, predictions)
    return np.ascontiguousarray(grid), nearest.predict(places).reshape(recipe.grid, recipe.grid)
