"""How far static labels of mixed images are from dynamic ones: INFER's Figure 9."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from distillery.analyses.inputs import BATCH, Result, columns, outputs
from distillery.components.fields import Count, Positive
from distillery.store.checkpoint import gathered
from distillery.teacher.ensemble import mean_logits
from distillery.training.augment import normalising_pipeline
from distillery.training.recipe import Augmentations

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job
    from distillery.training.samples import Samples

NAMES = ("divergence",)
TRAITS = {"needs": ("distilled", "label", "teachers")}
COLUMNS = ("augmented", "temperature", "kl", "standard_error", "mixes")


@dataclass(frozen=True)
class Recipe:
    """INFER, Figure 9.

    Attributes:
        teachers: network names; all of them label.
        temperatures: T of the softmax; the first one's is the headline.
        mixes: random pairs.
        alpha: lambda ~ Beta(alpha, alpha).
        augment: augmentations as of `training.augment`, in the second round, for the dynamic side
            alone.
    """

    teachers: tuple[str, ...]
    temperatures: tuple[Positive, ...] = (30.0, 1.0)
    mixes: Count = 10_000
    alpha: Positive = 0.8
    augment: Augmentations = ("crop:4", "flip")


@dataclass(frozen=True)
class Mixes:
    """Pairs of instances with their weights.

    Attributes:
        first: (N,) int64.
        second: (N,) int64, other instances than `first`.
        share: (N,) float32, lambda, the weight of the first.
    """

    first: Tensor
    second: Tensor
    share: Tensor

    def split(self) -> list[Mixes]:
        """Batches of them."""
        parts = (column.split(BATCH) for column in (self.first, self.second, self.share))
        return [Mixes(*batch) for batch in zip(*parts, strict=True)]

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """The mixes of tensors (N, ...): share first + (1 - share) second."""
        share = self.share.view(-1, *[1] * (first.dim() - 1))
        return torch.lerp(second, first, share)


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """KL(p_dyn || p_sta), in nats, over random mixes of two instances; p = softmax(logits / T).

    Dynamic: the mean logits of the teachers for the mixed image. Static: the stored logits, mixed,
    or where none are stored the teachers' for the instances as they are. The mixes are the same in
    all rows.

    Returns:
        value: KL at the first temperature without augmentation.
        values: augmented, temperature, kl (mean), standard_error, mixes.
        metadata: standard_error of the value; static ("stored" or "teachers").
    """
    samples = inputs.instances(job.device)
    mixes = draw(len(samples), recipe, job.generator("mixes"), job.device)

    def ensemble(images: Tensor) -> Tensor:
        return mean_logits(inputs.teachers, images)

    if inputs.stored is None:
        static = outputs(job, "static", ensemble, samples).to(job.device)
    else:
        static = inputs.stored.float()

    def measured(names: Augmentations) -> Tensor:
        stream = job.generator("augment")
        augment = _augmentation(samples, names, stream)

        def measure(part: Mixes) -> Tensor:
            return divergences(samples, static, [part], ensemble, recipe.temperatures, augment)

        name = f"divergence {'+'.join(names) or 'clean'}"
        file = "augmented" if names else "clean"
        parts = gathered(job, file, mixes.split(), measure, streams=[stream], label=name)
        return torch.cat(parts, 1)

    rows = []
    for names in dict.fromkeys([(), recipe.augment]):
        kl = measured(names)
        errors = kl.std(1, correction=0) / math.sqrt(max(1, recipe.mixes - 1))
        means = zip(recipe.temperatures, kl.mean(1).tolist(), errors.tolist(), strict=True)
        rows += [(bool(names), *mean, recipe.mixes) for mean in means]
    metadata = {
        "standard_error": rows[0][3],
        "static": "teachers" if inputs.stored is None else "stored",
    }
    return Result(rows[0][2], columns(COLUMNS, rows), metadata=metadata)


def _augmentation(
    samples: Samples, names: Augmentations, stream: Generator
) -> Callable[[Tensor], Tensor]:
    """Augments and normalises images in [0, 1]; `stream` goes on from batch to batch."""
    pipeline = normalising_pipeline(samples.normalise, names)
    return lambda images: pipeline(images, stream)


def draw(size: int, recipe: Recipe, generator: Generator, device: torch.device) -> Mixes:
    """Random pairs of different instances, each with a lambda of its own.

    Args:
        size: number of instances.
        recipe: `mixes` and `alpha`.
        generator: on the CPU.
        device: of what is returned.
    """
    first = torch.randint(size, (recipe.mixes,), generator=generator)
    # a shift by 1 .. size - 1 never meets `first` itself
    second = (first + torch.randint(1, size, (recipe.mixes,), generator=generator)) % size
    uniform = torch.rand(recipe.mixes, dtype=torch.float64, generator=generator)
    # torch's Beta takes no generator: lambda is drawn by the inverse of its distribution function
    share = torch.from_numpy(betaincinv(recipe.alpha, recipe.alpha, uniform.numpy())).float()
    return Mixes(*(column.to(device) for column in (first, second, share)))


@torch.no_grad()
def divergences(
    samples: Samples,
    static: Tensor,
    mixes: Iterable[Mixes],
    ensemble: Callable[[Tensor], Tensor],
    temperatures: Sequence[float],
    augment: Callable[[Tensor], Tensor],
) -> Tensor:
    """KL(p_dyn || p_sta) of each mix at each temperature.

    Args:
        samples: the instances.
        static: (instances, classes) logits.
        mixes: in batches.
        ensemble: from images (B, C, H, W), normalised, to logits (B, classes).
        temperatures: T of the softmax.
        augment: from images (B, C, H, W) in [0, 1] to those that the ensemble sees.

    Returns:
        (temperatures, N) float64 on the CPU.
    """
    batches = []
    for part in mixes:
        images = part.of(*(augment(samples.take(side)) for side in (part.first, part.second)))
        dynamic = ensemble(images).double()
        mixed = part.of(static[part.first], static[part.second]).double()
        kl = [_kl(dynamic / temperature, mixed / temperature) for temperature in temperatures]
        batches.append(torch.stack(kl))
    return torch.cat(batches, 1).cpu()


def _kl(dynamic: Tensor, static: Tensor) -> Tensor:
    dynamic_logs, static_logs = dynamic.log_softmax(1), static.log_softmax(1)
    return (dynamic_logs.exp() * (dynamic_logs - static_logs)).sum(1)
