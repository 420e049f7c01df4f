"""Statistics of the features inside a network, and their distance to those of real images.

The regulariser of SRe2L and of INFER (Eq. 4), against the running statistics of batch normalisation, and G-VBSM's, which adds
those of convolutions; read off the layers by forward hooks that a context manager takes away again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distillery.training.resample import separable

FIRST_WEIGHT = 10.0
TINY = 1e-30


@contextmanager
def record_inputs(
    layers: Sequence[nn.Module], measure: Callable[[nn.Module, Tensor], Any]
) -> Iterator[list[Any]]:
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


def running_distance(
    layers: Sequence[nn.BatchNorm2d], moments: Sequence[Tensor], first_weight: float = FIRST_WEIGHT
) -> Tensor:
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


def batch_norm_statistics(layer: nn.BatchNorm2d, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, from the running mean on, and biased variance of each channel of features (B, C, H, W): two tensors (C,)."""
    return _mean_and_variance(shifted_moments(layer, features)[:, 0])


def convolution_statistics(features: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,), and of each patch x patch cell, (cells,), of features (B, C, H, W).

    A cell's statistics are over batch, channels and pixels; a map whose sides are no multiples of `patch` is first enlarged
    bilinearly to the next ones. G-VBSM's generalised statistics of convolutions; any memory format.
    """
    maps = whole = power_means(features)
    if any(side % patch for side in features.shape[2:]):
        whole = power_means(
            separable(
                features,
                lambda line: interpolate(line, -(-line.shape[2] // patch) * patch, mode="linear"),
            )
        )
    cells = whole.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).mean((1, 3, 5)).flatten(1)
    return *_mean_and_variance(maps.mean((2, 3))), *_mean_and_variance(cells)


def power_means(features: Tensor) -> Tensor:
    """Mean of a and of a^2 over the batch: features (B, C, H, W) -> (2, C, H, W)."""
    if features.is_contiguous():
        return _PowerSums.apply(features) / len(features)
    # in the order of memory: a sum over the batch is then a sum of long lines (20 times faster on a CPU)
    return _PowerSums.apply(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) / len(features)


class _PowerSums(torch.autograd.Function):
    """Sums of a and of a^2 over the first dimension, and their gradients together in one pass over the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.stack([features.sum(0), features.square().sum(0)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return torch.addcmul(grad[0], features, grad[1], value=2)


def _mean_and_variance(moments: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = moments
    return mean, square - mean.square()


@torch.no_grad()
def reference_statistics(
    model: nn.Module, layers: Sequence[nn.Conv2d], batches: Iterable[Tensor], patch: int
) -> list[tuple[Tensor, ...]]:
    """The four `convolution_statistics` of the inputs of `layers`, averaged over `batches` (B, C, H, W), weighted by B.

    Averages of the statistics of batches, variances included, as the authors take them: not those of the whole set.
    """
    total, count = 0.0, 0
    with record_inputs(
        layers, lambda _, features: convolution_statistics(features, patch)
    ) as found:
        for images in batches:
            model(images)
            total, count = (
                total + len(images) * torch.cat([s for four in found for s in four]),
                count + len(images),
            )
    parts = iter((total / count).split([len(s) for four in found for s in four]))
    return [tuple(next(parts) for _ in four) for four in found]


class AverageDistance:
    """sum_l w_l sum_s ||e_ls - r_ls||_2: statistics s of layers l, as moving averages e, against references r.

    Each call moves e to ema e + (1 - ema) s; the gradient passes straight through: s receives that of e, undiminished
    (G-VBSM). `average` (K,) is e of all statistics end to end: the state, which a checkpoint holds.
    Deviation: e starts at the reference. Since the norm is not squared its gradient is then that of the bias-corrected average;
    the authors' code starts at 0, a slip in its branch for the first call, so that its first gradients point elsewhere.
    """

    def __init__(
        self, references: Sequence[Sequence[Tensor]], weights: Sequence[float], ema: float
    ):
        """references: of each layer its statistics, vectors. weights: w of each layer. ema: decay, in [0, 1)."""
        self.shape = [[len(s) for s in layer] for layer in references]
        self.sizes = [size for layer in self.shape for size in layer]
        self.reference = torch.cat([s for layer in references for s in layer])
        self.lengths = torch.tensor(self.sizes, device=self.reference.device)
        self.average, self.weights, self.ema = self.reference.clone(), tuple(weights), ema

    def __call__(self, found: Sequence[Sequence[Tensor] | None]) -> Tensor:
        """The distance, a scalar, after moving e to the statistics of each layer; a layer with None is left out and stays."""
        layers = zip(found, self._layers(), strict=True)
        now = torch.cat(
            [s for statistics, old in layers for s in (old if statistics is None else statistics)]
        )
        self.average = now.detach().lerp(self.average, self.ema)
        heard = zip(self.weights, found, self.shape, strict=True)
        weights = now.new_tensor([0.0 if f is None else w for w, f, sizes in heard for _ in sizes])
        with torch.no_grad():
            gap = self.average - self.reference
            norms = torch.stack([part.norm() for part in gap.split(self.sizes)])
            slope = gap * (weights / norms.clamp_min(TINY)).repeat_interleave(
                self.lengths, output_size=len(gap)
            )
        # the norms at e, and their gradient handed to the present statistics
        return weights @ norms + slope @ (now - now.detach())

    def _layers(self) -> Iterator[list[Tensor]]:
        parts = iter(self.average.split(self.sizes))
        return ([next(parts) for _ in sizes] for sizes in self.shape)
