"""The outer loop of the methods that learn a set by differentiating through a student's training: BPTT, RaT-BPTT, PoDD."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from distillery.errors import DistilleryError, PlanError
from distillery.nets.network import build_network
from distillery.sets.whitening import Whitening
from distillery.training.augment import pipeline
from distillery.training.samples import Samples
from distillery.unroll.network import Network
from distillery.unroll.window import Inner, batched_loss, gradients, run

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.methods.shared.recipes import Unrolled
    from distillery.store.job import Job
    from distillery.unroll.optimizers import Optimizer
    from distillery.unroll.window import Outer

CHECKPOINT, SNAPSHOTS, HISTORY = "meta.pt", "snapshots.safetensors", "meta.csv"
COLUMNS = ("meta_step", "loss", "norm", "limit", "window_start")
CHUNK = 500  # real images per pass of the outer loss: bounds its memory
CHECKPOINT_EVERY = 20  # meta-steps

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Learned:
    """A tensor that is learned: its start, float32 on the job's device, and its optimiser.

    images: whether it holds images (..., C, H, W), whose gradient is clipped, by the norm over all tensors that do, and which
    are stored as `Space.stored` says. least: floor of its values after an update.
    """

    start: Tensor
    optimizer: Optimizer
    images: bool = True
    least: float | None = None


@dataclass(frozen=True)
class Problem:
    """What a method learns.

    unfold: the learned tensors -> the images (N, C, h, w) and label probabilities (N, classes) that a student trains on,
    differentiable. draw: a generator -> indices (b,) int64 of one inner step. real: a meta-step -> indices (B,) int64 of the
    real images of the outer loss. window_start: a meta-step -> inner steps before the window. inner: optimiser of the student.
    """

    learned: dict[str, Learned]
    unfold: Callable[[Values], tuple[Tensor, Tensor]]
    draw: Callable[[Generator], Tensor]
    real: Callable[[int], Tensor]
    window_start: Callable[[int], int]
    inner: Optimizer


@dataclass(frozen=True)
class Space:
    """The space that images are learned in. real: the training images there. mean, std: what a pixel in [0, 1] is normalised
    by; 0 and 1 where the images are whitened. whitening: its digest, or None."""

    real: Samples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: str | None

    @classmethod
    def of(cls, train: ImageSet, job: Job) -> Space:
        """Whitened where the job has a whitening, otherwise normalised per channel by the data's mean and std."""
        if not job.find_input("whitening"):
            return cls(
                Samples.from_images(train, job.device), tuple(train.mean), tuple(train.std), None
            )
        whitening, channels = Whitening.load(job.input("whitening"), job.device), train.shape[0]
        real = Samples.from_images(train, job.device, whitening=whitening)
        return cls(real, (0.0,) * channels, (1.0,) * channels, whitening.digest)

    def stored(self, images: Tensor) -> Tensor:
        """Learned images (..., C, H, W) as a set stores them: pixels, that a student normalises again to what was learned. They
        may lie outside [0, 1]. Whitened ones stay as they are."""
        mean, std = (
            torch.tensor(values, device=images.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return images * std + mean


def passes(count: int, batch: int, job: Job) -> Callable[[int], Tensor]:
    """Real batches of a shuffled pass over `count` images, pass after pass, the last, smaller batch of each kept."""
    each = math.ceil(count / batch)

    def real(meta_step: int) -> Tensor:
        done, part = divmod(meta_step, each)
        return torch.randperm(count, generator=job.generator(f"real/{done}")).split(batch)[part]

    return real


def balanced(labels: Tensor, batch: int, classes: int, job: Job) -> Callable[[int], Tensor]:
    """Real batches of `batch` // `classes` (at least 1) images of each class, drawn anew at each meta-step."""
    members = [(labels == c).nonzero().flatten() for c in range(classes)]

    def real(meta_step: int) -> Tensor:
        stream, share = job.generator(f"real/{meta_step}"), max(1, batch // classes)
        return torch.cat([m[torch.randperm(len(m), generator=stream)[:share]] for m in members])

    return real


def window_starts(recipe: Unrolled, count: int, job: Job) -> Callable[[int], int]:
    """Inner steps before the window: uniform in 0..inner_steps - window, drawn once per pass over the `count` real images
    ("epoch") or per meta-step ("step"), or always inner_steps - window ("fixed"). Raises PlanError where the window is longer than
    the training."""
    if recipe.window > recipe.inner_steps:
        raise PlanError(
            f"window = {recipe.window}: is longer than inner_steps = {recipe.inner_steps}, all inner steps; raise inner_steps"
        )
    most, each = recipe.inner_steps - recipe.window, math.ceil(count / recipe.batch)
    if recipe.window_start == "fixed":
        return lambda meta_step: most

    def window_start(meta_step: int) -> int:
        draw = meta_step // each if recipe.window_start == "epoch" else meta_step
        return int(torch.randint(most + 1, (), generator=job.generator(f"offset/{draw}")))

    return window_start


def learn(problem: Problem, space: Space, classes: int, recipe: Unrolled, job: Job) -> Values:
    """The tensors of `problem` after recipe.meta_steps meta-steps, detached, on the CPU, images as `Space.stored` gives them.

    A meta-step trains a fresh student for `window_start` inner steps, differentiates through the next `window`, and takes one step of
    each tensor's optimiser on the student's mean cross-entropy on an augmented batch of real images, with hard labels. The norm
    of the clipped gradients is limited to recipe.clip, or to recipe.clip times its running mean (recipe.clip_decay, of
    unclipped norms, this step's included).

    Writes meta.csv (for each meta-step the outer loss before its update, the norm, the limit, the start of the window) and, for
    recipe.snapshots > 1, snapshots.safetensors: the same tensors after each of so many equal parts of the meta-steps, named
    "<meta-step>/<name>". Everything random follows from the job and the number of the meta-step, so that a run that
    is killed goes on from its last checkpoint to the same bits. Raises DistilleryError when the loss is not finite.
    """
    loop = _Loop(
        problem,
        space,
        Network(build_network(recipe.network, _shape(problem), classes)),
        recipe,
        job,
    )
    state = loop.resume()
    with job.progress(recipe.meta_steps, "meta-steps") as bar:
        bar.update(state.done)
        while state.done < recipe.meta_steps:
            loop.step(state)
            bar.set_postfix(loss=f"{state.history[-1][1]:.4f}", refresh=False)
            bar.update()
            if state.done % CHECKPOINT_EVERY == 0:
                state.save(job.scratch / CHECKPOINT)
    if recipe.snapshots > 1:
        save_file({name: t.cpu() for name, t in state.snapshots.items()}, job.out / SNAPSHOTS)
    with (job.out / HISTORY).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *state.history])
    return {name: value.cpu() for name, value in loop.stored(state).items()}


def _shape(problem: Problem) -> tuple[int, int, int]:
    images, _ = problem.unfold({name: tensor.start for name, tensor in problem.learned.items()})
    return tuple(images.shape[1:])


@dataclass
class _State:
    """The loop between two meta-steps. device: its type. moments: of each tensor's optimiser. running: mean of the norms, None
    at the start."""

    device: str
    values: Values
    moments: dict[str, tuple[Tensor, ...]]
    running: float | None = None
    history: list[tuple[int, float, float, float, int]] = field(default_factory=list)
    snapshots: Values = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.history)

    def on(self, device: torch.device) -> _State:
        """Itself on `device`. Raises ValueError when it was made on another kind."""
        if self.device != device.type:
            raise ValueError(self.device)
        self.values = {name: value.to(device) for name, value in self.values.items()}
        self.moments = {
            name: tuple(m.to(device) for m in moments) for name, moments in self.moments.items()
        }
        return self

    def save(self, file: Path) -> None:
        aside = file.with_suffix(".part")
        torch.save(vars(self), aside)
        os.replace(aside, file)


@dataclass(frozen=True)
class _Loop:
    problem: Problem
    space: Space
    network: Network
    recipe: Unrolled
    job: Job

    def resume(self) -> _State:
        """The state of the last checkpoint, or the start where there is no readable one, or one of another kind of device: half
        of a set from each could be made again on neither."""
        device = self.job.device
        try:
            kept = torch.load(self.job.scratch / CHECKPOINT, map_location="cpu", weights_only=True)
            return _State(**kept).on(device)
        except (OSError, RuntimeError, EOFError, TypeError, ValueError, UnpicklingError):
            values = {name: tensor.start.clone() for name, tensor in self.problem.learned.items()}
            moments = {
                name: self.problem.learned[name].optimizer.start(value)
                for name, value in values.items()
            }
            return _State(device.type, values, moments)

    def step(self, state: _State) -> None:
        """One meta-step."""
        number = state.done
        loss, slopes = self._slopes(state.values, number)
        clipped = [name for name, tensor in self.problem.learned.items() if tensor.images]
        norm = math.sqrt(sum(float(slopes[name].square().sum()) for name in clipped))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DistilleryError(
                f"meta-step {number + 1} of {self.recipe.meta_steps}: the loss is {loss}, the norm of its gradient {norm}; "
                f"lower lr or inner_lr in the recipe"
            )
        limit = self._limit(state, norm)
        for name, tensor in self.problem.learned.items():
            slope = (
                slopes[name] * min(1.0, limit / max(norm, 1e-12)) if tensor.images else slopes[name]
            )
            value, state.moments[name] = tensor.optimizer.step(
                state.values[name], state.moments[name], slope, number
            )
            state.values[name] = value if tensor.least is None else value.clamp(min=tensor.least)
        state.history.append((number + 1, loss, norm, limit, self.problem.window_start(number)))
        self._keep(state)

    def _limit(self, state: _State, norm: float) -> float:
        clip, decay = self.recipe.clip, self.recipe.clip_decay
        if self.recipe.clip_in == "units":
            return clip
        state.running = (
            norm if state.running is None else decay * state.running + (1 - decay) * norm
        )
        return clip * state.running

    def _keep(self, state: _State) -> None:
        parts, total = self.recipe.snapshots, self.recipe.meta_steps
        if parts > 1 and state.done in {total * (part + 1) // parts for part in range(parts)}:
            state.snapshots |= {
                f"{state.done}/{name}": value.clone() for name, value in self.stored(state).items()
            }

    def stored(self, state: _State) -> Values:
        """The tensors as they are written."""
        learned = self.problem.learned
        return {
            name: self.space.stored(value) if learned[name].images else value
            for name, value in state.values.items()
        }

    def _slopes(self, values: Values, number: int) -> tuple[float, Values]:
        """The outer loss of meta-step `number`, and its gradient for each tensor."""
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        images, labels = self.problem.unfold(leaves)
        seen, targets, inner = images.detach(), labels.detach(), self._inner(number)
        theta = self.network.initial(self.job.seed(f"network/{number}")).to(seen.device)
        first = self.problem.window_start(number)
        theta, moments = run(
            inner, theta, self.problem.inner.start(theta), seen, targets, range(first)
        )
        window = range(first, first + self.recipe.window)
        found = gradients(inner, theta, moments, seen, targets, window, self._outer(number))
        pairs = [
            (out, slope)
            for out, slope in ((images, found.images), (labels, found.labels))
            if out.requires_grad
        ]
        outs, slopes = zip(*pairs, strict=True)
        return float(found.loss), dict(
            zip(leaves, torch.autograd.grad(outs, list(leaves.values()), slopes), strict=True)
        )

    def _inner(self, number: int) -> Inner:
        augment = pipeline(self.recipe.augment)

        def batch(step: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            indices = self.problem.draw(self.job.generator(f"inner/{number}/{step}"))
            again = lambda images: augment(images, self.job.generator(f"augment/{number}/{step}"))  # noqa: E731
            return indices.to(self.job.device), again

        return Inner(network=self.network, optimizer=self.problem.inner, batch=batch)

    def _outer(self, number: int) -> Outer:
        real = self.space.real
        indices = self.problem.real(number).to(real.device)
        images = pipeline(self.recipe.augment)(
            real.normalise(real.take(indices)), self.job.generator(f"outer/{number}")
        )
        return batched_loss(self.network, images, real.labels[indices], CHUNK)


def every(count: int) -> Callable[[Generator], Tensor]:
    """All `count` images at each inner step."""
    return lambda stream: torch.arange(count)


def some(count: int, size: int) -> Callable[[Generator], Tensor]:
    """`size` of `count` images at each inner step, drawn without replacement."""
    return lambda stream: torch.randperm(count, generator=stream)[:size].sort().values


def by_class(classes: int, ipc: int, step_ipc: int, chosen: int) -> Callable[[Generator], Tensor]:
    """At each inner step `step_ipc` of the `ipc` images of `chosen` random classes; images stand class by class."""

    def draw(stream: Generator) -> Tensor:
        rows = torch.randperm(classes, generator=stream)[:chosen].sort().values
        columns = torch.stack([torch.randperm(ipc, generator=stream)[:step_ipc] for _ in rows])
        return (rows[:, None] * ipc + columns).flatten()

    return draw


def snapshots(folder: Path) -> Mapping[int, Values]:
    """The tensors that `learn` kept in an artefact, by meta-step, ascending."""
    from safetensors.torch import load_file

    found: dict[int, Values] = {}
    for key, value in load_file(folder / SNAPSHOTS).items():
        step, _, name = key.partition("/")
        found.setdefault(int(step), {})[name] = value
    return dict(sorted(found.items()))
