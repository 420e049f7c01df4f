"""The loss of a student around test images, in pixel space: INFER's Figure 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from distillery.analyses.inputs import (
    BATCH,
    Result,
    columns,
    fixed_choice,
    fixed_generator,
    needed,
)
from distillery.components.fields import Count, Positive
from distillery.store.checkpoint import gathered

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("landscape",)
TRAITS = {"needs": ("student",)}

COLUMNS = ("image", "label", "centre", "mean", "gradient")

LossAt = Callable[[Tensor, Tensor], Tensor]  # of images (B, C, H, W) in [0, 1] and a label: (B,)


@dataclass(frozen=True)
class Recipe:
    """INFER, Figure 5.

    Attributes:
        points: of the grid, per axis.
        radius: from the image to an edge of the grid, the same along both axes, as an L2 norm in
            pixel units (pixels in [0, 1]).
        images: of the test set, drawn at random, the same ones for every student.
    """

    points: Count = 51
    radius: Positive = 1.0
    images: Count = 100


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Cross entropy, in nats, on a square grid around test images.

    The axes are the unit vector along the input gradient of the cross entropy and a random unit
    vector orthogonal to it, the same for all students up to that orthogonality. Nothing is clamped
    to [0, 1].

    Deviation: the paper shows one surface and states neither its axes nor its extent; all of that
    is ours.

    Returns:
        value: mean over the grid minus the loss of the image itself, mean over the images.
        values: image (index in the test set), label, centre, mean, gradient (its L2 norm per pixel
        unit).
        arrays: surface, the mean over the images, and first, that of the first image, (points,
        points): element [i, j] lies at offsets[i] along the gradient and offsets[j] along the
        random vector.
    """
    samples, student = inputs.test_samples(job.device), needed(inputs.student, "student")
    offsets = torch.linspace(-recipe.radius, recipe.radius, recipe.points, device=job.device)

    def loss(images: Tensor, label: Tensor) -> Tensor:
        logits = student(samples.normalise(images)).float()
        return cross_entropy(logits, label.expand(len(images)), reduction="none")

    def look(index: int) -> tuple[tuple[float, ...], Tensor]:
        image, label = samples.take(torch.tensor([index], device=job.device)), samples.labels[index]
        centre, input_gradient = gradient(loss, image, label)
        directions = axes(input_gradient, fixed_generator(f"landscape/{index}"))
        losses_around = surface(loss, image, label, directions, offsets)
        mean, slope = losses_around.mean().item(), input_gradient.norm().item()
        return (index, label.item(), centre, mean, slope), losses_around

    chosen = fixed_choice("landscape", recipe.images, len(samples)).tolist()
    found = gathered(job, "landscape", chosen, look, label="landscape")
    rows, surfaces = zip(*found, strict=True)
    values = columns(COLUMNS, rows)
    mean = sum(surfaces, torch.zeros_like(surfaces[0])) / len(rows)
    value = mean.mean().item() - sum(values["centre"]) / len(rows)
    arrays = {"surface": mean, "first": surfaces[0], "offsets": offsets.cpu()}
    metadata = {"radius": recipe.radius, "units": "pixels", "images": len(rows)}
    return Result(value, values, arrays, metadata)


def gradient(loss: LossAt, image: Tensor, label: Tensor) -> tuple[float, Tensor]:
    """The loss at an image and its gradient there.

    Args:
        loss: of images and a label.
        image: (1, C, H, W) in [0, 1].
        label: () int64.

    Returns:
        The loss, and the gradient (C, H, W) per pixel unit.
    """
    leaf = image.detach().clone().requires_grad_()
    value = loss(leaf, label).sum()
    (input_gradient,) = torch.autograd.grad(value, leaf)
    return value.item(), input_gradient[0]


def axes(input_gradient: Tensor, generator: torch.Generator) -> Tensor:
    """The unit vectors of the grid: along a gradient, and random, orthogonal to it.

    Args:
        input_gradient: (C, H, W), the gradient; of a zero gradient the unit vector is zero.
        generator: on the CPU.

    Returns:
        (2, C, H, W).
    """
    # scaled first: the squares of a confident student's gradient underflow in float32
    largest = input_gradient.abs().amax().clamp(min=torch.finfo(input_gradient.dtype).tiny)
    along = normalize(input_gradient.flatten() / largest, dim=0)
    across = torch.randn(input_gradient.shape, generator=generator).flatten().to(input_gradient)
    across = normalize(across - (across @ along) * along, dim=0)
    return torch.stack([along, across]).view(2, *input_gradient.shape)


@torch.no_grad()
def surface(
    loss: LossAt, image: Tensor, label: Tensor, directions: Tensor, offsets: Tensor
) -> Tensor:
    """The loss on the grid around an image.

    Args:
        loss: of images and a label.
        image: (1, C, H, W) in [0, 1], the centre.
        label: () int64.
        directions: (2, C, H, W), unit vectors.
        offsets: (P,), places along both.

    Returns:
        (P, P) float64 on the CPU; element [i, j] lies at offsets[i] directions[0] + offsets[j]
        directions[1] from the image.
    """
    places = torch.cartesian_prod(offsets, offsets).split(BATCH)
    losses = [loss(image + torch.tensordot(place, directions, 1), label) for place in places]
    return torch.cat(losses).double().view(len(offsets), -1).cpu()
