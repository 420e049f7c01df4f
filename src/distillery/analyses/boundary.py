"""Decision regions of a student between a few classes, on a t-SNE map of its features: INFER's Figure 2, right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from distillery.analyses.inputs import Result, fixed_choice, outputs
from distillery.components.fields import Count, Positive
from distillery.nets.features import penultimate

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("boundary",)
TRAITS = {"needs": ("student",)}
MARGIN = 0.05


@dataclass(frozen=True)
class Recipe:
    """classes: drawn at random, the same for every student. per_class: test images of each, the first in the test set.
    perplexity: of t-SNE, at most a third of the images. neighbours: of the classifier that colours the map. grid: its places
    per axis.
    """

    classes: Count = 7
    per_class: Count = 100
    perplexity: Positive = 30.0
    neighbours: Count = 15
    grid: Count = 200


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """A t-SNE map of the student's penultimate features of test images of a few classes, and its predictions all over it.

    Predictions are restricted to those classes. arrays: points (N, 2); labels and predictions (N,), positions in `classes`;
    classes (c,), labels of the data set, ascending; grid (2, g), places along x and y; region (g, g), the class at
    (grid[0, column], grid[1, row]) by k nearest neighbours on the predictions. values: class, images, correct.
    value: percent of these images that the student gets right among these classes.
    Deviation: the paper shows the picture and says no more; t-SNE has no inverse, hence the classifier on the map.
    """
    samples = inputs.test_samples(job.device)
    chosen = fixed_choice("boundary", recipe.classes, len(inputs.classes)).sort().values
    members = [inputs.test.of_class(label)[: recipe.per_class] for label in chosen.tolist()]
    indices, labels = (
        torch.cat(members),
        torch.arange(len(chosen)).repeat_interleave(torch.tensor(list(map(len, members)))),
    )
    predictions = outputs(inputs.student, samples, indices)[:, chosen].argmax(1)
    points = embed(outputs(partial(penultimate, inputs.student), samples, indices).numpy(), recipe)
    grid, region = regions(points, predictions.numpy(), recipe)
    correct = predictions == labels
    values = {
        "class": [inputs.classes[label] for label in chosen.tolist()],
        "images": list(map(len, members)),
        "correct": torch.bincount(labels[correct], minlength=len(chosen)).tolist(),
    }
    arrays = {
        "points": torch.from_numpy(points),
        "grid": torch.from_numpy(grid),
        "region": torch.from_numpy(region),
    }
    arrays |= {"labels": labels, "predictions": predictions, "classes": chosen}
    return Result(100 * correct.double().mean().item(), values, arrays)


def embed(features: np.ndarray, recipe: Recipe) -> np.ndarray:
    """A 2-D t-SNE map (N, 2) float32 of `features` (N, F): fixed seed, PCA start. One thread, for sums in one order."""
    perplexity = min(recipe.perplexity, (len(features) - 1) / 3)
    with threadpool_limits(1):
        return (
            TSNE(perplexity=perplexity, init="pca", random_state=0)
            .fit_transform(features)
            .astype(np.float32)
        )


def regions(
    points: np.ndarray, predictions: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Places (2, g) float32 over the extent of `points` (N, 2), and the class (g, g) int64 at each, rows along y."""
    low, high = points.min(0), points.max(0)
    margin = MARGIN * (high - low)
    grid = np.linspace(low - margin, high + margin, recipe.grid, dtype=np.float32).T
    places = np.stack(np.meshgrid(*grid), -1).reshape(-1, 2)
    nearest = KNeighborsClassifier(min(recipe.neighbours, len(points))).fit(points, predictions)
    return np.ascontiguousarray(grid), nearest.predict(places).reshape(recipe.grid, recipe.grid)
