"""Recipe fields that several methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillery.components.fields import (
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    Precision,
    Quality,
)
from distillery.training.recipe import NormalisedAugmentations


@dataclass(frozen=True)
class Recovery:
    """Recovery of images from noise; the defaults are those of SRe2L's code for CIFAR-100.

    Attributes:
        teachers: network names; the first recovers.
        iterations: steps per batch.
        lr: of Adam, falling as a cosine to 0.
        betas: of Adam.
        r_bn: weight of the BN loss.
        first_bn_weight: weight of the first layer within it.
        augment: names of training.augment.
        batch: classes per batch, one image of each; the feature statistics are the batch's.
        micro_batch: images of a batch per forward pass (None: all): the same gradient for less
            memory.
        parallel_groups: batches optimised side by side: the same result up to rounding.
        jpeg: quality of the JPEG files that are stored, 75 in the authors' code; None stores
            without loss.
        precision: of the teacher's passes: "fp32", or "bf16" under autocast. Images, statistics,
            losses and Adam are float32 all the same.
    """

    teachers: tuple[str, ...]
    iterations: Count = 1000
    lr: Positive = 0.25
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    r_bn: NonNegative = 0.01
    first_bn_weight: NonNegative = 10.0
    augment: NormalisedAugmentations = ("roll:4",)
    batch: Count = 100
    micro_batch: Count | None = None
    parallel_groups: Count = 1
    jpeg: Quality | None = None
    precision: Precision = "fp32"

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one image through each teacher, a backward pass counting as two.

        Micro-batches take one more forward pass (`recovery.TeacherObjective`).
        """
        return ipc * classes * self.iterations * (4 if self.micro_batch else 3)

    def at_once(self, ipc: float, classes: int) -> tuple[float, float]:
        """Images that go through the teacher together: with gradients, and without."""
        groups = min(self.parallel_groups, ipc)
        return groups * min(self.micro_batch or self.batch, self.batch, classes), 0

    @property
    def reads_images(self) -> bool:
        """Whether the real images are looked at: no, only what is known of them."""
        return False

    @property
    def matched(self) -> tuple[str, ...]:
        """The teachers whose batch normalisation is matched."""
        return self.teachers[:1] if self.r_bn else ()


@dataclass(frozen=True)
class Unrolled:
    """Learning by differentiating through a student's training.

    The defaults are RaT-BPTT's for CIFAR-10, with PoDD's number of meta-steps.

    Deviation: RaT-BPTT's commands ask for 60,000 passes over the data, 600,000 meta-steps on
    CIFAR-10, of which they keep the state with the best accuracy on the test set; here it takes as
    many meta-steps as the poster beside it, a fifteenth.

    Attributes:
        network: the student of the inner loop, an entry of `networks`; a job finds the network
            itself.
        meta_steps: updates of the set.
        batch: real images of an outer loss.
        window: inner steps that are differentiated.
        inner_steps: inner steps at most, those before the window included.
        window_start: when the number of steps before the window is drawn: at each pass over the
            real images ("epoch"), at each meta-step ("step"), or never ("fixed": always
            inner_steps - window).
        lr: learning rate of the set.
        inner_lr: learning rate of the student.
        clip: limit of the gradient's norm.
        clip_in: what clip counts: running means of the norm, or units of it.
        clip_decay: decay of the running mean.
        augment: names of training.augment, for the set and the real images, drawn apart.
        whitening: an entry of `whiten`; "none" normalises per channel.
        snapshots: states of the set that are kept on the way, for a curve of accuracies.
        layers: of the student, "torch", or "explicit", whose second derivative is written out
            (`unroll.layers`): faster, equal to rounding.
        graph_gb: memory in GB for graphs of the window's steps; those that it does not hold are
            made again for their derivative. The set has the same bits. It goes with "explicit":
            torch's norm has another first derivative in a graph, equal to rounding.
    """

    network: str | dict[str, Any] = "convnet"
    meta_steps: Count = 40000
    batch: Count = 5000
    window: Count = 60
    inner_steps: Count = 200
    window_start: Literal["epoch", "step", "fixed"] = "epoch"
    lr: Positive = 1e-3
    inner_lr: Positive = 1e-3
    clip: Positive = 2.0
    clip_in: Literal["running means", "units"] = "running means"
    clip_decay: Fraction = 0.9
    augment: NormalisedAugmentations = ("dsa:flip-rotate",)
    whitening: str = "zca"
    snapshots: Count = 1
    layers: Literal["torch", "explicit"] = "torch"
    graph_gb: NonNegative = 0.0

    def mistake(self) -> tuple[str, str] | None:
        """The field that does not go with another one, and why; None where all is well."""
        if self.window > self.inner_steps:
            why = f"is longer than inner_steps = {self.inner_steps}, the whole training"
            return "window", f"{self.window}: {why}; raise inner_steps or lower window"
        if self.graph_gb and self.layers == "torch":
            return "graph_gb", f"{self.graph_gb:g}: needs layers = 'explicit'; set that, or 0"
        return None

    @property
    def stateless(self) -> bool:
        """Its network has no state but its weights: training is differentiated through."""
        return True

    @property
    def soft(self) -> bool:
        """Whether the set holds soft labels of its own."""
        return False

    def work(self, ipc: float, classes: int) -> float:
        """Forward passes of one image through the network, a backward pass counting as two.

        Measured: a plain inner step costs 3 of them per image, a differentiated one 12.3.
        """
        plain = (self.inner_steps - self.window) * (1.0 if self.window_start == "fixed" else 0.5)
        per_image = 3 * plain + 12.3 * self.window
        return self.meta_steps * (self.images_per_step(ipc, classes) * per_image + 3 * self.batch)

    def stored_bytes(self, ipc: float, classes: int, pixels: int) -> float:
        """Pixels and soft labels of four bytes (float32), and two for the place of a class."""
        images = ipc * classes
        return 4 * images * pixels + 4 * max(images, classes) * classes + 2 * classes

    def images_per_step(self, ipc: float, classes: int) -> float:
        """Images of an inner step."""
        return ipc * classes
