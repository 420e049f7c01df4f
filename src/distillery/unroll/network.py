"""A network as a function of one flat vector of parameters: an optimiser's step is then a few operations on one tensor."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distillery.errors import DistilleryError


class Network:
    """`module` as a function of theta (P,): all its parameters, flattened one after the other in the module's order.

    size: P. mask: (P,) float, 0 for the biases of convolutions that an instance norm follows (GroupNorm with one channel to a
    group), 1 elsewhere. The norm takes such a bias out again, so its gradient is rounding, which Adam would scale up to whole
    steps and the meta-gradient would amplify. Here it is exactly zero, through any number of derivatives.
    Deviation: the references (PoDD, RaT-BPTT) let Adam move those biases by that noise; the logits do not depend on them.

    The module's own weights count for nothing and it is left alone: theta and the images may live on any device, and are of one
    number format. Raises DistilleryError for a module with buffers, such as batch norm's statistics: no function of theta.
    """

    def __init__(self, module: nn.Module):
        if buffers := [name for name, _ in module.named_buffers()]:
            raise DistilleryError(
                f"network with state '{buffers[0]}': it cannot be differentiated through its training; use norm 'instance'"
            )
        self._module = module = deepcopy(module)
        self._names, parameters = zip(*module.named_parameters(), strict=True)
        self._shapes, self._sizes = [p.shape for p in parameters], [p.numel() for p in parameters]
        void = {id(bias) for bias in _void(module)}
        self._free = [id(p) not in void for p in parameters]
        self.size = sum(self._sizes)
        self.mask = torch.cat(
            [torch.full((n,), float(free)) for n, free in zip(self._sizes, self._free, strict=True)]
        )

    def initial(self, seed: int) -> Tensor:
        """A fresh theta (P,) as the module's layers initialise themselves, on the module's device. Torch's own random stream is
        as before afterwards."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for layer in self._module.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
        return nn.utils.parameters_to_vector(self._module.parameters()).detach()

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) by the network with parameters theta (P,)."""
        parts = zip(theta.split(self._sizes), self._shapes, self._free, strict=True)
        values = [(part if free else part.detach()).view(shape) for part, shape, free in parts]
        return functional_call(self._module, dict(zip(self._names, values, strict=True)), (images,))


def _void(module: nn.Module) -> list[Tensor]:
    """The biases that the next layer takes out again."""
    chains = [pairwise(chain) for chain in module.modules() if isinstance(chain, nn.Sequential)]
    pairs = [
        pair
        for chain in chains
        for pair in chain
        if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.GroupNorm)
    ]
    return [
        conv.bias
        for conv, norm in pairs
        if conv.bias is not None and norm.num_groups == norm.num_channels
    ]
