"""Seconds and device memory of the project's loops, beside plain loops of the same mathematics.

The project's side is what a job calls: `distill` of a method, the training loop, `make` of stored
labels. A time is that of many units less that of few, over the units between, so that what a job
does once does not count; the median of rounds in which the sides take turns. Networks are fresh and
images random, which changes no time. The plain loop in float32 is the 1 of the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import plain
import torch
from record import Row, Step
from torch import Tensor, nn
from tqdm import tqdm

from distillery.components import registry
from distillery.components.fields import read
from distillery.labels import fkd
from distillery.losses import kl
from distillery.losses.target import Target
from distillery.nets.network import build_network
from distillery.sets.distilled import Instances
from distillery.store.canonical import class_order_hash
from distillery.store.job import Job
from distillery.teacher.ensemble import mean_logits
from distillery.teacher.load import Teacher
from distillery.training.batches import Batch
from distillery.training.loop import initialise, train
from distillery.training.recipe import Training
from distillery.training.samples import Samples

PLAIN, ANY_ORDER = "plain loop", "not deterministic"  # parts of the names of sides
CONVNET = {"name": "convnet", "norm": "batch"}
MANY = 11  # images per class, where several compensators stand side by side
POSTER = {"name": "convnet", "norm": "instance"}
# Recipe fields that change speed alone, measured where the project has them.
FASTER: dict[str, tuple[dict[str, Any], ...]] = {
    "infer": ({"parallel_groups": 10}, {"precision": "bf16"}),
    "podd": ({"layers": "explicit"}, {"layers": "explicit", "graph_gb": 40.0}),
    "rat-bptt": ({"layers": "explicit"}, {"layers": "explicit", "graph_gb": 40.0}),
}

RUNS = {"compensator": (5, 30), "meta-step": (1, 3), "student": (2, 12), "labels": (1, 6)}


@dataclass(frozen=True)
class Sizes:
    """How large the work is; the defaults are those of the papers' CIFAR cells.

    Attributes:
        side: of the images in pixels.
        width: of the ConvNets.
        deep: the other network, by name.
        images: of a subset of INFER, one of each class.
        patches: columns and rows on a poster.
        window: differentiated inner steps.
        before: plain inner steps before them, the mean of 0 .. 140 in the papers.
        batch: real images of a meta-step.
        real: real images of each class.
        instances: that a student is trained on.
        runs: units of the shorter and of the longer run, by kind of work.
        rounds: of the sides in turns.
    """

    side: int = 32
    width: int = 128
    deep: str = "resnet18"
    images: int = 100
    patches: tuple[int, int] = (16, 6)
    window: int = 60
    before: int = 70
    batch: int = 5000
    real: int = 1000
    instances: int = 500
    runs: Mapping[str, tuple[int, int]] = field(default_factory=lambda: dict(RUNS))
    rounds: int = 3


TINY = Sizes(
    side=16,
    width=8,
    deep="wrn16_2",
    images=6,
    patches=(3, 2),
    window=2,
    before=1,
    batch=40,
    real=12,
    instances=40,
    runs={"compensator": (1, 3), "meta-step": (1, 2), "student": (1, 2), "labels": (1, 2)},
    rounds=1,
)


def steps(options: argparse.Namespace) -> list[Step]:
    """A step for each comparison, in order of worth."""
    sizes, device = TINY if options.tiny else Sizes(), torch.device(options.device)
    networks = {"convnet": CONVNET | {"width": sizes.width}, "deep": {"name": sizes.deep}}
    names = {"convnet": f"convnet{sizes.width}", "deep": sizes.deep}
    bench = Bench(sizes, device)
    found = [
        Step(f"compensator, {names[key]}", partial(bench.compensator, networks[key], names[key]))
        for key in ("deep", "convnet")
    ]
    found += [Step(f"meta-step, {name}", partial(bench.meta_step, name)) for name in UNROLLED]
    for kind in ("student", "labels"):
        work = getattr(bench, kind)
        found += [
            Step(f"{kind}, {names[key]}", partial(work, networks[key], names[key]))
            for key in ("deep", "convnet")
        ]
    return found


UNROLLED = ("podd", "rat-bptt")
Side = Callable[[int], object]  # does so many units


@dataclass(frozen=True)
class RandomImages:
    """Random images with the interface of `data.images.ImageSet`."""

    classes: tuple[str, ...]
    labels: Tensor
    images: Tensor
    mean: tuple[float, ...] = (0.5,) * 3
    std: tuple[float, ...] = (0.25,) * 3
    keeps_originals: bool = False
    resident: bool = True

    @classmethod
    def of(cls, classes: int, per_class: int, side: int) -> RandomImages:
        count, stream = classes * per_class, torch.Generator().manual_seed(0)
        shape = (count, 3, side, side)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream)
        names = tuple(f"class {label}" for label in range(classes))
        return cls(names, torch.arange(count) % classes, images)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    @property
    def class_order(self) -> str:
        return class_order_hash(list(self.classes))

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor) -> Tensor:
        return self.images[indices]

    def of_class(self, label: int) -> Tensor:
        return (self.labels == label).nonzero()[:, 0]


class QuietJob(Job):
    """Shows no progress."""

    def progress(self, work: Any, label: str) -> tqdm:
        return tqdm(total=work, disable=True)


@contextmanager
def sums_in_any_order(chosen: bool) -> Iterator[None]:
    """Let torch take operations that are not deterministic, as it does unless jobs forbid it."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0 if chosen else before)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


@contextmanager
def job_on(device: torch.device) -> Iterator[Job]:
    """A job that has made nothing yet, outside the store."""
    with tempfile.TemporaryDirectory() as folder:
        out, scratch = Path(folder) / "out", Path(folder) / "scratch"
        out.mkdir()
        scratch.mkdir()
        yield QuietJob({}, {}, out, scratch, "benchmark", "benchmark", device)


@dataclass(frozen=True)
class Bench:
    """Makes the comparisons, each a list of rows."""

    sizes: Sizes
    device: torch.device

    def compensator(self, network: Mapping[str, Any], name: str) -> list[Row]:
        """An iteration of one compensator (INFER) of a subset of one image of each class."""
        sizes, device = self.sizes, self.device
        train = RandomImages.of(sizes.images, MANY, sizes.side)
        teacher = self._teacher(network, train)
        images, labels = self._inputs(train, sizes.images), torch.arange(sizes.images).to(device)
        method = registry.load("method", "infer")

        def distill(fields: Mapping[str, Any], iterations: int) -> None:
            stated = {"teachers": ["net"], "iterations": iterations} | fields
            recipe = read(method.Recipe, stated)
            ipc = MANY if recipe.parallel_groups > 1 else 2  # ten subsets, or one
            with job_on(device) as job:
                method.distill(train, recipe, ipc=ipc, teachers=[teacher], job=job)

        def by_hand(bf16: bool, iterations: int) -> None:
            plain.compensator(teacher.model, images, labels, iterations, bf16)

        sides: dict[str, Side] = {
            PLAIN: partial(by_hand, False),
            f"{PLAIN}, bf16": partial(by_hand, True),
        }
        sides |= {side: partial(distill, fields) for side, fields in _ways("infer", method)}
        subsets = method.Recipe(("net",)).subsets(MANY, sizes.images)
        many = {side: subsets for side in sides if "parallel_groups" in side}
        return self._compare("compensator", f"{name}, {sizes.images} images", sides, many)

    def meta_step(self, name: str) -> list[Row]:
        """A meta-step of PoDD's patches, or of RaT-BPTT at one image of each of ten classes."""
        sizes, device = self.sizes, self.device
        train = RandomImages.of(10, sizes.real, sizes.side)
        network, method = POSTER | {"width": sizes.width}, registry.load("method", name)
        patches = {"patch_grid": list(sizes.patches), "order": "given", "labels": "fixed"}
        stated = {
            "network": network,
            "batch": sizes.batch,
            "window": sizes.window,
            "inner_steps": sizes.before + sizes.window,
            "window_start": "fixed",
            "whitening": "none",
        } | (patches if name == "podd" else {})
        count = sizes.patches[0] * sizes.patches[1] if name == "podd" else 10

        def distill(fields: Mapping[str, Any], meta_steps: int) -> None:
            recipe = read(method.Recipe, stated | {"meta_steps": meta_steps} | fields)
            with job_on(device) as job:
                method.distill(train, recipe, ipc=1, teachers=[], job=job)

        net = build_network(network, train.shape, 10).to(device)
        images = torch.randn(count, *train.shape, device=device)
        targets = torch.eye(10, device=device)[torch.arange(count) % 10]

        def by_hand(meta_steps: int) -> None:
            for _ in range(meta_steps):
                inputs = self._inputs(train, sizes.batch)
                real = plain.flip_or_rotate(inputs), train.labels[: sizes.batch].to(device)
                plain.meta_step(net, images, targets, real, sizes.before, sizes.window)

        sides: dict[str, Side] = {PLAIN: by_hand}
        sides |= {side: partial(distill, fields) for side, fields in _ways(name, method)}
        what = f"{name}, {count} images, {sizes.before} + {sizes.window} steps, real {sizes.batch}"
        return self._compare("meta-step", what, sides)

    def student(self, network: Mapping[str, Any], name: str) -> list[Row]:
        """An epoch of a student: KL, MixUp, batches of 64; stored labels and dynamic ones."""
        sizes, (train_set, instances, teachers) = self.sizes, self._studied(network)
        images, test = self._inputs(train_set, sizes.instances), RandomImages.of(10, 2, sizes.side)
        logits = torch.randn(sizes.instances, 10, device=self.device)
        models = [teacher.model for teacher in teachers]

        def by_hand(labels: Tensor | Sequence[nn.Module], bf16: bool, epochs: int) -> None:
            net = self._network(network, test)
            plain.student(net, images, labels, epochs, 64, bf16)

        def project(labels: Tensor | list[Teacher], bf16: bool, epochs: int) -> None:
            fields = _training(epochs) | {"precision": "bf16" if bf16 else "fp32"}
            samples = Samples.from_instances(instances, test.mean, test.std, self.device)
            with job_on(self.device) as job:
                train(
                    self._network(network, test),
                    samples,
                    read(Training, fields),
                    _divergence,
                    job,
                    test=Samples.from_images(test, self.device),
                    labeller=partial(_label, labels),
                )

        sides: dict[str, Side] = {}
        for bf16 in (False, True):
            end = ", bf16" if bf16 else ""
            sides[f"{PLAIN}{end}"] = partial(by_hand, logits, bf16)
            sides[f"project{end}"] = partial(project, logits, bf16)
        rows = self._compare("student", f"{name}, {sizes.instances} images, stored labels", sides)
        dynamic: dict[str, Side] = {
            PLAIN: partial(by_hand, models, False),
            "project": partial(project, teachers, False),
        }
        what = f"{name}, {sizes.instances} images, dynamic labels of 4 networks"
        return rows + self._compare("student", what, dynamic)

    def labels(self, network: Mapping[str, Any], name: str) -> list[Row]:
        """An epoch of labels that are stored for replay (FKD), of four networks."""
        sizes, (train_set, instances, teachers) = self.sizes, self._studied(network)
        images = self._inputs(train_set, sizes.instances)
        kept = ("epochs", "batch", "augment", "mix")

        def project(epochs: int) -> None:
            fields = {key: _training(epochs)[key] for key in kept}
            recipe = read(fkd.Recipe, fields | {"teachers": ["net"] * 4})
            known = {"mean": train_set.mean, "std": train_set.std}
            with job_on(self.device) as job:
                fkd.make(recipe, instances, teachers, job, **known)

        def by_hand(epochs: int) -> None:
            plain.relabel([teacher.model for teacher in teachers], images, epochs, 64)

        what = f"{name}, {sizes.instances} images, 4 networks"
        return self._compare("labels", what, {PLAIN: by_hand, "project": project})

    def _network(self, network: Mapping[str, Any], images: RandomImages) -> nn.Module:
        shape, classes = images.shape, len(images.classes)
        return initialise(lambda: build_network(network, shape, classes), 0).to(self.device)

    def _teacher(self, network: Mapping[str, Any], images: RandomImages) -> Teacher:
        """A fresh network whose running statistics have seen some of the images."""
        net = self._network(network, images)
        with torch.no_grad():
            for _ in range(20):
                net(self._inputs(images, 64))
        net.eval().requires_grad_(False)
        order = images.class_order
        return Teacher("net", net, images.mean, images.std, images.classes, order, 100.0)

    def _inputs(self, images: RandomImages, count: int) -> Tensor:
        return (images.images[:count].to(self.device).float() / 255 - 0.5) / 0.25

    def _studied(self, network: Mapping[str, Any]) -> tuple[RandomImages, Instances, list[Teacher]]:
        images = RandomImages.of(10, self.sizes.instances // 10, self.sizes.side)
        pixels = (images.images.float() / 255).to(self.device)
        instances = Instances(images.labels.to(self.device), pixels.__getitem__)
        return images, instances, [self._teacher(network, images) for _ in range(4)]

    def _compare(
        self,
        kind: str,
        what: str,
        sides: Mapping[str, Side],
        units: Mapping[str, int] | None = None,
    ) -> list[Row]:
        """A row for each side; `units`: of a side that does several at a time."""
        few, many = self.sizes.runs[kind]
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        peaks: dict[str, int] = {}
        errors: dict[str, str] = {}
        for turn in range(self.sizes.rounds + 1):  # the first warms up
            for side, run in sides.items():
                if side in errors:
                    continue
                try:
                    with sums_in_any_order(PLAIN in side or ANY_ORDER in side):
                        short, _ = self._timed(run, few)
                        long, peaks[side] = self._timed(run, many)
                except torch.OutOfMemoryError as error:
                    errors[side] = str(error).partition(chr(10))[0]
                    continue
                if turn:
                    count = (many - few) * (units or {}).get(side, 1)
                    seconds[side].append((long - short) / count)
        first, found = median(seconds[PLAIN]) if seconds[PLAIN] else None, []
        for side, times in seconds.items():
            value, peak = median(times) if times else None, peaks.get(side, 0) / 2**20 or None
            ratio = value / first if value is not None and first else None
            row = {"unit": kind, "what": what, "side": side, "rounds": len(times)}
            row |= {"seconds": value, "ratio": ratio, "peak_device_mib": peak}
            found.append(row | ({"error": errors[side]} if side in errors else {}))
        return found

    def _timed(self, run: Side, units: int) -> tuple[float, int]:
        """Seconds, and the most bytes that were allocated on the device."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        run(units)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() if cuda else 0


def _ways(name: str, method: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """How the project does a method: by default, and with each set of fields that it has."""
    yield "project", {}
    yield f"project, {ANY_ORDER}", {}
    for fields in FASTER[name]:
        if fields.keys() <= method.Recipe.__dataclass_fields__.keys():
            stated = ", ".join(f"{key} {value}" for key, value in fields.items())
            yield f"project, {stated}", fields


def _training(epochs: int) -> dict[str, Any]:
    mix = {"name": "mixup", "alpha": 0.8}
    kept = {"epochs": epochs, "batch": 64, "test_every": epochs}
    return kept | {"augment": ["crop:4", "flip"], "mix": mix}


def _divergence(logits: Tensor, target: Target) -> Tensor:
    return kl.loss(logits, target, kl.Recipe())


def _label(labels: Tensor | list[Teacher], batch: Batch) -> Tensor:
    if isinstance(labels, Tensor):
        return batch.mixing.labels(labels[batch.indices])
    return mean_logits(labels, batch.images)
