"""What a meta-step draws: images of its inner steps, real images, the start of its window.

Everything follows from the job and the number of the meta-step, so that a run that was killed goes
on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from distillery.errors import PlanError

if TYPE_CHECKING:
    from distillery.methods.shared.recipes import Unrolled
    from distillery.store.job import Job

DrawImages = Callable[[Generator], Tensor]  # to the indices (b,) int64 of an inner step
DrawReal = Callable[[int], Tensor]  # from a meta-step to indices (B,) int64 of real images


def full_batch(count: int) -> DrawImages:
    """All `count` images at each inner step."""
    return lambda stream: torch.arange(count)


def random_subset(count: int, size: int) -> DrawImages:
    """`size` of `count` images at each inner step, drawn without replacement."""
    return lambda stream: torch.randperm(count, generator=stream)[:size].sort().values


def class_subset(classes: int, ipc: int, step_ipc: int, step_classes: int) -> DrawImages:
    """A few images of a few classes at each inner step.

    Args:
        classes: of the set; its images stand class by class.
        ipc: images of each class.
        step_ipc: how many of them are drawn for a step.
        step_classes: how many classes are drawn for a step.
    """

    def draw(stream: Generator) -> Tensor:
        chosen = torch.randperm(classes, generator=stream)[:step_classes].sort().values
        images = torch.stack([torch.randperm(ipc, generator=stream)[:step_ipc] for _ in chosen])
        return (chosen[:, None] * ipc + images).flatten()

    return draw


def shuffled_passes(count: int, batch: int, job: Job) -> DrawReal:
    """Real batches of a shuffled pass over all images, pass after pass.

    The last, smaller batch of each pass is used too.

    Args:
        count: real images.
        batch: images of a meta-step.
        job: what the order follows from.
    """
    steps_per_pass = math.ceil(count / batch)

    def draw(meta_step: int) -> Tensor:
        passes, step = divmod(meta_step, steps_per_pass)
        order = torch.randperm(count, generator=job.generator(f"real/{passes}"))
        return order.split(batch)[step]

    return draw


def balanced_batches(labels: Tensor, batch: int, classes: int, job: Job) -> DrawReal:
    """Real batches of `batch` // `classes` (at least 1) images of each class.

    They are drawn anew at each meta-step.

    Args:
        labels: (N,) int64, of the real images.
        batch: images of a meta-step, about.
        classes: how many there are.
        job: what the draw follows from.
    """
    members = [(labels == label).nonzero().flatten() for label in range(classes)]
    share = max(1, batch // classes)

    def draw(meta_step: int) -> Tensor:
        stream = job.generator(f"real/{meta_step}")
        return torch.cat([m[torch.randperm(len(m), generator=stream)[:share]] for m in members])

    return draw


def window_starts(recipe: Unrolled, count: int, job: Job) -> Callable[[int], int]:
    """Inner steps before the window, by meta-step.

    Uniform in 0 .. inner_steps - window, drawn once per pass over the real images ("epoch") or per
    meta-step ("step"), or always inner_steps - window ("fixed").

    Args:
        recipe: says which of these.
        count: real images.
        job: what the draw follows from.

    Raises:
        PlanError: the window is longer than the training.
    """
    if recipe.window > recipe.inner_steps:
        raise PlanError(
            f"window = {recipe.window}: is longer than inner_steps = {recipe.inner_steps}, all "
            f"inner steps; raise inner_steps"
        )
    latest, steps_per_pass = recipe.inner_steps - recipe.window, math.ceil(count / recipe.batch)
    if recipe.window_start == "fixed":
        return lambda meta_step: latest

    def start(meta_step: int) -> int:
        draw = meta_step // steps_per_pass if recipe.window_start == "epoch" else meta_step
        stream = job.generator(f"offset/{draw}")
        return int(torch.randint(latest + 1, (), generator=stream))

    return start
