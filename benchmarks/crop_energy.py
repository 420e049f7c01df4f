"""How much detail crops lose that are cut out of images which were stretched to 224 px before.

python benchmarks/crop_energy.py

The two photographs of scikit-learn (640 x 427 px) stand for those of ImageNet, of about 500 x 375.
Detail is the mean squared difference of neighbouring pixels. RDED's crops are squares of 112 px,
G-VBSM's references rectangles that are resized to 224 px.
"""

from __future__ import annotations

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from distillery.data.convert import stretch
from distillery.training.boxes import RATIO, draw_boxes
from distillery.training.resample import resize_boxes

CROPS, TOGETHER = 500, 50
KINDS = {"RDED, 112 px": ((1.0, 1.0), 112), "G-VBSM, 224 px": (RATIO, 224)}


def main() -> None:
    for number, pixels in enumerate(load_sample_images().images):
        original = Image.fromarray(pixels)
        stored = stretch(original, 224)
        for kind, (ratios, side) in KINDS.items():
            left = energy(stored, ratios, side) / energy(original, ratios, side)
            print(f"photograph {number}, {kind}: {100 * left:.0f} % left")


def energy(image: Image.Image, ratios: tuple[float, float], side: int) -> float:
    """Mean squared difference of neighbouring pixels in crops of an image."""
    pixels = tv.pil_to_tensor(image).float() / 255
    start, size = draw_boxes(
        CROPS, pixels.shape[1:], torch.Generator().manual_seed(0), 0.08, ratios
    )
    parts = zip(start.split(TOGETHER, 1), size.split(TOGETHER, 1), strict=True)
    return sum(
        gradient_energy(resize_boxes(pixels.expand(b.shape[1], -1, -1, -1), a, b, (side, side)))
        for a, b in parts
    )


def gradient_energy(images: Tensor) -> float:
    """Mean squared difference of neighbours, down and across, of images (B, C, H, W)."""
    return sum(float(images.diff(dim=dim).square().mean()) for dim in (2, 3))


if __name__ == "__main__":
    main()
