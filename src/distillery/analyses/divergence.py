"""How far static soft labels of mixed images are from what the teachers would say: INFER's Figure 9."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from distillery.analyses.inputs import BATCH, Result, outputs
from distillery.components.fields import Count, Positive
from distillery.labels.ensemble import mean_logits
from distillery.training.augment import normalising_pipeline
from distillery.training.recipe import Augmentations

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job
    from distillery.training.samples import Samples

NAMES = ("divergence",)
TRAITS = {"needs": ("distilled", "label", "teachers")}


@dataclass(frozen=True)
class Recipe:
    """teachers: network names, all label. temperatures: T of the softmax; the first one's is the headline. mixes: random pairs.
    alpha: lambda ~ Beta(alpha, alpha). augment: names of training.augment, in the second round, for the dynamic side alone.
    """

    teachers: tuple[str, ...]
    temperatures: tuple[Positive, ...] = (30.0, 1.0)
    mixes: Count = 10_000
    alpha: Positive = 0.8
    augment: Augmentations = ("crop:4", "flip")


@dataclass(frozen=True)
class Mixes:
    """first, second: (N,) int64, different instances. share: (N,) float32, lambda, that of the first."""

    first: Tensor
    second: Tensor
    share: Tensor

    def split(self) -> list[Mixes]:
        """Batches of them."""
        columns = (column.split(BATCH) for column in (self.first, self.second, self.share))
        return [Mixes(*parts) for parts in zip(*columns, strict=True)]

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """share first + (1 - share) second, for tensors (N, ...)."""
        share = self.share.view(-1, *[1] * (first.dim() - 1))
        return torch.lerp(second, first, share)


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """KL(p_dyn || p_sta), in nats, over random mixes of two instances; p = softmax(logits / T).

    Dynamic: the mean logits of the teachers for the mixed image. Static: the stored logits, mixed, or where none are stored
    the teachers' for the clean instances. values: augmented, temperature, kl (mean), standard_error, mixes; the same mixes in
    all rows. value: kl at the first temperature without augmentation. metadata: its standard error; static ("stored" or
    "teachers").
    """
    samples = inputs.instances(job.device)
    mixes = draw(len(samples), recipe, job.generator("mixes"), job.device)

    def ensemble(images: Tensor) -> Tensor:
        return mean_logits(inputs.teachers, images)

    stored = (
        outputs(ensemble, samples).to(job.device)
        if inputs.stored is None
        else inputs.stored.float()
    )
    rows = []
    for augment in dict.fromkeys([(), recipe.augment]):
        transform, stream = (
            normalising_pipeline(samples.normalise, augment),
            job.generator("augment"),
        )
        parts = job.progress(mixes.split(), f"divergence {'+'.join(augment) or 'clean'}")
        found = divergences(
            samples,
            stored,
            parts,
            ensemble,
            recipe.temperatures,
            lambda x, f=transform, g=stream: f(x, g),
        )
        errors = found.std(1, correction=0) / math.sqrt(max(1, recipe.mixes - 1))
        for temperature, kl, error in zip(
            recipe.temperatures, found.mean(1).tolist(), errors.tolist(), strict=True
        ):
            rows.append((bool(augment), temperature, kl, error, recipe.mixes))
    columns = ("augmented", "temperature", "kl", "standard_error", "mixes")
    values = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    metadata = {
        "standard_error": rows[0][3],
        "static": "teachers" if inputs.stored is None else "stored",
    }
    return Result(rows[0][2], values, metadata=metadata)


def draw(size: int, recipe: Recipe, generator: Generator, device: torch.device) -> Mixes:
    """recipe.mixes pairs of different instances among `size`, each with a lambda of its own."""
    first = torch.randint(size, (recipe.mixes,), generator=generator)
    second = (first + torch.randint(1, size, (recipe.mixes,), generator=generator)) % size
    uniform = torch.rand(recipe.mixes, dtype=torch.float64, generator=generator)
    share = torch.from_numpy(betaincinv(recipe.alpha, recipe.alpha, uniform.numpy())).float()
    return Mixes(*(column.to(device) for column in (first, second, share)))


@torch.no_grad()
def divergences(
    samples: Samples,
    stored: Tensor,
    mixes: Sequence[Mixes],
    ensemble: Callable[[Tensor], Tensor],
    temperatures: Sequence[float],
    augment: Callable[[Tensor], Tensor],
) -> Tensor:
    """KL(p_dyn || p_sta) of each mix at each temperature: (temperatures, N) float64, CPU. stored: (instances, classes)."""
    found = []
    for part in mixes:
        images = part.of(*(augment(samples.take(side)) for side in (part.first, part.second)))
        dynamic = ensemble(images).double()
        static = part.of(stored[part.first], stored[part.second]).double()
        found.append(
            torch.stack(
                [_kl(dynamic / temperature, static / temperature) for temperature in temperatures]
            )
        )
    return torch.cat(found, 1).cpu()


def _kl(dynamic: Tensor, static: Tensor) -> Tensor:
    logs, others = dynamic.log_softmax(1), static.log_softmax(1)
    return (logs.exp() * (logs - others)).sum(1)
