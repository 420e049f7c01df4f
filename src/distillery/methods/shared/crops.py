"""Random crops of real images, at their own size where the data keep it (RDED, G-VBSM)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from distillery.components.parameters import parse
from distillery.training.augment import normalising_pipeline
from distillery.training.boxes import RATIO, draw_boxes
from distillery.training.resample import resize_boxes
from distillery.training.samples import Samples

if TYPE_CHECKING:
    from distillery.data.images import ImageSet

CROP = "resized-crop"


def random_crops(
    train: ImageSet,
    indices: Tensor,
    count: int,
    stream: Generator,
    device: torch.device,
    *,
    smallest: float,
    ratios: tuple[float, float] = RATIO,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Random boxes of each image, resized.

    Where the data keep originals, boxes are cut out of these: of an image that was shrunk before,
    a crop of a tenth of its area would show a third of the detail along each side.

    Args:
        train: the real images.
        indices: (n,) int64.
        count: boxes of each image.
        stream: they follow from it; `draw_boxes` says how.
        device: where the crops shall be.
        smallest: the smallest share of an image's area.
        ratios: the smallest and the largest ratio of width to height.
        size: (h, w) of the crops; None: that of the stored images.

    Returns:
        (n * count, C, h, w) float32 in [0, 1], the crops of an image side by side.
    """
    _, *shape = train.shape
    size = size or shape
    if not train.keeps_originals:
        images = (train.pixels(indices.cpu()).to(device).float() / 255).repeat_interleave(count, 0)
        boxes = draw_boxes(len(images), shape, stream, smallest, ratios)
        return resize_boxes(images, *boxes, size)
    crops = []
    for original in train.originals(indices):
        image = (original.to(device).float() / 255).expand(count, -1, -1, -1)
        boxes = draw_boxes(count, image.shape[2:], stream, smallest, ratios)
        crops.append(resize_boxes(image, *boxes, size))
    return torch.cat(crops)


def augmented_reader(
    train: ImageSet, names: Sequence[str], stream: Generator, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Reads real images, augmented and normalised.

    Args:
        train: the real images.
        names: of training.augment; where the first is "resized-crop", it cuts the originals.
        stream: what is drawn follows from it.
        device: where the images shall be.

    Returns:
        From indices (B,) int64 on the CPU to images (B, C, H, W) float32 on the device.
    """
    samples = Samples.from_images(train, device)
    first = parse("augmentation", names[0]) if names else None
    if first is None or first.name != CROP or not train.keeps_originals:
        augment = normalising_pipeline(samples.normalise, names)
        return lambda indices: augment(samples.take(indices.to(device)), stream)
    rest, smallest = normalising_pipeline(samples.normalise, names[1:]), float(first.parameter)

    def read(indices: Tensor) -> Tensor:
        return rest(random_crops(train, indices, 1, stream, device, smallest=smallest), stream)

    return read
