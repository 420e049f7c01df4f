"""Train a teacher, or take published weights, and measure it on the data it will be asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from distillery import components
from distillery.data.images import ImageSet, load_images
from distillery.errors import TeacherError
from distillery.network import build_network
from distillery.recipe import read
from distillery.training.loop import History, accuracy, initialise, train
from distillery.training.recipe import Training
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.job import Job


def make(job: Job) -> dict[str, Any]:
    """Train the network of `job.recipe` on the data set and write weights.safetensors.

    recipe: network (component reference); training (a Training) and loss (component reference), both None when weights are
    given; weights: None, or the name of torchvision weights such as "ResNet18_Weights.IMAGENET1K_V1", measured and not
    trained. Returns the network, the classes in order with their hash, the normalisation, and accuracies in percent (last
    epoch, best as a diagnostic, curve).
    Raises TeacherError when the weights are for other classes.
    """
    data = job.inputs["data"]
    sets = {split: load_images(data, split) for split in ("train", "test")}
    test = Samples.from_images(sets["test"], job.device)
    shape, classes = sets["train"].shape, len(sets["train"].classes)
    model = initialise(lambda: build_network(job.recipe["network"], shape, classes), job.seed("init")).to(job.device)
    if job.recipe["weights"]:
        _published(model, job.recipe["weights"])
        measured = History.of(accuracy(model, test))
    else:
        measured = _train(model, sets["train"], test, job)
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, job.out / "weights.safetensors")
    known = {key: data.facts[key] for key in ("classes", "class_order", "shape", "mean", "std")}
    return {"network": job.recipe["network"], **known, **measured.facts()}


def _train(model: torch.nn.Module, images: ImageSet, test: Samples, job: Job) -> History:
    loss, recipe = components.build("loss", job.recipe["loss"])
    samples = Samples.from_images(images, job.device)
    return train(model, samples, read(Training, job.recipe["training"]), lambda z, t: loss.loss(z, t, recipe), job, test=test)


def _published(model: torch.nn.Module, name: str) -> None:
    from torchvision.models import get_weight

    try:
        model.load_state_dict(get_weight(name).get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        raise TeacherError(f"weights '{name}': cannot be fetched ({error}); put the file into torch's hub cache") from None
    except (RuntimeError, ValueError) as error:
        raise TeacherError(f"weights '{name}' do not fit the network or the classes: {error}") from None
