"""MixUp and CutMix: one lambda, one permutation and at most one box for each batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from distillery.training.recipe import Mix


@dataclass(frozen=True)
class Mixing:
    """How one batch was mixed; enough to mix its labels, or to mix the same batch again.

    lam: share of an image's own label, in [0, 1]; with a box exactly the share of the pixels outside it. permutation: (B,)
    int64, the partner of each image. box: None (MixUp), or (top, bottom, left, right) in pixels, what comes from the partner.
    """

    lam: float
    permutation: Tensor
    box: tuple[int, int, int, int] | None = None

    def images(self, x: Tensor) -> Tensor:
        """Mix images (B, C, H, W) float: lam x + (1 - lam) x_pi, or x with the box of x_pi."""
        if self.box is None:
            return self.labels(x)
        top, bottom, left, right = self.box
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[self.permutation, :, top:bottom, left:right]
        return mixed

    def labels(self, y: Tensor) -> Tensor:
        """Mix labels (B, classes) float, probabilities or logits alike: lam y + (1 - lam) y_pi."""
        return y if self.lam == 1 else torch.lerp(y[self.permutation], y, self.lam)


def draw(mix: Mix, images: Tensor, generator: Generator) -> Mixing:
    """The mixing of one batch of images (B, C, H, W), drawn from a CPU generator, its permutation on the images' device.

    MixUp (Zhang et al. 2018): lambda ~ Beta(alpha, alpha). CutMix (Yun et al. 2019, Alg. A1): a box whose sides are
    sqrt(1 - lambda) of the image's, its centre uniform, clipped at the border; lambda becomes the share of pixels that stay.
    Deviation: INFER's Alg. 2 takes max(lambda, 1 - lambda); its code does not, and with a uniform permutation both give the
    same distribution of mixed batches.
    """
    return MIXES[mix.name](mix.alpha, images, generator)


def _none(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    return Mixing(1.0, torch.arange(len(images), device=images.device))


def _mixup(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    permutation = torch.randperm(len(images), generator=generator).to(
        images.device, non_blocking=True
    )
    uniform = torch.rand((), dtype=torch.float64, generator=generator).item()
    return Mixing(float(betaincinv(alpha, alpha, uniform)), permutation)


def _cutmix(alpha: float, images: Tensor, generator: Generator) -> Mixing:
    mixing, (height, width) = _mixup(alpha, images, generator), images.shape[2:]
    row, column = torch.rand(2, generator=generator).tolist()
    (top, bottom), (left, right) = _span(height, mixing.lam, row), _span(width, mixing.lam, column)
    area = (bottom - top) * (right - left) / (height * width)
    return Mixing(1 - area, mixing.permutation, (top, bottom, left, right))


def _span(length: int, lam: float, place: float) -> tuple[int, int]:
    half, centre = int(length * (1 - lam) ** 0.5) // 2, int(place * length)
    return max(centre - half, 0), min(centre + half, length)


MIXES = {"none": _none, "mixup": _mixup, "cutmix": _cutmix}
