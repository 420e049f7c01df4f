"""One training loop for teachers, experts and students."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from distillery.errors import DistilleryError
from distillery.losses.target import Target
from distillery.store.checkpoint import Checkpoint, gathered, same_form
from distillery.training.batches import ROLES, Batch, Batches, sizes
from distillery.training.optim import build_optimizer, factor, set_rate
from distillery.training.precision import autocast, set_memory_format
from distillery.training.recipe import Training
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from tqdm import tqdm

    from distillery.store.job import Job

CHECKPOINT = "training"

Loss = Callable[[Tensor, Target], Tensor]
Labeller = Callable[[Batch], Tensor | None]


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of a training, in percent of the test set.

    Attributes:
        last: after the last epoch; the headline.
        best: the highest that was measured; chosen on the test set, hence a diagnostic only.
        curve: pairs of an epoch, counted from 1, and the accuracy after it.
    """

    last: float
    best: float
    curve: list[tuple[int, float]]


@dataclass
class History:
    """How a training went.

    Attributes:
        accuracy: percent of the test set after each measured epoch, counted from 1.
        loss: mean over the samples, per epoch.
    """

    accuracy: dict[int, float] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, accuracy: float) -> History:
        """The history of a network that was measured (percent) and not trained."""
        return cls({0: accuracy})

    @property
    def last(self) -> float:
        """Accuracy after the last epoch: the headline."""
        return self.accuracy[max(self.accuracy)]

    @property
    def best(self) -> float:
        """The highest measured accuracy: chosen on the test set, hence a diagnostic only."""
        return max(self.accuracy.values())

    @property
    def accuracies(self) -> Accuracies:
        """The accuracies as meta.json has them."""
        return Accuracies(self.last, self.best, list(self.accuracy.items()))


def initialise(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """`build()` with torch's CPU generator seeded by `seed`, its state put back afterwards.

    Build on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


@torch.inference_mode()
def predictions(
    model: nn.Module,
    samples: Samples,
    batch: int = 512,
    job: Job | None = None,
    part: int = 0,
) -> Tensor:
    """The class that `model` puts first for each sample: (N,) int64, on the CPU.

    In float32 and eval mode; the model's mode is put back.

    Args:
        model: the network.
        samples: the images.
        batch: of them at a time.
        job: keeps what a killed job has found out in its scratch folder; None: nothing does.
        part: number of the epoch, where there are several.
    """
    parts = torch.arange(len(samples), device=samples.device).split(batch)
    take, numbers = samples.taking(parts), range(len(parts))

    def answers(number: int) -> Tensor:
        return model(samples.normalise(take(number))).argmax(1).cpu()

    training = model.training
    model.eval()
    found = (
        gathered(job, "predictions", numbers, answers, within=part)
        if job
        else list(map(answers, numbers))
    )
    model.train(training)
    return torch.cat(found)


def percent(answers: Tensor, samples: Samples) -> float:
    """Percent of the samples whose class is the one in `answers` (N,) int64."""
    return 100 * (answers.to(samples.device) == samples.labels).sum().item() / len(samples)


def accuracy(model: nn.Module, samples: Samples, batch: int = 512) -> float:
    """Percent of the samples whose class `model` puts first."""
    return percent(predictions(model, samples, batch), samples)


def train(
    model: nn.Module,
    samples: Samples,
    recipe: Training,
    loss: Loss,
    job: Job,
    *,
    test: Samples,
    labeller: Labeller | None = None,
    seeds: Mapping[str, int] | None = None,
) -> History:
    """Train `model` in place; return its losses and test accuracies.

    A step takes one of the epoch's batches, asks `labeller` for its logits, and minimises the loss.
    With bf16 the weights stay float32.
    Deviation: where recipe.micro_batch divides a step, the parts of the last, smaller batch of an
    epoch are weighted by their shares of that batch; SRe2L's code divides them by the number of
    parts of a full one, which shrinks that step.

    Now and then (`store.checkpoint.Pace`), everything needed to go on after a step is written to
    `job.scratch`; a call that finds such a file continues there and ends with the same bits. One
    call at a time per job.

    Args:
        model: a network on the device of `samples`.
        samples: the training set.
        recipe: batches, optimiser, schedule, precision.
        loss: from logits (B, classes) float32 and their target to a scalar, a mean over the batch.
        job: the random streams, the progress bar and the scratch folder.
        test: what accuracy is measured on.
        labeller: from a batch to logits (B, classes), or None where there are none.
        seeds: one for each of `batches.ROLES`, where the batches must be those of a label store;
            None: they follow from the job.

    Raises:
        DistilleryError: the loss is not finite; the message names the epoch.
    """
    generators = {
        role: Generator().manual_seed(seeds[role]) if seeds else job.generator(role)
        for role in ROLES
    }
    with torch.random.fork_rng(devices=[samples.device] if samples.device.type == "cuda" else []):
        generators |= _dropout(samples.device, job)
        run = _Run(
            model,
            samples,
            recipe,
            loss,
            labeller or _no_labels,
            build_optimizer(model, recipe.optimizer),
            generators,
        )
        _epochs(run, test, job)
    return run.history


def _no_labels(batch: Batch) -> None:
    return None


def _dropout(device: torch.device, job: Job) -> dict[str, Generator]:
    # Dropout has no generator argument: it draws from the device's default one, seeded here for the
    # length of the training.
    default = (
        torch.cuda.default_generators[device.index or 0]
        if device.type == "cuda"
        else torch.default_generator
    )
    return {"dropout": default.manual_seed(job.generator("dropout").initial_seed())}


def _epochs(run: _Run, test: Samples, job: Job) -> None:
    epochs, checkpoint = run.recipe.epochs, Checkpoint(job, CHECKPOINT)
    run.resume(checkpoint)
    with job.progress(epochs * len(run.batches), "train") as bar:
        bar.update(len(run.history.loss) * len(run.batches) + run.steps)
        while (epoch := len(run.history.loss) + 1) <= epochs:
            loss = run.epoch(bar, checkpoint)
            if epoch % run.recipe.test_every == 0 or epoch == epochs:
                answers = predictions(run.model, test, job=job, part=epoch)
                run.history.accuracy[epoch] = percent(answers, test)
            run.end_epoch(loss)
            checkpoint.offer(run.state)
    checkpoint.remove()


@dataclass
class _Run:
    """A training between two steps: what a step needs and what a checkpoint holds.

    `history` is of the finished epochs, `steps` counts those made in the next one, and `total` is
    the sum of the losses of their samples.
    """

    model: nn.Module
    samples: Samples
    recipe: Training
    loss: Loss
    labeller: Labeller
    optimizer: torch.optim.Optimizer
    generators: dict[str, Generator]
    history: History = field(default_factory=History)
    steps: int = 0

    def __post_init__(self) -> None:
        self.batches = Batches(self.samples, self.recipe, self.generators)
        self.bf16 = self.recipe.precision == "bf16"
        self.total = torch.zeros((), device=self.samples.device)
        self.permutation = self.generators["batches"].get_state()
        set_memory_format(self.model, self.samples.device, self.bf16)

    def epoch(self, bar: tqdm, checkpoint: Checkpoint) -> float:
        """Make the steps of an epoch that are left; the mean loss over its samples."""
        self.model.train()
        epoch = len(self.history.loss)
        share = factor(self.recipe.schedule, epoch, self.recipe.epochs)
        set_rate(self.optimizer, self.recipe.optimizer.lr * share)
        self.permutation = self.generators["batches"].get_state()
        for batch in self.batches.epoch(epoch, self.steps):
            self.total += self.step(batch) * len(batch)
            self.steps += 1
            bar.update()
            checkpoint.offer(self.state)
        # The only value read from the device in an epoch.
        mean = self.total.item() / len(self.samples)
        bar.set_postfix(loss=f"{mean:.4g}", refresh=False)
        if not math.isfinite(mean):
            raise DistilleryError(
                f"training diverged in epoch {epoch + 1} of {self.recipe.epochs}: the loss is "
                f"{mean}; lower optimizer.lr (now {self.recipe.optimizer.lr}) in the recipe"
            )
        return mean

    def end_epoch(self, loss: float) -> None:
        """Note the mean loss of the epoch; the next step is the first of another."""
        self.history.loss.append(loss)
        self.steps = 0
        self.total = torch.zeros_like(self.total)

    def step(self, batch: Batch) -> Tensor:
        """One step on a batch; the loss, detached.

        The gradient is the sum over the parts of the batch, each weighted by its share.
        """
        with autocast(self.samples.device, self.bf16):
            soft = self.labeller(batch)
        self.optimizer.zero_grad()
        total, position = torch.zeros((), device=self.samples.device), 0
        for size in sizes(len(batch), self.recipe.micro_batch or len(batch)):
            loss = self._loss(batch, soft, slice(position, position + size)) * (size / len(batch))
            loss.backward()
            total += loss.detach()
            position += size
        self.optimizer.step()
        return total

    def _loss(self, batch: Batch, soft: Tensor | None, part: slice) -> Tensor:
        with autocast(self.samples.device, self.bf16):
            logits = self.model(batch.images[part])
        logits = logits.float() if self.bf16 else logits
        hard = self.samples.labels[batch.indices]
        one_hot = logits.new_zeros(len(batch), logits.shape[1]).scatter_(1, hard[:, None], 1)
        mixed = batch.mixing.labels(one_hot)[part]
        soft = None if soft is None else soft[part].float()
        return self.loss(logits, Target(hard[part], mixed, soft, batch.epoch, batch.mixing.lam))

    def state(self) -> dict[str, Any]:
        """What the next steps follow from.

        Within an epoch the stream `batches` stands before the draw of its permutation.
        """
        streams = self._streams()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": streams | ({"batches": self.permutation} if self.steps else {}),
            "history": {"accuracy": self.history.accuracy, "loss": self.history.loss},
            "steps": self.steps,
            "total": self.total,
        }

    def _streams(self) -> dict[str, Tensor]:
        return {role: generator.get_state() for role, generator in self.generators.items()}

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; without a usable one start from nothing."""
        state = checkpoint.load()
        if state is None or not self._is_of_this_run(state):
            return
        before = copy.deepcopy(self.model.state_dict()), self.optimizer.state_dict()
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._check_optimizer()
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            self.model.load_state_dict(before[0])
            self.optimizer.load_state_dict(before[1])
            return
        for role, generator in self.generators.items():
            generator.set_state(state["generators"][role])
        self.history, self.steps = History(**state["history"]), state["steps"]
        self.total = state["total"].to(self.total.device)

    def _is_of_this_run(self, state: Mapping[str, Any]) -> bool:
        """Whether a state has the form that `save` gives it here."""
        history, steps = state.get("history"), state.get("steps")
        return (
            same_form(state.get("model"), self.model.state_dict())
            and same_form(state.get("generators"), self._streams())
            and same_form(state.get("total"), self.total)
            and isinstance(history, dict)
            and _is_history(history, self.recipe.epochs)
            and isinstance(steps, int)
            and 0 <= steps <= len(self.batches)
        )

    def _check_optimizer(self) -> None:
        """Raise ValueError when what the optimiser keeps of a parameter has another shape."""
        for parameter, kept in self.optimizer.state.items():
            for value in kept.values():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"shape {tuple(value.shape)}")


def _is_history(values: Mapping[str, Any], epochs: int) -> bool:
    accuracy, loss = values.get("accuracy"), values.get("loss")
    return (
        values.keys() == {"accuracy", "loss"}
        and isinstance(accuracy, dict)
        and all(isinstance(k, int) and isinstance(v, float) for k, v in accuracy.items())
        and isinstance(loss, list)
        and all(isinstance(value, float) for value in loss)
        and len(loss) <= epochs
    )
