"""Train a teacher, or take published weights, and measure it on the data it will be asked about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from distillery.components import registry
from distillery.components.fields import read
from distillery.components.registry import Reference
from distillery.data.images import ImageSet, load_images
from distillery.errors import TeacherError
from distillery.nets.network import build_network, save_network
from distillery.teacher.class_order import check_order
from distillery.teacher.load import WEIGHTS_FILE, check_accuracy
from distillery.training.loop import (
    Accuracies,
    History,
    initialise,
    percent,
    predictions,
    train,
)
from distillery.training.recipe import Training
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.components.contracts import LossModule
    from distillery.store.job import Job


@dataclass(frozen=True)
class TeacherRecipe:
    """The recipe of a teacher.

    Attributes:
        network: what is trained.
        training: batches, optimiser, schedule, precision; None when weights are given.
        loss: what is minimised; None when weights are given.
        weights: None, or the name of torchvision weights such as "ResNet18_Weights.IMAGENET1K_V1",
            which are measured and not trained.
    """

    network: Reference
    training: Training | None = None
    loss: Reference | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Measured:
    """What meta.json says about a teacher.

    Attributes:
        network: its reference.
        classes: names in label order.
        class_order: their hash.
        shape: (C, H, W) of the images.
        mean: per channel, of pixels in [0, 1]; what the images are normalised with.
        std: as `mean`.
        accuracy: on the test split.
        loss: of the training, per epoch.
    """

    network: Reference
    classes: list[str]
    class_order: str
    shape: list[int]
    mean: list[float]
    std: list[float]
    accuracy: Accuracies
    loss: list[float]


def make(job: Job) -> dict[str, Any]:
    """Train the network on the data set, or measure given weights, and write weights.safetensors.

    Args:
        job: its recipe is a `TeacherRecipe`, its input is data.

    Returns:
        The fields of `Measured`.

    Raises:
        ClassOrderError: the weights know the classes in another order.
        TeacherError: the weights do not fit, or the teacher is near chance, however it came about.
    """
    data, recipe = job.input("data"), read(TeacherRecipe, job.recipe)
    train_images = load_images(data, "train")
    test = Samples.from_images(load_images(data, "test"), job.device)
    shape, classes = train_images.shape, len(train_images.classes)
    model = initialise(lambda: build_network(recipe.network, shape, classes), job.seed("init")).to(
        job.device
    )
    if recipe.weights:
        _load_published(model, recipe.weights)
        answers = predictions(model, test, job=job)
        check_order(recipe.weights, answers, test.labels.cpu(), data.metadata["classes"])
        history = History.of(percent(answers, test))
    else:
        history = _train(model, train_images, test, recipe, job)
    check_accuracy(recipe.network["name"], history.last, classes, f"data {data.id}")
    save_network(model, job.out / WEIGHTS_FILE)
    known = {key: data.metadata[key] for key in ("classes", "class_order", "shape", "mean", "std")}
    return asdict(Measured(recipe.network, **known, accuracy=history.accuracies, loss=history.loss))


def _train(
    model: torch.nn.Module, images: ImageSet, test: Samples, recipe: TeacherRecipe, job: Job
) -> History:
    if recipe.training is None or recipe.loss is None:
        raise TeacherError("a teacher without weights needs a training and a loss; plan again")
    loss: LossModule
    loss, options = registry.build("loss", recipe.loss)
    return train(
        model,
        Samples.from_images(images, job.device),
        recipe.training,
        lambda logits, target: loss.loss(logits, target, options),
        job,
        test=test,
    )


def _load_published(model: torch.nn.Module, name: str) -> None:
    from torchvision.models import get_weight

    try:
        model.load_state_dict(get_weight(name).get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        raise TeacherError(
            f"weights '{name}': cannot be fetched ({error}); put the file into torch's hub cache"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise TeacherError(
            f"weights '{name}' do not fit the network or the classes: {error}"
        ) from None
