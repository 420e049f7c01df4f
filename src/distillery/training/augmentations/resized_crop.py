"""Cut a random box out of an image and resize it to the image's size."""

from __future__ import annotations

from torch import Generator, Tensor

from distillery.training.boxes import draw_boxes
from distillery.training.resample import resize_boxes

NAMES = ("resized-crop", "batch-resized-crop")
TRAITS = {"parameter": "fraction", "default": 0.08}  # the smallest share of the area


def apply(name: str, images: Tensor, generator: Generator, parameter: float) -> Tensor:
    """Resize a random box of each image ("resized-crop"), or one box of all ("batch-...").

    `draw_boxes` says which boxes; `parameter` is its `smallest`.
    """
    boxes = 1 if name == "batch-resized-crop" else len(images)
    start, size = draw_boxes(boxes, images.shape[2:], generator, parameter)
    return resize_boxes(images, start, size)
