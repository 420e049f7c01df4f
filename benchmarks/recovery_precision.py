"""What `precision: bf16` changes: gradients of recovery, and students of the images, on CIFAR-10.

Images are halved to 16 px. A ConvNet of width 32 is trained for a few epochs, recovers in both
precisions from the same random streams, and labels the students, who share theirs, too. DATA holds
train.parquet, test.parquet and classes.json, as a `parquet:` source has them.

python benchmarks/recovery_precision.py DATA [--draws 4 --epochs 2 --steps 100 --ipc 10
                                              --student-epochs 40]
python benchmarks/page.py
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
from records import keep
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cosine_similarity

from distillery.components import registry
from distillery.data.images import ImageSet
from distillery.methods.infer import Recipe
from distillery.methods.shared.recovery import TeacherObjective
from distillery.nets.network import build_network
from distillery.sets.distilled import DistilledSet
from distillery.store.job import Job, keep_freed_memory
from distillery.teacher.load import Teacher
from distillery.training.loop import Loss, initialise, train
from distillery.training.normalise import normalise
from distillery.training.recipe import Mix, Optimizer, Training
from distillery.training.samples import Samples

NETWORK = {"name": "convnet", "width": 32, "norm": "batch"}
SHAPE = (3, 16, 16)
PRECISIONS = ("fp32", "bf16")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
AUGMENT = ("crop:4", "flip")
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def job(folder: Path, key: str) -> Job:
    for name in ("out", "scratch"):
        (folder / key / name).mkdir(parents=True)
    places = {name: folder / key / name for name in ("out", "scratch")}
    device = torch.device("cpu")
    return Job(recipe={}, inputs={}, streams=key, key=key, device=device, **places)


class Halved(ImageSet):
    """CIFAR-10, the means of 2 x 2 pixels."""

    def __init__(self, data: Path, name: str) -> None:
        classes = json.loads((data / "classes.json").read_text())
        stated = {"classes": classes, "class_order": "", "mean": MEAN, "std": STD}
        super().__init__(data / f"{name}.parquet", stated | {"shape": (3, 32, 32)})
        whole = super().pixels(torch.arange(len(self)))
        parts = [avg_pool2d(part.float(), 2).round().byte() for part in whole.split(1000)]
        self.halved, self.shape = torch.cat(parts), SHAPE

    def pixels(self, indices: Tensor) -> Tensor:
        return self.halved[indices.cpu()]


def network(seed: int) -> nn.Module:
    return initialise(lambda: build_network(NETWORK, SHAPE, 10), seed)


def teach(train_set: ImageSet, test: Samples, folder: Path, epochs: int) -> Teacher:
    model, sgd = network(0), Optimizer("sgd", 0.1, weight_decay=5e-4)
    training = Training(epochs, 128, sgd, augment=AUGMENT, precision="bf16", test_every=epochs)
    samples, own = Samples.from_images(train_set, "cpu"), job(folder, "teacher")
    history = train(model, samples, training, loss_of({"name": "ce"}), own, test=test)
    model = model.float().eval().requires_grad_(False)
    return Teacher("convnet", model, MEAN, STD, train_set.classes, "", history.accuracy[epochs])


def gradients(teacher: Teacher, images: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    """Cosine and relative distance of bf16 gradients to those in float32."""
    of = {}
    for word in PRECISIONS:
        recipe, device = Recipe(("net",), precision=word), torch.device("cpu")
        objective = TeacherObjective.of(teacher, 1.0, recipe, SHAPE, device)
        of[word] = objective.gradient(images[None], labels)[2].flatten()
    exact, rounded = (of[word] for word in PRECISIONS)
    yield "image", float(cosine_similarity(exact, rounded, dim=0))
    summed = [of[word].view(len(images), -1).sum(0) for word in PRECISIONS]
    yield "compensator", float(cosine_similarity(*summed, dim=0))


def student(
    distilled: DistilledSet, teacher: Teacher, test: Samples, epochs: int, own: Job
) -> float:
    """Test accuracy in percent."""
    samples = Samples.from_instances(distilled.expand(), MEAN, STD, "cpu")
    training = Training(
        epochs, 64, Optimizer("adamw", 1e-3), augment=AUGMENT, mix=Mix("mixup"),
        precision="bf16", test_every=epochs,
    )  # fmt: skip
    labeller = torch.inference_mode()(lambda batch: teacher.model(batch.images))
    model = initialise(
        lambda: build_network(NETWORK, SHAPE, 10), own.generator("initial").initial_seed()
    )
    loss = loss_of({"name": "kl"})
    history = train(model, samples, training, loss, own, test=test, labeller=labeller)
    return history.accuracy[epochs]


def loss_of(reference: dict[str, str]) -> Loss:
    kind, recipe = registry.build("loss", reference)
    return lambda logits, target: kind.loss(logits, target, recipe)


def interval(values: list[float]) -> float:
    """Half the 95 % interval of the mean."""
    return T_95[len(values)] * stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    sizes = {"draws": 4, "epochs": 2, "steps": 100, "ipc": 10, "student_epochs": 40}
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    train_set, test = Halved(options.data, "train"), Halved(options.data, "test")
    test_samples = Samples.from_images(test, "cpu", mean=MEAN, std=STD)
    with tempfile.TemporaryDirectory() as folder:
        compare(options, train_set, test_samples, Path(folder))


def compare(options: argparse.Namespace, train_set: ImageSet, test: Samples, folder: Path) -> None:
    teacher = teach(train_set, test, folder, options.epochs)
    print(f"teacher {teacher.accuracy:.1f} %", flush=True)
    chosen = torch.arange(10).repeat_interleave(10) * 5000 + torch.arange(10).repeat(10)
    images = normalise(train_set.pixels(chosen).float() / 255, MEAN, STD)
    cosines = dict(gradients(teacher, images, train_set.labels[chosen]))
    print(cosines, flush=True)
    methods = {
        name: {"iterations": options.steps, "augment": ["roll:2"], "parallel_groups": 10}
        for name in ("infer", "sre2l")
    }
    found: dict[str, dict[str, list[float]]] = {m: {w: [] for w in PRECISIONS} for m in methods}
    for draw in range(options.draws):
        for name, fields in methods.items():
            for word in PRECISIONS:
                reference = {"name": name, "teachers": ["convnet"], **fields, "precision": word}
                method, recipe = registry.build("method", reference)
                # The key names the streams: both precisions draw the same.
                own = job(folder / word, f"{name}-{draw}")
                distilled = method.distill(
                    train_set, recipe, ipc=options.ipc, teachers=[teacher], job=own
                )
                learner = job(folder / word, f"student-{name}-{draw}")
                accuracy = student(distilled, teacher, test, options.student_epochs, learner)
                found[name][word].append(accuracy)
                print(draw, name, word, round(accuracy, 2), flush=True)
        if draw:
            text = about(options, draw + 1, teacher, cosines)
            keep("recovery-precision", text, COLUMNS, rows(found))


COLUMNS = {
    "method": "method",
    "fp32": "fp32, % (± 95 %)",
    "bf16": "bf16, % (± 95 %)",
    "gain": "bf16 - fp32, points (± 95 %)",
}


def rows(found: dict[str, dict[str, list[float]]]) -> list[dict[str, str]]:
    made = []
    for name, by_word in found.items():
        row = {"method": name}
        pairs = zip(by_word["bf16"], by_word["fp32"], strict=True)
        for key, values in {**by_word, "gain": [a - b for a, b in pairs]}.items():
            sign = "+" if key == "gain" else ""
            row[key] = f"{mean(values):{sign}.2f} ± {interval(values):.2f}"
        made.append(row)
    return made


def about(
    options: argparse.Namespace, draws: int, teacher: Teacher, cosines: dict[str, float]
) -> str:
    return (
        f"`python benchmarks/recovery_precision.py`: what `precision: bf16` changes on CIFAR-10 "
        f"(re-encoded as JPEG, halved to 16 px). Teacher and student: a ConvNet of width 32, the "
        f"teacher trained for {options.epochs} epochs ({teacher.accuracy:.1f} %). The gradient of "
        f"100 real images has cosine {cosines['image']:.5f} to float32's, that of one compensator "
        f"for all of them {cosines['compensator']:.5f}. Students of sets of ipc {options.ipc}, "
        f"{options.steps} steps of recovery, {options.student_epochs} epochs with the teacher's "
        f"labels; {draws} draws, in each of which both precisions draw the same."
    )


if __name__ == "__main__":
    main()
