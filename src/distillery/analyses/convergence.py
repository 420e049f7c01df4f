"""Test accuracy against the meta-steps of a set that was learned step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from distillery.analyses.inputs import Result, needed
from distillery.errors import PlanError
from distillery.methods.shared.snapshots import SNAPSHOTS, read_snapshots
from distillery.nets.network import build_network
from distillery.store.checkpoint import gathered
from distillery.training.loop import initialise, train
from distillery.training.protocol import evaluation_protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.methods.shared.snapshots import Values
    from distillery.store.job import Job

NAMES = ("convergence",)
TRAITS = {"needs": ("distilled", "protocol")}


@dataclass(frozen=True)
class Recipe:
    """No fields: the method's `snapshots` says how many states there are."""

    def misfit(
        self, method: Mapping[str, Any], per_class: float, classes: int | None
    ) -> str | None:
        """What is wrong with a set of this method, or None; the planner asks."""
        if method.get("snapshots", 1) > 1:
            return None
        return f"method '{method['name']}' keeps one state only; set its snapshots to 2 or more"


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test accuracy of a fresh student of each state of the set that its method stored.

    The students are trained by the protocol of the row.

    Returns:
        value: accuracy of the last state, percent.
        values: meta_step, accuracy (percent, last epoch).

    Raises:
        PlanError: the method stored one state only.
    """
    folder = job.input("distilled").path
    if not (folder / SNAPSHOTS).is_file():
        raise PlanError(
            f"convergence: distilled set {folder.name} has one state only; set distill.snapshots "
            "to 2 or more"
        )
    states = read_snapshots(folder)

    def measure(step: int) -> float:
        return _accuracy(inputs, states[step], step, job)

    accuracies = gathered(job, "students", list(states), measure, label="convergence")
    return Result(accuracies[-1], {"meta_step": list(states), "accuracy": accuracies})


def _accuracy(inputs: AnalysisInputs, state: Values, step: int, job: Job) -> float:
    """The accuracy of a student of the set as it was at a meta-step, percent."""
    # The same student at each meta-step, so that the curve shows the set alone.
    part = replace(job, scratch=job.scratch / f"meta-step-{step}")
    distilled = needed(inputs.distilled, "distilled").with_tensors(state)
    instances = distilled.expand(job.device)
    protocol = evaluation_protocol(distilled, part, instances.soft)
    shape, classes = inputs.train.shape, len(inputs.classes)
    build = partial(build_network, job.recipe["student"], shape, classes)
    history = train(
        initialise(build, part.seed("init")).to(job.device),
        Samples.from_instances(instances, inputs.mean, inputs.std, job.device),
        protocol.training,
        protocol.loss,
        part,
        test=inputs.test_samples(job.device),
        labeller=protocol.labeller,
    )
    return history.last
