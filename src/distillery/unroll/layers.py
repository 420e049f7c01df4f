"""Layers of a student whose first and second derivatives are written out.

torch composes the second derivative of a convolution and of a group norm from many small
operations: transposed copies, a weight's gradient as a convolution with a kernel as large as the
image, some twenty passes over the activations. Here each is the few kernels that its formula needs.
The values are those of torch's layers: bit for bit but for the average pool, which adds in another
order.

Nothing here has a third derivative.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
FEW = 4  # channels of images
Geometry = tuple[Any, ...]  # stride, padding, dilation, transposed, output padding, groups


def written_out(module: nn.Module) -> None:
    """Replace the layers of a module that pay, in place; parameters and their names stay.

    Convolutions with zeros around them, instance norms (GroupNorm with one channel to a group) and,
    in a Sequential, a ReLU with an AvgPool2d(2) behind it.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Sequential):
            for first, second in pairwise(range(len(layer))):
                if isinstance(layer[first], nn.ReLU) and _halves(layer[second]):
                    layer[first], layer[second] = nn.Identity(), _RectifiedPool()
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            layer.__class__ = _Conv2d
        if type(layer) is nn.GroupNorm and layer.affine and layer.num_groups == layer.num_channels:
            layer.__class__ = _InstanceNorm


def _halves(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.AvgPool2d)
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and not layer.divisor_override
    )


class _Conv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        if isinstance(self.padding, str):
            return super().forward(input)
        geometry = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        return _Convolution.apply(input, self.weight, self.bias, geometry)


class _InstanceNorm(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:
        return _Norm.apply(input, self.weight, self.bias, self.eps)


class _RectifiedPool(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2] % 2 or input.shape[3] % 2:
            return nn.functional.avg_pool2d(input.relu(), 2)
        return _RectifyAndPool.apply(input)


# ---- convolution ---------------------------------------------------------------------------------


class _Convolution(Function):
    """y = x * w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return aten.convolution(x, w, b, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[0] and _goes_on(ctx), *ctx.needs_input_grad[1:3]
        return *_ConvolutionBackward.apply(g, *ctx.saved_tensors, ctx.geometry, needed), None


def _goes_on(ctx: Any) -> bool:
    """Whether this backward pass asks for the gradient by the first input of a node.

    The first layer's is not asked for while a step's own gradient is taken, and a Function of ours
    is not told (torch's own are); it would cost a tenth of the step.
    """
    node = ctx.next_functions[0][0]
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # a leaf, of which torch does not say
        return True


class _ConvolutionBackward(Function):
    """From g, the gradient by y, those by x, w and b: linear in g, bilinear with x and w."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, w)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return _convolution_backward(g, x, w, geometry, *needed)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_x: Tensor | None, by_w: Tensor | None, by_b: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, w = ctx.saved_tensors
        if by_w is None and by_b is not None:
            by_w = torch.zeros_like(w)
        to_g = to_x = to_w = None
        if by_x is not None:
            to_g = aten.convolution(by_x, w, None, *ctx.geometry)
        if by_w is not None:
            other = aten.convolution(x, by_w, by_b, *ctx.geometry)
            to_g = other if to_g is None else to_g.add_(other)
        # The gradients by x and w are those of a convolution of by_x with by_w.
        mask = [by_w is not None and ctx.needs_input_grad[1], by_x is not None, False]
        if any(mask):
            x = x if by_x is None else by_x
            w = w if by_w is None else by_w
            to_x, to_w, _ = _convolution_backward(g, x, w, ctx.geometry, *mask)
        return to_g, to_x, to_w, None, None


def _convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, to_x: bool, to_w: bool, to_b: bool
) -> tuple[Tensor | None, ...]:
    """torch's, of the gradients that are asked for.

    The gradient by images, of few channels, is a product and a sum of windows: a CPU's kernel for
    it fills its vectors with channels that are not there, for twice the time.
    """
    stride, padding, dilation, _, _, groups = geometry
    if not to_x or g.device.type != "cpu" or groups > 1 or x.shape[1] > FEW:
        mask = [to_x, to_w, to_b]
        return tuple(aten.convolution_backward(g, x, w, [len(w)], *geometry, mask))
    windows = w.flatten(1).T @ g.flatten(2)
    size, kernel = x.shape[2:], w.shape[2:]
    by_x = nn.functional.fold(windows, size, kernel, dilation, padding, stride)
    rest: tuple[Tensor | None, ...] = (None, None)
    if to_w or to_b:
        rest = aten.convolution_backward(g, x, w, [len(w)], *geometry, [False, to_w, to_b])[1:]
    return by_x, *rest


# ---- instance norm -------------------------------------------------------------------------------


class _Norm(Function):
    """y = w h + b with h = (x - mean) rstd, over the pixels of each channel of each image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        count, channels, height, width = x.shape
        y, mean, rstd = aten.native_group_norm(
            x, w, b, count, channels, height * width, channels, eps
        )
        ctx.save_for_backward(x, w, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_NormBackward.apply(g.contiguous(), *ctx.saved_tensors), None


class _NormBackward(Function):
    """From g, the gradient by y, those by x, w and b.

    That by x is rstd w (g - M g - h M(g h)), M the mean over the pixels.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(g, x, w, mean, rstd)
        ctx.set_materialize_grads(False)
        count, channels, height, width = x.shape
        return aten.native_group_norm_backward(
            g, x, mean, rstd, w, count, channels, height * width, channels, [True, True, True]
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, u: Tensor | None, by_w: Tensor | None, by_b: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """With u the gradient by that by x; rows are channels of images, of n pixels.

        S = n w rstd (M(u g) - M u M g - M(u h) M(g h)) + n by_w M(g h) + n by_b M g

        is differentiated by g, x (through h and rstd) and w.
        """
        g, x, w, mean, rstd = ctx.saved_tensors
        u = torch.zeros_like(x) if u is None else u.contiguous()
        count, channels, height, width = x.shape
        pixels, rows = height * width, (count, channels, 1, 1)
        mean, rstd, scale = mean.view(rows), rstd.view(rows), rstd.view(rows) * w.view(-1, 1, 1)
        by_w, by_b = (
            x.new_zeros(1, 1, 1) if by is None else by.view(-1, 1, 1) for by in (by_w, by_b)
        )
        u_h, u_mean = _row_means(u, x, mean, rstd)
        g_h, g_mean = _row_means(g, x, mean, rstd)
        u_g, _ = _row_means(u, g, torch.zeros_like(mean), torch.ones_like(rstd))
        gap = u_g - u_mean * g_mean - u_h * g_h
        to_w = (pixels * rstd * gap).sum((0, 2, 3))
        # By g: scale (u - M u - h M(u h)) + by_w h + by_b, gathered by powers of u and x.
        of_h = by_w - scale * u_h
        of_x = of_h * rstd
        to_g = torch.addcmul(by_b - scale * u_mean - of_x * mean, scale, u).addcmul_(of_x, x)
        # By h: v = by_w g - scale (M(g h) u + M(u h) g); from there to x as the first derivative
        # goes, and through rstd.
        of_u, of_g = -rstd * scale * g_h, rstd * of_h
        of_h = -(of_u * u_h + of_g * g_h) - scale * rstd * gap
        of_x = of_h * rstd
        constant = -(of_u * u_mean + of_g * g_mean) - of_x * mean
        to_x = torch.addcmul(constant, of_u, u).addcmul_(of_g, g).addcmul_(of_x, x)
        return to_g, to_x, to_w, None, None


def _row_means(a: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """M(a h) and M a of each row, (N, C, 1, 1); one pass, as for the gradients of a norm's w and b.

    The norm has as many channels as there are rows.
    """
    count, channels, height, width = x.shape
    rows, pixels = count * channels, height * width
    flat = (part.view(1, rows, height, width) for part in (a, x))
    statistics = (part.reshape(1, rows) for part in (mean, rstd))
    _, with_h, alone = aten.native_group_norm_backward(
        *flat, *statistics, None, 1, rows, pixels, rows, [False, True, True]
    )
    return tuple(part.view(count, channels, 1, 1) / pixels for part in (with_h, alone))


# ---- ReLU and average pool -----------------------------------------------------------------------


class _RectifyAndPool(Function):
    """The means of squares of 2 x 2 pixels of max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        return _pooled(x.relu())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _RectifyAndPoolBackward.apply(g, *ctx.saved_tensors)


class _RectifyAndPoolBackward(Function):
    """Linear in g; x says where it goes through."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        width = x.shape[3]
        lines = g.reshape(-1, width // 2) @ _pairs(width, x).T
        pairs = lines.view(-1, 1, width).expand(-1, 2, -1)
        return aten.threshold_backward(pairs, x.view(-1, 2, width), 0).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _pooled(aten.threshold_backward(u.contiguous(), x, 0)), None


def _pooled(x: Tensor) -> Tensor:
    """The means of squares of 2 x 2 pixels: rows are added, columns by a product with a matrix.

    torch's own pool goes pixel by pixel on a CPU, for twice the time.
    """
    count, channels, height, width = x.shape
    pairs = x.view(-1, 2, width)
    lines = (pairs[:, 0] + pairs[:, 1]) @ _pairs(width, x)
    return lines.view(count, channels, height // 2, width // 2)


def _pairs(width: int, like: Tensor) -> Tensor:
    """(width, width / 2): a quarter where a pixel is one of a pair."""
    columns = torch.arange(width, device=like.device) // 2
    return 0.25 * nn.functional.one_hot(columns, width // 2).to(like.dtype)
