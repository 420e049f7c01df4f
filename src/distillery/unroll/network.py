"""A network as a function of one flat vector of parameters.

A step of an optimiser is then a few operations on one tensor.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distillery.errors import DistilleryError
from distillery.unroll.layers import written_out


class FlatNetwork:
    """A module as a function of theta (P,), all its parameters end to end in the module's order.

    The module's own weights count for nothing and it is left alone. theta and the images may live
    on any device, and are of one number format.

    The bias of a convolution that an instance norm follows (GroupNorm with one channel to a group)
    is cancelled by the norm. Its gradient is rounding, which Adam would scale up to whole steps and
    the meta-gradient would amplify. Here it is exactly zero, through any number of derivatives.

    Deviation: the references (PoDD, RaT-BPTT) let Adam move those biases by that rounding; the
    logits do not depend on them.

    Attributes:
        size: P.
        mask: (P,) float, 0 for cancelled biases, 1 elsewhere.
    """

    def __init__(self, module: nn.Module, *, explicit: bool = False):
        """Copy the module.

        Args:
            module: from images (B, C, H, W) to logits (B, classes).
            explicit: with layers whose second derivative is written out (`unroll.layers`), which is
                faster and equal to rounding.

        Raises:
            DistilleryError: the module has buffers, such as the statistics of a batch norm: it is
                no function of theta.
        """
        if buffers := [name for name, _ in module.named_buffers()]:
            raise DistilleryError(
                f"network with state '{buffers[0]}': it cannot be differentiated through its "
                f"training; use norm 'instance'"
            )
        self._module = module = deepcopy(module)
        if explicit:
            written_out(module)
        self._names, parameters = zip(*module.named_parameters(), strict=True)
        self._shapes = [parameter.shape for parameter in parameters]
        self._sizes = [parameter.numel() for parameter in parameters]
        cancelled = {id(bias) for bias in _cancelled_biases(module)}
        self._free = [id(parameter) not in cancelled for parameter in parameters]
        self.size = sum(self._sizes)
        self.mask = torch.cat(
            [torch.full((n,), float(free)) for n, free in zip(self._sizes, self._free, strict=True)]
        )

    def initial(self, seed: int) -> Tensor:
        """A fresh theta (P,) as the module's layers initialise themselves, on the module's device.

        Torch's own random stream is as before afterwards.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for layer in self._module.modules():
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()
        return nn.utils.parameters_to_vector(self._module.parameters()).detach()

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) by the network with parameters theta (P,)."""
        parts = zip(theta.split(self._sizes), self._shapes, self._free, strict=True)
        values = [(part if free else part.detach()).view(shape) for part, shape, free in parts]
        return functional_call(self._module, dict(zip(self._names, values, strict=True)), (images,))


def _cancelled_biases(module: nn.Module) -> list[Tensor]:
    """The biases of convolutions that the norm behind them cancels."""
    chains = [pairwise(chain) for chain in module.modules() if isinstance(chain, nn.Sequential)]
    return [
        first.bias
        for chain in chains
        for first, second in chain
        if isinstance(first, nn.Conv2d)
        and isinstance(second, nn.GroupNorm)
        and first.bias is not None
        and second.num_groups == second.num_channels
    ]
