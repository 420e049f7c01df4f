"""Layers whose second derivative is written out, against torch's and against finite differences."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from distillery.unroll.layers import written_out

LAYERS = {
    "convolution": nn.Conv2d(2, 4, 3, padding=1),
    "stride": nn.Conv2d(2, 4, 3, stride=2, dilation=2, padding=(2, 1)),
    "groups, no bias": nn.Conv2d(2, 4, 1, groups=2, bias=False),
    "same": nn.Conv2d(2, 3, 3, padding="same"),
    "norm": nn.GroupNorm(2, 2),
    "large epsilon": nn.GroupNorm(2, 2, eps=0.5),
    "pool": nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
}


def replaced(layer):
    """A copy with torch's layers, and one with ours, in float64 and with unlike weights."""
    torch.manual_seed(1)
    layer = deepcopy(layer).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    theirs, ours = (torch.nn.Sequential(deepcopy(layer)) for _ in range(2))
    written_out(ours)
    return theirs, ours


def derivatives(net, x):
    """The output, the first derivatives, and the derivatives of a random product with them."""
    stream = torch.Generator().manual_seed(2)

    def like(tensor):
        return torch.randn(tensor.shape, generator=stream, dtype=tensor.dtype).requires_grad_()

    x = x.detach().requires_grad_()
    inputs = [x, *net.parameters()]
    y = net(x)
    weight = like(y)
    first = torch.autograd.grad(y, inputs, weight, create_graph=True)
    product = sum((like(part).detach() * part).sum() for part in first)
    second = torch.autograd.grad(
        product, [weight, *inputs], allow_unused=True, materialize_grads=True
    )
    return [y, *first, *second]


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_both_derivatives_are_those_of_torch(name):
    theirs, ours = replaced(LAYERS[name])
    x = torch.randn(3, 2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for found, expected in zip(derivatives(ours, x), derivatives(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["convolution", "norm", "large epsilon", "pool"])
def test_the_second_derivative_is_that_of_finite_differences(name):
    _, ours = replaced(LAYERS[name])
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = [parameter.detach() for parameter in ours.parameters()]
    names = [name for name, _ in ours.named_parameters()]

    def net(x, *values):
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    inputs = [value.requires_grad_() for value in (x, *parameters)]
    assert torch.autograd.gradgradcheck(net, inputs)
