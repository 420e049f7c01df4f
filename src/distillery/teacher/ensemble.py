"""What several teachers say about the same images, as one vector of logits per image."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.teacher.load import Teacher


@torch.no_grad()
def mean_logits(teachers: list[Teacher], images: Tensor, rescale: bool = False) -> Tensor:
    """The arithmetic mean over all teachers of their raw logits. No temperature (INFER Eq. 6).

    Args:
        teachers: at least one.
        images: (B, C, H, W) float32, normalised, on the teachers' device.
        rescale: equalise logit norms: multiply each teacher's logits first so that their Frobenius
            norm over the batch is the mean of these norms over the teachers (G-VBSM's code for
            ImageNet).

    Returns:
        (B, classes) float32.
    """
    logits = torch.stack([teacher.model(images).float() for teacher in teachers])
    if rescale:
        norms = logits.norm(dim=(1, 2), keepdim=True)
        logits = logits * (norms.mean() / norms)
    return logits.mean(0)
