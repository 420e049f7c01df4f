"""Count what a forward pass of a network takes; as a program, for the planner, which has no torch.

python -m distillery.nets.costs '{"name": "timm:resnet26"}' '[3, 32, 32]'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distillery.components.registry import Reference
from distillery.errors import DistilleryError
from distillery.nets.network import build_network

CLASSES = 100  # of the counted networks


class ForwardCosts(TypedDict):
    """What one image costs.

    Attributes:
        multiply_adds: of one forward pass.
        activations: numbers in the outputs of all layers.
        parameters: of the network.
    """

    multiply_adds: int
    activations: int
    parameters: int


def count(reference: Reference, shape: Sequence[int]) -> ForwardCosts:
    """Run a network of `CLASSES` classes once, in eval mode, on one black image.

    Args:
        reference: name and recipe fields.
        shape: (C, H, W) of the images.

    Raises:
        PlanError: the network does not exist, or does not fit the images.
    """
    net = build_network(reference, shape, CLASSES).eval()
    activations: list[int] = []

    def record(layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            activations.append(output.numel())

    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(record)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape))
    return {
        "multiply_adds": counter.get_total_flops() // 2,
        "activations": sum(activations),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


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
