"""The loss of a student around test images, in pixel space: INFER's Figure 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from distillery.analyses.inputs import BATCH, Result, fixed_choice, fixed_generator
from distillery.components.fields import Count, Positive

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job

NAMES = ("landscape",)
TRAITS = {"needs": ("student",)}

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """points: of the grid, per axis. radius: from the image to an edge of the grid, the same along both axes, as an L2 norm in
    pixel units (pixels in [0, 1]). images: of the test set, drawn at random, the same ones for every student.
    """

    points: Count = 51
    radius: Positive = 1.0
    images: Count = 100


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Cross entropy, in nats, on a square grid around test images: mean over the images, and the surface of the first one.

    The axes are the unit vector along the input gradient of the cross entropy and a random unit vector orthogonal to it, the
    same for all students up to that orthogonality. Nothing is clamped to [0, 1]. Element [i, j] of a surface lies at
    offsets[i] along the gradient and offsets[j] along the random vector. value: mean over the grid minus loss of the image
    itself. values: image (index in the test set), label, centre, mean, gradient (its L2 norm per pixel unit).
    Deviation: the paper shows one surface and states neither its axes nor its extent; all of that is ours.
    """
    samples = inputs.test_samples(job.device)
    offsets = torch.linspace(-recipe.radius, recipe.radius, recipe.points, device=job.device)
    rows, total, first = [], 0.0, None

    def loss(images: Tensor, label: Tensor) -> Tensor:
        logits = inputs.student(samples.normalise(images)).float()
        return cross_entropy(logits, label.expand(len(images)), reduction="none")

    for index in job.progress(
        fixed_choice("landscape", recipe.images, len(samples)).tolist(), "landscape"
    ):
        image, label = samples.take(torch.tensor([index], device=job.device)), samples.labels[index]
        centre, slope = gradient(loss, image, label)
        found = surface(
            loss, image, label, axes(slope, fixed_generator(f"landscape/{index}")), offsets
        )
        total, first = total + found, found if first is None else first
        rows.append((index, label.item(), centre, found.mean().item(), slope.norm().item()))
    mean = total / len(rows)
    values = dict(
        zip(
            ("image", "label", "centre", "mean", "gradient"),
            map(list, zip(*rows, strict=True)),
            strict=True,
        )
    )
    value = mean.mean().item() - sum(values["centre"]) / len(rows)
    arrays = {"surface": mean, "first": first, "offsets": offsets.cpu()}
    return Result(
        value, values, arrays, {"radius": recipe.radius, "units": "pixels", "images": len(rows)}
    )


def gradient(loss: Loss, image: Tensor, label: Tensor) -> tuple[float, Tensor]:
    """The loss at `image` (1, C, H, W) in [0, 1] and its gradient there, (C, H, W) per pixel unit."""
    leaf = image.detach().clone().requires_grad_()
    value = loss(leaf, label).sum()
    (slope,) = torch.autograd.grad(value, leaf)
    return value.item(), slope[0]


def axes(slope: Tensor, generator: torch.Generator) -> Tensor:
    """Unit vectors (2, C, H, W): along `slope` (C, H, W), and random, orthogonal to it. A zero slope gives a zero vector."""
    # scaled first: the squares of a confident student's gradient underflow in float32
    along = normalize(
        slope.flatten() / slope.abs().amax().clamp(min=torch.finfo(slope.dtype).tiny), dim=0
    )
    across = torch.randn(slope.shape, generator=generator).flatten().to(slope)
    across = normalize(across - (across @ along) * along, dim=0)
    return torch.stack([along, across]).view(2, *slope.shape)


@torch.no_grad()
def surface(
    loss: Loss, image: Tensor, label: Tensor, directions: Tensor, offsets: Tensor
) -> Tensor:
    """Loss at image + offsets[i] directions[0] + offsets[j] directions[1]: (P, P) float64 on the CPU."""
    places = torch.cartesian_prod(offsets, offsets).split(BATCH)
    losses = [loss(image + torch.tensordot(place, directions, 1), label) for place in places]
    return torch.cat(losses).double().view(len(offsets), -1).cpu()
