"""Statistics of the features inside a network, and their distance to the running statistics of its batch normalisation.

The regulariser of SRe2L and of INFER (Eq. 4), read off the layers by forward hooks that a context manager takes away again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

FIRST_WEIGHT = 10.0


@contextmanager
def record_inputs(layers: Sequence[nn.Module], measure: Callable[[nn.Module, Tensor], Any]) -> Iterator[list[Any]]:
    """Within the context, each forward pass puts `measure(layer, input)` of `layers[i]` into element i of the yielded list.

    The list is overwritten by the next pass; the hooks are gone when the context ends, however it ends.
    """
    records: list[Any] = [None] * len(layers)

    def recorder(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            records[index] = measure(layer, inputs[0])

        return record

    handles = [layer.register_forward_pre_hook(recorder(i)) for i, layer in enumerate(layers)]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def shifted_moments(layer: nn.BatchNorm2d, features: Tensor, groups: int = 1) -> Tensor:
    """Mean of (a - m) and of (a - m)^2 per group and channel, m being the layer's running mean.

    features: (groups * B, C, H, W), group by group. Returns (2, groups, C). Both are means over images, hence the moments of a
    batch are the weighted sum of those of its parts: what micro-batching needs. Centring at m, which the mean is trained to
    meet, keeps the variance that follows from them free of cancellation in float32.
    """
    centred = (features - layer.running_mean[:, None, None]).unflatten(0, (groups, -1))
    count = centred[0, :, 0].numel()
    # sums, divided when they are small: the gradient of a mean divides a tensor of the features' size
    return torch.stack([centred.sum((1, 3, 4)), centred.square().sum((1, 3, 4))]) / count


def running_distance(layers: Sequence[nn.BatchNorm2d], moments: Sequence[Tensor], first_weight: float = FIRST_WEIGHT) -> Tensor:
    """sum_l w_l (||mu_l - m_l||_2 + ||v_l - s_l||_2) for each group: a tensor (groups,). INFER Eq. 4, SRe2L's R_BN.

    mu, v: mean and biased variance of the input to layer l over batch, height and width, from `shifted_moments`; m, s: its
    running mean and running variance, which PyTorch accumulates unbiased (the mismatch is the authors' and is kept). The norms
    are not squared. w is `first_weight` for the first layer and 1 for the others (authors' code; the papers do not mention it).
    At least one layer is needed.
    """
    distances = []
    for layer, (shift, square) in zip(layers, moments, strict=True):
        variance = square - shift.square()
        distances.append(shift.norm(dim=-1) + (variance - layer.running_var).norm(dim=-1))
    return sum(distances, start=(first_weight - 1) * distances[0])
