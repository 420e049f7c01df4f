"""Learn a set by differentiating through a student's training: BPTT, RaT-BPTT, PoDD.

This is the outer loop; a step of it is called a meta-step. `distillery.unroll` differentiates.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillery.errors import DistilleryError, PlanError
from distillery.methods.shared.snapshots import Snapshots, Values
from distillery.nets.network import build_network
from distillery.store.checkpoint import Checkpoint, same_form
from distillery.training.augment import pipeline
from distillery.unroll.network import FlatNetwork
from distillery.unroll.window import InnerTraining, batched_loss, meta_gradients, run_steps

if TYPE_CHECKING:
    from distillery.methods.shared.image_space import ImageSpace
    from distillery.methods.shared.meta_draws import DrawImages, DrawReal
    from distillery.methods.shared.recipes import Unrolled
    from distillery.store.job import Job
    from distillery.unroll.optimizers import FlatOptimizer, Moments
    from distillery.unroll.window import OuterLoss

CHECKPOINT, HISTORY = "meta", "meta.csv"
COLUMNS = ("meta_step", "loss", "norm", "limit", "window_start")
CHUNK = 500  # real images per pass of the outer loss: bounds its memory


@dataclass(frozen=True)
class LearnedTensor:
    """A tensor that is learned.

    Attributes:
        start: its first value, float32 on the job's device.
        optimizer: its optimiser.
        images: whether it holds images (..., C, H, W). Their gradient is clipped, by the norm over
            all tensors that do, and they are stored as `ImageSpace.stored` says.
        least: floor of its values after an update; None: none.
    """

    start: Tensor
    optimizer: FlatOptimizer
    images: bool = True
    least: float | None = None


@dataclass(frozen=True)
class MetaProblem:
    """What a method learns, and from what.

    Attributes:
        learned: the tensors by name.
        unfold: from the learned tensors to the images (N, C, h, w) and label probabilities
            (N, classes) that a student trains on; differentiable.
        draw: the images of an inner step.
        real: the real images of the outer loss.
        window_start: from a meta-step to the inner steps before its window.
        inner: the student's optimiser.
    """

    learned: dict[str, LearnedTensor]
    unfold: Callable[[Values], tuple[Tensor, Tensor]]
    draw: DrawImages
    real: DrawReal
    window_start: Callable[[int], int]
    inner: FlatOptimizer


def learn(
    problem: MetaProblem, space: ImageSpace, classes: int, recipe: Unrolled, job: Job
) -> Values:
    """Learn the tensors of a problem in recipe.meta_steps meta-steps.

    A meta-step trains a fresh student for `window_start` inner steps, differentiates through the
    next `window`, and takes one step of each tensor's optimiser on the student's mean cross-entropy
    on an augmented batch of real images, with hard labels. The norm of the clipped gradients is
    limited (`clip_limit`).

    Writes meta.csv: for each meta-step the outer loss before its update, the norm, the limit, the
    start of the window. For recipe.snapshots > 1 also snapshots.safetensors: the same tensors after
    each of so many equal parts of the meta-steps, named "<meta-step>/<name>". Everything random
    follows from the job and the number of the meta-step, so that a run that is killed goes on from
    its last checkpoint to the same bits.

    Args:
        problem: what is learned.
        space: where its images live.
        classes: how many the student tells apart.
        recipe: of the method.
        job: gives device, random streams and folders.

    Returns:
        The tensors, detached, on the CPU, images as `ImageSpace.stored` gives them.

    Raises:
        DistilleryError: the loss or its gradient is not finite.
    """
    if isinstance(recipe.network, str):
        raise PlanError(f"network = '{recipe.network}': a job needs the network, not its name")
    module = build_network(recipe.network, _image_shape(problem), classes)
    network = FlatNetwork(module, explicit=recipe.layers == "explicit")
    learner = MetaLearner(problem, space, network, recipe, job)
    checkpoint = Checkpoint(job, CHECKPOINT)
    snapshots = Snapshots(job, recipe.snapshots, recipe.meta_steps)
    state = learner.resume(checkpoint, snapshots)

    def saved() -> dict[str, Any]:
        snapshots.save()  # before the state that counts on them
        return vars(state)

    with job.progress(recipe.meta_steps, "meta-steps") as bar:
        bar.update(state.done)
        while state.done < recipe.meta_steps:
            learner.step(state)
            snapshots.offer(state.done, lambda: learner.stored(state))
            bar.set_postfix(loss=f"{state.history[-1][1]:.4f}", refresh=False)
            bar.update()
            checkpoint.offer(saved)
    snapshots.write()
    with (job.out / HISTORY).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *state.history])
    return {name: value.cpu() for name, value in learner.stored(state).items()}


def _image_shape(problem: MetaProblem) -> tuple[int, int, int]:
    images, _ = problem.unfold({name: tensor.start for name, tensor in problem.learned.items()})
    _, channels, height, width = images.shape
    return channels, height, width


@dataclass
class MetaState:
    """The outer loop between two meta-steps.

    Attributes:
        values: the learned tensors.
        moments: of each tensor's optimiser.
        running: running mean of the gradient's norm; None at the start.
        history: a row of `COLUMNS` for each meta-step.
    """

    values: Values
    moments: dict[str, Moments]
    running: float | None = None
    history: list[tuple[int, float, float, float, int]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Meta-steps made so far."""
        return len(self.history)

    def on(self, device: torch.device) -> MetaState:
        """Itself on `device`."""
        self.values = {name: value.to(device) for name, value in self.values.items()}
        self.moments = {
            name: tuple(m.to(device) for m in moments) for name, moments in self.moments.items()
        }
        return self

    def continued_by(self, stored: Mapping[str, Any]) -> bool:
        """Whether what a checkpoint holds is a later state of this one."""
        history = stored.get("history")
        return (
            stored.keys() == vars(self).keys()
            and same_form(stored["values"], self.values)
            and same_form(stored["moments"], self.moments)
            and isinstance(stored["running"], float | None)
            and isinstance(history, list)
            and all(isinstance(row, tuple) and len(row) == len(COLUMNS) for row in history)
        )


@dataclass(frozen=True)
class MetaLearner:
    """Makes meta-steps.

    Attributes:
        problem: what is learned.
        space: where its images live.
        network: the student.
        recipe: of the method.
        job: gives device, random streams and folders.
    """

    problem: MetaProblem
    space: ImageSpace
    network: FlatNetwork
    recipe: Unrolled
    job: Job

    def resume(self, checkpoint: Checkpoint, snapshots: Snapshots) -> MetaState:
        """The state of the last checkpoint, or, without a usable one, the start.

        The snapshots up to there are read, too; without one of them it is not usable.
        """
        values = {name: tensor.start.clone() for name, tensor in self.problem.learned.items()}
        moments = {
            name: tensor.optimizer.start(values[name])
            for name, tensor in self.problem.learned.items()
        }
        start = MetaState(values, moments)
        stored = checkpoint.load()
        if stored is None or not start.continued_by(stored):
            return start
        later = MetaState(**stored).on(self.job.device)
        return later if snapshots.load(later.done, self.stored(later)) else start

    def step(self, state: MetaState) -> None:
        """One meta-step, which changes `state`.

        Raises:
            DistilleryError: the loss or its gradient is not finite.
        """
        number = state.done
        loss, gradients = self.gradients(state.values, number)
        norm = self._clipped_norm(gradients)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DistilleryError(
                f"meta-step {number + 1} of {self.recipe.meta_steps}: the loss is {loss}, the norm "
                f"of its gradient {norm}; lower lr or inner_lr in the recipe"
            )
        limit, state.running = clip_limit(self.recipe, state.running, norm)
        scale = min(1.0, limit / max(norm, 1e-12))
        for name, tensor in self.problem.learned.items():
            gradient = gradients[name] * scale if tensor.images else gradients[name]
            value, state.moments[name] = tensor.optimizer.step(
                state.values[name], state.moments[name], gradient, number
            )
            state.values[name] = value if tensor.least is None else value.clamp(min=tensor.least)
        state.history.append((number + 1, loss, norm, limit, self.problem.window_start(number)))

    def _clipped_norm(self, gradients: Values) -> float:
        clipped = [name for name, tensor in self.problem.learned.items() if tensor.images]
        return math.sqrt(sum(float(gradients[name].square().sum()) for name in clipped))

    def stored(self, state: MetaState) -> Values:
        """The tensors as they are written."""
        learned = self.problem.learned
        return {
            name: self.space.stored(value) if learned[name].images else value
            for name, value in state.values.items()
        }

    def gradients(self, values: Values, number: int) -> tuple[float, Values]:
        """The outer loss of meta-step `number`, and its gradient by each tensor."""
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        images, labels = self.problem.unfold(leaves)
        data, inner = (images.detach(), labels.detach()), self._inner_training(number)
        theta = self.network.initial(self.job.seed(f"network/{number}")).to(images.device)
        first = self.problem.window_start(number)
        theta, moments = run_steps(
            inner, theta, self.problem.inner.start(theta), *data, range(first)
        )
        window = range(first, first + self.recipe.window)
        loss, graph_bytes = self._outer_loss(number), 1e9 * self.recipe.graph_gb
        outer = meta_gradients(inner, theta, moments, *data, window, loss, graph_bytes=graph_bytes)
        # From images and labels back to what is learned; labels may be fixed.
        unfolded = [
            (output, gradient)
            for output, gradient in ((images, outer.images), (labels, outer.labels))
            if output.requires_grad
        ]
        outputs, gradients = zip(*unfolded, strict=True)
        by_tensor = torch.autograd.grad(outputs, list(leaves.values()), gradients)
        return float(outer.loss), dict(zip(leaves, by_tensor, strict=True))

    def _inner_training(self, number: int) -> InnerTraining:
        transform = pipeline(self.recipe.augment)
        steps = range(self.problem.window_start(number) + self.recipe.window)
        streams = (self.job.generator(f"inner/{number}/{step}") for step in steps)
        # Of all steps at once: one copy to the device.
        drawn = torch.stack([self.problem.draw(s) for s in streams]).to(self.job.device)

        def batch(step: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            def augment(images: Tensor) -> Tensor:
                return transform(images, self.job.generator(f"augment/{number}/{step}"))

            return drawn[step], augment

        return InnerTraining(network=self.network, optimizer=self.problem.inner, batch=batch)

    def _outer_loss(self, number: int) -> OuterLoss:
        real = self.space.real
        indices = self.problem.real(number).to(real.device)
        images = pipeline(self.recipe.augment)(
            real.normalise(real.take(indices)), self.job.generator(f"outer/{number}")
        )
        return batched_loss(self.network, images, real.labels[indices], CHUNK)


def clip_limit(recipe: Unrolled, running: float | None, norm: float) -> tuple[float, float | None]:
    """The largest norm of a meta-step's gradient, and the new running mean of norms.

    The limit is recipe.clip, or recipe.clip times the running mean of unclipped norms, of decay
    recipe.clip_decay, this step's included.

    Args:
        recipe: of the method.
        running: the running mean so far; None before the first meta-step.
        norm: that of this meta-step's gradient.
    """
    if recipe.clip_in == "units":
        return recipe.clip, running
    decay = recipe.clip_decay
    running = norm if running is None else decay * running + (1 - decay) * norm
    return recipe.clip * running, running
