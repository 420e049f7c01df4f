"""Class-incremental learning with a distilled set as memory: GIFT's Figure 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from distillery.analyses.inputs import (
    Result,
    columns,
    needed,
)
from distillery.components import registry
from distillery.components.fields import Count
from distillery.errors import PlanError
from distillery.nets.network import build_network
from distillery.store.checkpoint import gathered
from distillery.training.loop import initialise, train
from distillery.training.protocol import evaluation_protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.sets.distilled import DistilledSet
    from distillery.store.job import Job
    from distillery.training.batches import Batch
    from distillery.training.loop import Labeller
    from distillery.training.protocol import EvaluationProtocol

NAMES = ("continual",)
TRAITS = {"needs": ("distilled", "protocol")}
COLUMNS = ("step", "classes_seen", "memory", "accuracy")


@dataclass(frozen=True)
class Recipe:
    """GIFT, Figure 2.

    Attributes:
        steps: the classes arrive in so many groups of equal size; the first ones are larger by a
            class where they do not divide.
        teacher_scope: which classes the teachers may have known. "all" rebuilds the paper, and
            leaks: labels of an early step come from networks that have seen the classes of later
            ones, and so do images that were recovered or chosen with a teacher; say so beside the
            curve. "seen", the honest setting, has no teachers to run with: it takes hard labels
            and a method without teachers alone.
        head: the student's outputs: "seen" has one for each class seen so far, "all" one for every
            class from the start, as DM's released script. Both are asked for the classes seen; with
            "all" the answer may be a class that has not come yet.
    """

    steps: Count = 5
    teacher_scope: Literal["all", "seen"] = "all"
    head: Literal["seen", "all"] = "seen"

    def misfit(
        self, method: Mapping[str, Any], per_class: float, classes: int | None
    ) -> str | None:
        """What is wrong with a set of this method, or None; the planner asks."""
        if classes is not None and self.steps >= classes:
            why = f"a step needs two classes to tell apart, there are {classes}"
            return f"steps = {self.steps}: {why}; ask for less"
        if self.teacher_scope == "seen" and method.get("teachers"):
            why = f"method '{method['name']}' has teachers, which have seen all classes"
            return f"teacher_scope = 'seen': {why}; set it to 'all'"
        return None


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test accuracy on the classes seen so far, after each step.

    GDumb (Prabhu et al. 2020) as DM evaluates it (Zhao and Bilen 2023). The classes arrive in a
    random order, one per student, the same for all rows. At each step the memory is the instances
    of the classes seen; a fresh student, with the outputs that `head` says, is trained on it by the
    protocol of the row. Where it has outputs for the classes seen alone, teacher logits, stored or
    not, lose the columns of the other classes before the loss sees them.

    Deviation: the paper shows curves and states no memory, order, recipe or scope.

    Returns:
        value: mean of the accuracies over the steps, percent.
        values: step, classes_seen, memory (instances), accuracy (percent, last epoch).
        arrays: order (classes,) int64, the labels as they arrive.

    Raises:
        PlanError: the first group would hold a single class, or teacher_scope is "seen" and there
            are teachers.
    """
    distilled = needed(inputs.distilled, "distilled")
    _check(len(inputs.classes), distilled, recipe, job)
    order = torch.randperm(len(inputs.classes), generator=job.generator("order"))
    course = _Course(
        evaluation_protocol(distilled, job, distilled.expand(job.device).soft),
        inputs.train.shape,
        inputs.instances(job.device),
        inputs.test_samples(job.device),
    )
    groups, everything = arrivals(order, recipe.steps), torch.arange(len(order))

    def learn(step: int) -> tuple[int, int, int, float]:
        streams, scratch = f"{job.streams}/step {step}", job.scratch / f"step-{step}"
        part = replace(job, streams=streams, scratch=scratch)
        seen = groups[step - 1]
        return step, *course.step(seen, everything if recipe.head == "all" else seen, part)

    steps = range(1, recipe.steps + 1)
    rows = gathered(job, "steps", steps, learn, label="continual")
    values = columns(COLUMNS, rows)
    value = sum(values["accuracy"]) / recipe.steps
    stated = {"teacher_scope": recipe.teacher_scope, "head": recipe.head}
    return Result(value, values, {"order": order}, stated)


def arrivals(order: Tensor, steps: int) -> list[Tensor]:
    """The classes seen after each step: int64, ascending.

    Args:
        order: (classes,) int64, the labels as they arrive.
        steps: number of groups.
    """
    groups = order.tensor_split(steps)
    return [torch.cat(groups[: step + 1]).sort().values for step in range(steps)]


def restricted(samples: Samples, seen: Tensor, outputs: Tensor) -> tuple[Samples, Tensor]:
    """The samples of some classes, with the labels of a student's outputs.

    Args:
        samples: of all classes.
        seen: (k,) int64, the classes.
        outputs: (n,) int64, the class of each output, ascending; all of `seen` are among them.

    Returns:
        The samples, with labels 0 .. n - 1, and where they stand in the given ones.
    """
    members = torch.isin(samples.labels, seen.to(samples.device)).nonzero().flatten()
    # `outputs` are ascending: the place of a label in them is its new label
    labels = torch.searchsorted(outputs.to(samples.device), samples.labels[members])
    restricted_samples = replace(
        samples, labels=labels, read=lambda indices: samples.read(members[indices])
    )
    return restricted_samples, members


def relabelled(labeller: Labeller, members: Tensor, outputs: Tensor) -> Labeller:
    """A labeller for some of the samples and classes of another one.

    Args:
        labeller: of all samples and classes.
        members: (N,) int64, where the samples of a batch stand among all samples.
        outputs: (n,) int64, the columns of the logits that are left.

    Returns:
        From a batch to logits (B, n), or None where there are none.
    """

    def label(batch: Batch) -> Tensor | None:
        logits = labeller(replace(batch, indices=members[batch.indices]))
        return None if logits is None else logits[:, outputs.to(logits.device)]

    return label


@dataclass(frozen=True)
class _Course:
    """What all steps share.

    Attributes:
        protocol: how students are trained.
        shape: (C, H, W) of the images.
        memory: the instances of all classes.
        test: the test images of all classes.
    """

    protocol: EvaluationProtocol
    shape: tuple[int, int, int]
    memory: Samples
    test: Samples

    def step(self, seen: Tensor, outputs: Tensor, job: Job) -> tuple[int, int, float]:
        """Classes seen, images in memory, and the accuracy (percent) of a student of them.

        Args:
            seen: (k,) int64, the classes so far.
            outputs: (n,) int64, ascending, the classes that the student can answer.
            job: gives recipe, streams and folders of this step.
        """
        samples, members = restricted(self.memory, seen, outputs)
        build = partial(build_network, job.recipe["student"], self.shape, len(outputs))
        history = train(
            initialise(build, job.seed("init")).to(job.device),
            samples,
            self.protocol.training,
            self.protocol.loss,
            job,
            test=restricted(self.test, seen, outputs)[0],
            labeller=relabelled(self.protocol.labeller, members, outputs),
        )
        return len(seen), len(samples), history.last


def _check(classes: int, distilled: DistilledSet, recipe: Recipe, job: Job) -> None:
    if recipe.steps >= classes:
        raise PlanError(
            f"continual.steps = {recipe.steps}: a step needs two classes to tell apart, there are "
            f"{classes}; ask for less"
        )
    needs = registry.trait(registry.load("method", distilled.method), "needs", ())
    taught = job.inputs_of("teachers") or job.find_input("label") or "teachers" in needs
    if recipe.teacher_scope == "seen" and taught:
        raise PlanError(
            "continual.teacher_scope = 'seen': no teacher was trained on the classes seen alone; "
            "set it to 'all', or take hard labels and a method without teachers"
        )
