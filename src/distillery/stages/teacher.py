"""Train a teacher, or take published weights, and measure it on the data it will be asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from distillery.components import registry
from distillery.components.fields import read
from distillery.data.images import ImageSet, load_images
from distillery.errors import TeacherError
from distillery.nets.network import build_network, save_network
from distillery.teacher.class_order import check_order
from distillery.teacher.load import WEIGHTS_FILE, check_accuracy
from distillery.training.loop import History, initialise, percent, predictions, train
from distillery.training.recipe import Training
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Train the network of `job.recipe` on the data set and write weights.safetensors.

    recipe: network (component reference); training (a Training) and loss (component reference), both None when weights are
    given; weights: None, or the name of torchvision weights such as "ResNet18_Weights.IMAGENET1K_V1", measured and not
    trained. Returns the network, the classes in order with their hash, the normalisation, and accuracies in percent (last
    epoch, best as a diagnostic, curve).
    Raises ClassOrderError for weights that know the classes in another order, TeacherError for weights that do not fit and for
    a teacher that is near chance, however it came about.
    """
    data = job.input("data")
    sets = {split: load_images(data, split) for split in ("train", "test")}
    test = Samples.from_images(sets["test"], job.device)
    shape, classes = sets["train"].shape, len(sets["train"].classes)
    model = initialise(
        lambda: build_network(job.recipe["network"], shape, classes), job.seed("init")
    ).to(job.device)
    if job.recipe["weights"]:
        _published(model, job.recipe["weights"])
        answers = predictions(model, test)
        check_order(job.recipe["weights"], answers, test.labels, data.metadata["classes"])
        measured = History.of(percent(answers, test))
    else:
        measured = _train(model, sets["train"], test, job)
    check_accuracy(job.recipe["network"]["name"], measured.last, classes, f"data {data.id}")
    save_network(model, job.out / WEIGHTS_FILE)
    known = {key: data.metadata[key] for key in ("classes", "class_order", "shape", "mean", "std")}
    return {"network": job.recipe["network"], **known, **measured.metadata()}


def _train(model: torch.nn.Module, images: ImageSet, test: Samples, job: Job) -> History:
    loss, recipe = registry.build("loss", job.recipe["loss"])
    samples = Samples.from_images(images, job.device)
    return train(
        model,
        samples,
        read(Training, job.recipe["training"]),
        lambda z, t: loss.loss(z, t, recipe),
        job,
        test=test,
    )


def _published(model: torch.nn.Module, name: str) -> None:
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
