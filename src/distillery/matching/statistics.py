"""Statistics of the features inside a network, and their distance to those of real images.

The regulariser of SRe2L and of INFER (Eq. 4) compares with the running statistics of batch
normalisation; G-VBSM's adds those of convolutions. Both are read off the layers by forward hooks
that a context manager removes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distillery.training.resample import separable

if TYPE_CHECKING:
    from distillery.store.checkpoint import Fold

FIRST_WEIGHT = 10.0
TINY = 1e-30

LayerT = TypeVar("LayerT", bound=nn.Module)
# Of statistics end to end, times their images; the images; the lengths of each layer's statistics.
Sums = tuple[Tensor, int, list[list[int]]]


@contextmanager
def record_inputs(
    layers: Sequence[LayerT], measure: Callable[[LayerT, Tensor], Any]
) -> Iterator[list[Any]]:
    """Measure the inputs of layers at each forward pass within the context.

    The hooks are gone when the context ends, however it ends.

    Args:
        layers: layers of one network.
        measure: from a layer and its input to what is recorded.

    Yields:
        A list whose element i is `measure(layers[i], input)` of the last pass.
    """
    records: list[Any] = [None] * len(layers)

    def recorder(index: int) -> Callable[[LayerT, tuple[Tensor, ...]], None]:
        def record(layer: LayerT, inputs: tuple[Tensor, ...]) -> None:
            records[index] = measure(layer, inputs[0])

        return record

    handles = [layer.register_forward_pre_hook(recorder(i)) for i, layer in enumerate(layers)]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def running_statistics(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The running mean and the running variance of a layer, (C,) each."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None and variance is not None, "a batch norm without running statistics"
    return mean, variance


def shifted_moments(layer: nn.BatchNorm2d, features: Tensor, groups: int = 1) -> Tensor:
    """Mean of (a - m) and of (a - m)^2 per group and channel, m being the layer's running mean.

    Both are means over images, hence the moments of a batch are the weighted sum of those of its
    parts: what micro-batching needs. Centring at m, which the mean is trained to meet, keeps the
    variance that follows from them free of cancellation in float32.

    Args:
        layer: where the features enter.
        features: (groups * B, C, H, W), group by group, float32 or bfloat16.
        groups: batches side by side, each with moments of its own.

    Returns:
        (2, groups, C) float32.
    """
    running_mean, _ = running_statistics(layer)
    moments = []
    for group in features.chunk(groups) if groups > 1 else [features]:
        mean, variance = batch_moments(group)
        shift = mean - running_mean[:, None, None]
        moments.append(torch.stack([shift, variance + shift.square()]).mean((2, 3)))
    return torch.stack(moments, 1)


def running_distance(
    layers: Sequence[nn.BatchNorm2d], moments: Sequence[Tensor], first_weight: float = FIRST_WEIGHT
) -> Tensor:
    """sum_l w_l (||mu_l - m_l||_2 + ||v_l - s_l||_2): INFER Eq. 4, SRe2L's R_BN.

    mu, v: mean and biased variance of the input to layer l over batch, height and width; m, s: its
    running mean and running variance, which PyTorch accumulates unbiased (the mismatch is the
    authors' and is kept). The norms are not squared.

    Args:
        layers: at least one.
        moments: of each layer, from `shifted_moments`.
        first_weight: w of the first layer; it is 1 for the others (authors' code; the papers do not
            mention it).

    Returns:
        The distance of each group, (groups,).
    """
    distances = []
    for layer, (shift, square) in zip(layers, moments, strict=True):
        variance = square - shift.square()
        _, running_variance = running_statistics(layer)
        distances.append(shift.norm(dim=-1) + (variance - running_variance).norm(dim=-1))
    return sum(distances, start=(first_weight - 1) * distances[0])


def batch_norm_statistics(layer: nn.BatchNorm2d, features: Tensor) -> tuple[Tensor, Tensor]:
    """Two statistics of each channel of the input to a batch norm.

    Args:
        layer: where the features enter.
        features: (B, C, H, W).

    Returns:
        The mean less the layer's running mean, and the biased variance, (C,) each.
    """
    return _mean_and_variance(shifted_moments(layer, features)[:, 0])


def convolution_statistics(features: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G-VBSM's generalised statistics of the input to a convolution.

    Args:
        features: (B, C, H, W), in any memory format.
        patch: side of a cell in pixels. A map whose sides are no multiples of it is first enlarged
            bilinearly to the next ones.

    Returns:
        Mean and biased variance of each channel, (C,) each, and of each cell over batch, channels
        and pixels, (cells,) each.
    """
    maps = enlarged_maps = power_means(features)
    if any(side % patch for side in features.shape[2:]):
        enlarged = separable(
            features,
            lambda line: interpolate(line, -(-line.shape[2] // patch) * patch, mode="linear"),
        )
        enlarged_maps = power_means(enlarged)
    cells = enlarged_maps.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    of_channels = _mean_and_variance(maps.mean((2, 3)))
    return *of_channels, *_mean_and_variance(cells.mean((1, 3, 5)).flatten(1))


def power_means(features: Tensor) -> Tensor:
    """Mean of a and of a^2 over the batch: from (B, C, H, W) to (2, C, H, W) float32."""
    mean, variance = batch_moments(features)
    return torch.stack([mean, variance + mean.square()])


def batch_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the batch at each place, in float32 for bfloat16 features.

    Args:
        features: (B, C, H, W), in any memory format.

    Returns:
        (C, H, W) each.
    """
    if features.is_contiguous(memory_format=torch.channels_last):
        of_places = _BatchMoments.apply(features.permute(0, 2, 3, 1).flatten(1))
        _, *shape = features.permute(0, 2, 3, 1).shape
        mean, variance = (moment.view(shape).permute(2, 0, 1) for moment in of_places)
    else:
        of_places = _BatchMoments.apply(features.flatten(1))
        mean, variance = (moment.view(features.shape[1:]) for moment in of_places)
    return mean, variance


class _BatchMoments(torch.autograd.Function):
    """Mean and biased variance of the columns of (rows, columns).

    Batch normalisation's own kernels: on a CPU three to five times as fast as sums of the features
    and of their squares, and float32 within whatever the features are. The gradient is written out,
    one pass over the features.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(rows.dtype, torch.float32)
        # Running statistics that do not move: their dtype is that of what comes back.
        still = rows.new_ones(2, rows.shape[1], dtype=kind)
        mean, variance = torch.batch_norm_update_stats(rows, still[0], still[1], 0.0)
        ctx.save_for_backward(rows, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> Tensor:
        rows, mean = ctx.saved_tensors
        # (by_mean + 2 by_variance (a - mean)) / rows, as a batch norm of variance 1.
        scale, shift = 2 / len(rows) * by_variance, by_mean / len(rows)
        ones = torch.ones_like(mean)
        return torch.batch_norm(rows, scale, shift, mean, ones, False, 0.0, 0.0, False)


def _mean_and_variance(moments: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = moments
    return mean, square - mean.square()


@torch.no_grad()
def reference_statistics(
    model: nn.Module,
    layers: Sequence[nn.Conv2d],
    batches: Iterable[Tensor],
    patch: int,
    read: Callable[[Tensor], Tensor] = lambda images: images,
    fold: Fold = reduce,
) -> list[tuple[Tensor, ...]]:
    """The `convolution_statistics` of real images, averaged over batches, weighted by their size.

    Averages of the statistics of batches, variances included, as the authors take them: not those
    of the whole set.

    Args:
        model: the network that the layers are in.
        layers: its convolutions.
        batches: at least one.
        patch: side of a cell in pixels.
        read: from a batch to its images (B, C, H, W), normalised.
        fold: goes through the batches.

    Returns:
        Four statistics for the input of each layer.
    """
    with record_inputs(
        layers, lambda _, features: convolution_statistics(features, patch)
    ) as by_layer:

        def add(sums: Sums, batch: Tensor) -> Sums:
            (total, count, _), images = sums, read(batch)
            model(images)
            end_to_end = torch.cat([statistic for four in by_layer for statistic in four])
            lengths = [[len(statistic) for statistic in four] for four in by_layer]
            total = total.to(end_to_end.device) + len(images) * end_to_end
            return total, count + len(images), lengths

        start: Sums = torch.zeros(()), 0, []
        total, count, lengths = fold(add, batches, start)
    parts = iter((total / count).split([length for four in lengths for length in four]))
    return [tuple(next(parts) for _ in four) for four in lengths]


class AverageDistance:
    """sum_l w_l sum_s ||e_ls - r_ls||_2 of moving averages e of statistics to references r.

    l is a layer, s one of its statistics. Each call moves e to ema e + (1 - ema) s. The gradient is
    the straight-through estimator of that average: s receives the whole gradient of e, not
    (1 - ema) of it (G-VBSM).

    Deviation: e starts at the reference. Since the norm is not squared its gradient is then that of
    the bias-corrected average; the authors' code starts at 0, a slip in its branch for the first
    call, so that its first gradients point elsewhere.

    Attributes:
        average: (K,) float, e of all statistics end to end.
    """

    def __init__(
        self, references: Sequence[Sequence[Tensor]], weights: Sequence[float], ema: float
    ):
        """Start at the references.

        Args:
            references: of each layer its statistics, vectors.
            weights: w of each layer.
            ema: decay of the averages, in [0, 1).
        """
        self._lengths_by_layer = [[len(s) for s in layer] for layer in references]
        self._lengths = [length for layer in self._lengths_by_layer for length in layer]
        self._reference = torch.cat([s for layer in references for s in layer])
        self._repeats = torch.tensor(self._lengths, device=self._reference.device)
        self._weights, self._ema = tuple(weights), ema
        self.average = self._reference.clone()

    def __call__(self, statistics: Sequence[Sequence[Tensor] | None]) -> Tensor:
        """Move the averages to the statistics of each layer, and measure their distance.

        Args:
            statistics: of each layer, in the shapes of its references; None leaves the layer out of
                the sum, and its averages where they are.

        Returns:
            A scalar.
        """
        # All vectors end to end, so that a step is a few operations on one tensor. A layer that is
        # left out repeats its average, which does not move then.
        current = torch.cat(
            [
                vector
                for new, old in zip(statistics, self._averages_by_layer(), strict=True)
                for vector in (old if new is None else new)
            ]
        )
        self.average = current.detach().lerp(self.average, self._ema)
        layers = zip(self._weights, statistics, self._lengths_by_layer, strict=True)
        weights = current.new_tensor(
            [0.0 if new is None else w for w, new, lengths in layers for _ in lengths]
        )
        with torch.no_grad():
            gap = self.average - self._reference
            norms = torch.stack([part.norm() for part in gap.split(self._lengths)])
            # The gradient of w ||gap|| is w gap / ||gap||; 0 where a statistic is met exactly.
            scales = weights / norms.clamp_min(TINY)
            gradient = gap * scales.repeat_interleave(self._repeats, output_size=len(gap))
        # The second term is zero; it hands the gradient at the averages to the statistics.
        return weights @ norms + gradient @ (current - current.detach())

    def get_state(self) -> Tensor:
        """The averages: what the next calls follow from."""
        return self.average

    def set_state(self, state: Tensor) -> None:
        """Go on with averages of before, on any device."""
        self.average = state.to(self._reference.device)

    def _averages_by_layer(self) -> Iterator[list[Tensor]]:
        parts = iter(self.average.split(self._lengths))
        return ([next(parts) for _ in lengths] for lengths in self._lengths_by_layer)
