"""Count what a forward pass of a network takes; as a program, for the planner, which has no torch.

python -m distillery.nets.costs '{"name": "timm:resnet26"}' '[3, 32, 32]'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distillery.components.registry import Reference
from distillery.errors import DistilleryError
from distillery.nets.network import build_network

CLASSES = 100  # of the counted networks
IMAGES = 2  # of a batch in train mode: one alone has no batch statistics


class ForwardCosts(TypedDict):
    """What one image costs.

    Attributes:
        multiply_adds: of one forward pass.
        activations: numbers in the outputs of all layers.
        kept: numbers that a forward pass in train mode keeps for its backward pass.
        widest: numbers that go into and come out of a layer together, at most.
        parameters: of the network.
    """

    multiply_adds: int
    activations: int
    kept: int
    widest: int
    parameters: int


def count(reference: Reference, shape: Sequence[int]) -> ForwardCosts:
    """Run a network of `CLASSES` classes once in eval mode on one black image, once in train mode.

    Args:
        reference: name and recipe fields.
        shape: (C, H, W) of the images.

    Raises:
        PlanError: the network does not exist, or does not fit the images.
    """
    net = build_network(reference, shape, CLASSES).eval()
    activations: list[int] = []
    widths: list[int] = []

    def record(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor):
            activations.append(output.numel())
            widths.append(sum(x.numel() for x in (*inputs, output) if isinstance(x, Tensor)))

    leaves = [layer for layer in net.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(record) for layer in leaves]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return {
        "multiply_adds": counter.get_total_flops() // 2,
        "activations": sum(activations),
        "kept": _kept(net.train(), shape),
        "widest": max(widths),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


def _kept(net: nn.Module, shape: Sequence[int]) -> int:
    """Numbers of float32 that autograd keeps of an image, parameters left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    found: dict[int, Tensor] = {}  # of a storage that several operations keep one tensor

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            found[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = net(torch.zeros(IMAGES, *shape))
    size = sum(tensor.untyped_storage().nbytes() for tensor in found.values())
    del logits  # what it keeps must not be freed, and its place not be taken, before
    return size // (IMAGES * torch.get_default_dtype().itemsize)


def main() -> int:
    """Print the costs of the network and the image shape that the command line gives, as JSON."""
    reference, shape = (json.loads(text) for text in sys.argv[1:3])
    try:
        print(json.dumps(count(reference, shape)))
    except DistilleryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
