"""Batched augmentation of images (B, C, H, W) float on any device, differentiable in the images.

Random numbers come from a CPU generator, so that every device sees the same crops. "batch-"
variants draw once for the whole batch, which is what the distillation methods do (a torchvision
transform on a batched tensor).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Generator, Tensor

from distillery.components import registry
from distillery.components.parameters import parse
from distillery.training.recipe import split_at_normalisation

Pipeline = Callable[[Tensor, Generator], Tensor]


def pipeline(names: Sequence[str]) -> Pipeline:
    """The augmentations `names` in order, as one function of images and a generator.

    The images are pixels, or normalised already; `normalising_pipeline` does both in turn.

    Args:
        names: names of files of `augmentations/`, a parameter behind a colon: "crop:4".

    Returns:
        From images (B, C, H, W) float and a CPU generator to images of the same shape.

    Raises:
        PlanError: a name does not exist, or its parameter is missing, superfluous or wrong.
    """
    steps = [_step(name) for name in names]

    def apply(images: Tensor, generator: Generator) -> Tensor:
        for step in steps:
            images = step(images, generator)
        return images

    return apply


def normalising_pipeline(normalise: Callable[[Tensor], Tensor], names: Sequence[str]) -> Pipeline:
    """The augmentations `names` in order, with `normalise` in between.

    `recipe.split_at_normalisation` says where.

    Args:
        normalise: from images in [0, 1] to normalised images.
        names: as of `pipeline`; those that work on pixels precede the others.

    Returns:
        From images (B, C, H, W) float in [0, 1] and a CPU generator to normalised images.

    Raises:
        PlanError: as `pipeline` and `recipe.split_at_normalisation` do.
    """
    before, after = (pipeline(part) for part in split_at_normalisation(names))
    return lambda images, generator: after(normalise(before(images, generator)), generator)


def _step(text: str) -> Pipeline:
    name, parameter, _ = parse("augmentation", text)
    module = registry.load("augmentation", name)
    return lambda images, generator: module.apply(name, images, generator, parameter)
