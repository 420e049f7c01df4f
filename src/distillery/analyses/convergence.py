"""Test accuracy against the meta-steps of a set that was learned step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.analyses.inputs import Result
from distillery.errors import PlanError
from distillery.methods.shared.meta import SNAPSHOTS, snapshots
from distillery.nets.network import build_network
from distillery.store.checkpoint import kept
from distillery.training.loop import initialise, train
from distillery.training.protocol import evaluation_protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.methods.shared.meta import Values
    from distillery.store.job import Job

NAMES = ("convergence",)
TRAITS = {"needs": ("distilled", "protocol")}


@dataclass(frozen=True)
class Recipe:
    """No fields; how many states there are says `snapshots` of the method."""


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test accuracy, in percent of the last epoch, of a fresh student of each kept state of the set; value: of the last state.

    The students are trained by the protocol of the row. values: meta_step, accuracy. Each finished student is kept in the
    job's scratch folder. Raises PlanError when the method kept no states.
    """
    folder = job.input("distilled").path
    if not (folder / SNAPSHOTS).is_file():
        raise PlanError(
            f"convergence: distilled set {folder.name} has one state only; set distill.snapshots to 2 or more"
        )
    states = snapshots(folder)
    found = [
        _accuracy(inputs, states[step], step, job)
        for step in job.progress(list(states), "convergence")
    ]
    return Result(found[-1], {"meta_step": list(states), "accuracy": found})


def _accuracy(inputs: AnalysisInputs, state: Values, step: int, job: Job) -> float:
    part = replace(
        job, key=f"{job.key}/meta-step {step}", scratch=job.scratch / f"meta-step-{step}"
    )
    part.scratch.mkdir(exist_ok=True)

    def learn() -> dict[str, Tensor]:
        distilled = inputs.distilled.with_tensors(state)
        instances, test = distilled.expand(job.device), inputs.test_samples(job.device)
        how, samples = (
            evaluation_protocol(distilled, part, instances.soft),
            Samples.from_instances(instances, inputs.mean, inputs.std, job.device),
        )
        build = partial(
            build_network, job.recipe["student"], inputs.train.shape, len(inputs.classes)
        )
        student = initialise(build, part.seed("init")).to(job.device)
        history = train(
            student, samples, how.training, how.loss, part, test=test, labeller=how.labeller
        )
        return {"accuracy": torch.tensor(history.last, dtype=torch.float64)}

    return kept(part.scratch / "accuracy.safetensors", learn)["accuracy"].item()
