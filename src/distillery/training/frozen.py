"""Networks whose weights nothing changes: passes forward, and gradients by the images alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from distillery.training.precision import autocast, set_memory_format

WIDE = 1 << 20  # weights


def frozen(network: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """A copy of a network that is fast where its weights never change; the same to rounding.

    Its batch norms and convolutions are modules of the same kinds, in the same order.

    Deviation: bf16, where a recipe asks for it; the papers of INFER, SRe2L, CDA, G-VBSM and RDED
    name no precision and float32 is the recipes' default. The gradient of a compensator has cosine
    0.99999 to float32's on CIFAR-10 (docs/results/benchmarks.md).

    Args:
        network: in evaluation mode.
        device: where it is.
        precision: "fp32", or "bf16": the copy computes under autocast. Outputs are float32.
    """
    bf16 = precision == "bf16"
    network = set_memory_format(copy.deepcopy(network), device, bf16)
    for module in network.modules():
        # A subclass may do more than its base, or compute with its weights.
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _Norm
        elif bf16 and type(module) in (nn.Conv2d, nn.Linear):
            # What autocast would do at each pass, since it keeps only copies of weights that learn.
            module.to(torch.bfloat16)
        elif bf16 and isinstance(module, nn.ReLU):
            module.inplace = False  # in place takes twice as long in bfloat16 on a CPU
        elif type(module) is nn.Conv2d and device.type == "cpu" and _wide(module):
            module.__class__ = _WideConvolution
            module.to(memory_format=torch.contiguous_format)
    return _Autocast(network).eval() if bf16 else network


class _Autocast(nn.Module):
    """A network under autocast, whose outputs are float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with autocast(images.device, bf16=True):
            outputs: Tensor = self.network(images)
        return outputs.float()


def _wide(layer: nn.Conv2d) -> bool:
    return layer.weight.numel() > WIDE and max(layer.kernel_size) > 1


class _WideConvolution(nn.Conv2d):
    """A convolution of contiguous maps, for weights that a core's cache does not hold.

    Channels last, the kernel reads them anew for each image: 512 to 512 channels at 4 px, 100
    images, take 67 and 71 ms forward and backward in float32, contiguous 42 and 38.
    """

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.contiguous())


class _Norm(nn.BatchNorm2d):
    """A batch norm in evaluation mode, with the gradient by its input alone.

    PyTorch's own also sums up what the gradients of weight and bias would need, which takes as long
    again.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.running_mean is None or self.training:
            return super().forward(features)
        return _NormFunction.apply(
            features, self.weight, self.bias, self.running_mean, self.running_var, self.eps
        )


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(weight, variance)
        ctx.eps = eps
        return torch.batch_norm(features, weight, bias, mean, variance, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, variance = ctx.saved_tensors
        # The same scale: a batch norm without bias, of mean 0.
        zero = torch.zeros_like(variance)
        by_features = torch.batch_norm(
            gradient, weight, None, zero, variance, False, 0.0, ctx.eps, False
        )
        return by_features, None, None, None, None, None
