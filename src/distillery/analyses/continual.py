"""Class-incremental learning with a distilled set as memory: GIFT's Figure 2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distillery.analyses.inputs import Result, fixed_generator
from distillery.components import registry
from distillery.components.fields import Count
from distillery.errors import PlanError
from distillery.nets.network import build_network
from distillery.store.checkpoint import kept
from distillery.training.loop import initialise, train
from distillery.training.protocol import evaluation_protocol
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.analyses.inputs import AnalysisInputs
    from distillery.store.job import Job
    from distillery.training.batches import Batch
    from distillery.training.loop import Labeller
    from distillery.training.protocol import EvaluationProtocol

NAMES = ("continual",)
TRAITS = {"needs": ("distilled", "protocol")}
COLUMNS = ("step", "classes_seen", "memory", "accuracy")


@dataclass(frozen=True)
class Recipe:
    """steps: the classes arrive in so many groups of equal size (the first ones larger by a class where they do not divide).

    teacher_scope: which classes the teachers may have known. "all" rebuilds the paper, and leaks: labels of an early step come
    from networks that have seen the classes of later ones, and so do images that were recovered or chosen with a teacher; say
    so beside the curve. "seen", the honest setting, has no teachers to run with and so takes hard labels and a method without
    teachers alone.
    """

    steps: Count = 5
    teacher_scope: Literal["all", "seen"] = "all"


def analyse(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> Result:
    """Test accuracy, in percent of the last epoch, on the classes seen so far, after each step; value: its mean over the steps.

    GDumb (Prabhu et al. 2020) as DM evaluates it (Zhao and Bilen 2023). The classes arrive in a random order, one per repeat
    and the same for all rows. At each step the memory is the instances of the classes seen; a fresh student, with an output for
    each of them, is trained on it by the protocol of the row. Teacher logits, stored or not, lose the columns of the other
    classes before the loss sees them. values: step, classes_seen, memory (instances), accuracy. arrays: order (classes,) int64,
    labels as they arrive. Each finished step is kept in the job's scratch folder.

    Deviation: the paper shows curves and states no memory, order, recipe or scope.
    Raises PlanError when the first group would hold a single class, and for teacher_scope "seen" where there are teachers.
    """
    _check(inputs, recipe, job)
    order = torch.randperm(
        len(inputs.classes), generator=fixed_generator(f"continual/{job.recipe['repeat']}")
    )
    course = _Course(
        evaluation_protocol(inputs.distilled, job, inputs.distilled.expand(job.device).soft),
        inputs.train.shape,
        inputs.instances(job.device),
        inputs.test_samples(job.device),
    )
    rows = []
    for step, seen in enumerate(job.progress(arrivals(order, recipe.steps), "continual"), 1):
        part = replace(job, key=f"{job.key}/step {step}", scratch=job.scratch / f"step-{step}")
        rows.append((step, *course.step(seen, part)))
    values = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    value = sum(values["accuracy"]) / recipe.steps
    return Result(value, values, {"order": order}, {"teacher_scope": recipe.teacher_scope})


def arrivals(order: Tensor, steps: int) -> list[Tensor]:
    """The classes seen after each step, int64, ascending: the first groups of `order` (classes,)."""
    groups = order.tensor_split(steps)
    return [torch.cat(groups[: step + 1]).sort().values for step in range(steps)]


def restricted(samples: Samples, seen: Tensor) -> tuple[Samples, Tensor]:
    """The samples of the classes `seen` (k,) int64, ascending, with labels 0 .. k - 1, and where they stand in `samples`."""
    seen = seen.to(samples.device)
    members = torch.isin(samples.labels, seen).nonzero().flatten()
    labels = torch.searchsorted(seen, samples.labels[members])
    return replace(
        samples, labels=labels, read=lambda indices: samples.read(members[indices])
    ), members


def relabelled(labeller: Labeller, members: Tensor, seen: Tensor) -> Labeller:
    """`labeller` for batches whose samples are `members` of its own, with the columns `seen` of its logits: (B, k) or None."""

    def label(batch: Batch) -> Tensor | None:
        logits = labeller(replace(batch, indices=members[batch.indices]))
        return None if logits is None else logits[:, seen.to(logits.device)]

    return label


@dataclass(frozen=True)
class _Course:
    """What all steps share. shape: (C, H, W). memory, test: of all classes."""

    how: EvaluationProtocol
    shape: tuple[int, int, int]
    memory: Samples
    test: Samples

    def step(self, seen: Tensor, job: Job) -> tuple[int, int, float]:
        """Classes seen, images in memory, and the accuracy (percent) of a student of them, kept in the job's scratch folder."""
        samples, members = restricted(self.memory, seen)
        job.scratch.mkdir(exist_ok=True)

        def learn() -> dict[str, Tensor]:
            build = partial(build_network, job.recipe["student"], self.shape, len(seen))
            student = initialise(build, job.seed("init")).to(job.device)
            test, labeller = (
                restricted(self.test, seen)[0],
                relabelled(self.how.labeller, members, seen),
            )
            history = train(
                student,
                samples,
                self.how.training,
                self.how.loss,
                job,
                test=test,
                labeller=labeller,
            )
            return {"accuracy": torch.tensor(history.last, dtype=torch.float64)}

        return (
            len(seen),
            len(samples),
            kept(job.scratch / "accuracy.safetensors", learn)["accuracy"].item(),
        )


def _check(inputs: AnalysisInputs, recipe: Recipe, job: Job) -> None:
    classes = len(inputs.classes)
    if recipe.steps >= classes:
        raise PlanError(
            f"continual.steps = {recipe.steps}: a step needs two classes to tell apart, there are {classes}; ask for less"
        )
    method = registry.load("method", inputs.distilled.method)
    taught = (
        job.inputs_of("teachers")
        or job.find_input("label")
        or "teachers" in registry.trait(method, "needs", ())
    )
    if recipe.teacher_scope == "seen" and taught:
        raise PlanError(
            "continual.teacher_scope = 'seen': no teacher was trained on the classes seen alone; set it to 'all', or take hard "
            "labels and a method without teachers"
        )
