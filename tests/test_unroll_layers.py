"""Layers whose second derivative is written out, against torch's and against finite differences."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from distillery.nets.network import build_network
from distillery.unroll import layers
from distillery.unroll.layers import written_out

LAYERS = {
    "convolution": nn.Conv2d(2, 4, 3, padding=1),
    "channels": nn.Conv2d(5, 4, 3, padding=1),
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
    channels = getattr(theirs[0], "in_channels", 2)
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(3, channels, 6, 8, generator=stream, dtype=torch.float64)
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


def test_a_convnet_gets_all_of_them_and_keeps_its_parameters():
    net = build_network({"name": "convnet", "width": 4}, (2, 16, 16), 3)
    before = dict(net.named_parameters())
    written_out(net)
    names = [type(layer).__name__ for layer in net]
    block = ["_Conv2d", "_InstanceNorm", "Identity", "_RectifiedPool"]
    assert names == [*block, *block, "Flatten", "Linear"]
    assert {name: id(p) for name, p in net.named_parameters()} == {
        n: id(p) for n, p in before.items()
    }


OTHERS = {
    "reflecting": nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    "groups of two": nn.GroupNorm(1, 2),
    "no weights": nn.GroupNorm(2, 2, affine=False),
    "batch": nn.BatchNorm2d(2),
    "overlapping": nn.Sequential(nn.ReLU(), nn.AvgPool2d(2, stride=1)),
    "padded": nn.Sequential(nn.ReLU(), nn.AvgPool2d(2, padding=1)),
    "larger": nn.Sequential(nn.ReLU(), nn.AvgPool2d(4)),
    "maximum": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_are_left_alone(name):
    net = nn.Sequential(deepcopy(OTHERS[name]))
    before = [type(layer) for layer in net.modules()]
    written_out(net)
    assert [type(layer) for layer in net.modules()] == before


def test_an_odd_side_is_pooled_as_torch_does():
    theirs, ours = replaced(LAYERS["pool"])
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    assert ours(x).equal(theirs(x))


def test_the_images_gradient_is_taken_only_where_it_is_asked_for(monkeypatch):
    """Not while the step's own gradient is; for the set's it is."""
    asked, backward = [], layers._ConvolutionBackward.apply
    monkeypatch.setattr(
        layers._ConvolutionBackward,
        "apply",
        lambda *arguments: asked.append(arguments[-1][0]) or backward(*arguments),
    )
    _, ours = replaced(LAYERS["convolution"])
    images = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = list(ours.parameters())
    product = ours(2 * images).square().sum()
    first = torch.autograd.grad(product, weights, create_graph=True)
    assert asked == [False]
    torch.autograd.grad(first[0].sum(), images)
    assert asked == [False, True]
