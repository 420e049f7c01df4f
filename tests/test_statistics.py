"""The BN loss against hand-worked numbers, a second implementation and its own algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillery.matching.statistics import record_inputs, running_distance, shifted_moments


def two_layers() -> tuple[nn.Sequential, list[nn.BatchNorm2d]]:
    """1x1 convolutions times 1 and times 3, so that every feature can be worked out by hand."""
    first, second = nn.BatchNorm2d(1, eps=0.0), nn.BatchNorm2d(1, eps=0.0)
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), first, nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False), second
    ).eval()
    nn.init.constant_(net[0].weight, 1.0)
    nn.init.constant_(net[3].weight, 3.0)
    return net, [first, second]


def random_net(seed: int = 0) -> tuple[nn.Sequential, list[nn.BatchNorm2d]]:
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(5), nn.BatchNorm2d(4)]
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), norms[0], nn.ReLU(), nn.Conv2d(5, 4, 3), norms[1]
    ).double()
    net(
        torch.randn(50, 3, 6, 6).double() * 2 + 1
    )  # gives the running statistics values of their own
    return net.eval().requires_grad_(False), norms


def distance(
    net: nn.Module,
    layers: list[nn.BatchNorm2d],
    images: Tensor,
    groups: int = 1,
    first_weight: float = 10.0,
) -> Tensor:
    with record_inputs(layers, lambda layer, x: shifted_moments(layer, x, groups)) as moments:
        net(images)
    return running_distance(layers, moments, first_weight)


def plain_distance(
    net: nn.Module,
    layers: list[nn.BatchNorm2d],
    images: Tensor,
    weights: list[float],
    correction: int = 0,
) -> Tensor:
    """Eq. 4 written down a second time, with torch's own mean and variance."""
    with record_inputs(layers, lambda layer, x: x) as inputs:
        net(images)
    total = 0.0
    for layer, x, weight in zip(layers, inputs, weights, strict=True):
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=correction)
        total = total + weight * (
            (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        )
    return total


def test_worked_by_hand():
    # pixels 0 and 2: first input mean 1, biased variance 1, against 0 and 1: 1 + 0. Its output is 0
    # and 2, times 3 is 0 and 6: mean 3, variance 9, against 0 and 1: 3 + 8. With weight 10 on the
    # first: 10 + 11.
    net, layers = two_layers()
    images = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    assert distance(net, layers, images).tolist() == [21.0]
    assert distance(net, layers, images, first_weight=1.0).tolist() == [12.0]


def test_second_implementation_and_biased_variance():
    net, layers = random_net()
    images = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    assert distance(net, layers, images).item() == pytest.approx(
        plain_distance(net, layers, images, [10, 1]).item(), rel=1e-12
    )
    unbiased = plain_distance(net, layers, images, [10, 1], correction=1).item()
    assert distance(net, layers, images).item() != pytest.approx(unbiased, rel=1e-4)


def test_gradient_is_that_of_the_second_implementation():
    net, layers = random_net(1)
    images = torch.randn(4, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(distance(net, layers, images).sum(), images)
    (plain,) = torch.autograd.grad(plain_distance(net, layers, images, [10, 1]), images)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_groups_have_statistics_of_their_own():
    net, layers = random_net(2)
    images = torch.randn(3, 4, 3, 6, 6, dtype=torch.float64)
    alone = torch.cat([distance(net, layers, group) for group in images])
    torch.testing.assert_close(distance(net, layers, images.flatten(0, 1), groups=3), alone)


def test_moments_of_a_batch_are_the_weighted_sum_of_its_parts():
    _, (layer, _) = random_net(3)
    x = torch.randn(7, 5, 4, 4, dtype=torch.float64)
    parts = sum(shifted_moments(layer, part) * len(part) / 7 for part in x.split(3))
    torch.testing.assert_close(parts, shifted_moments(layer, x))


def test_no_cancellation_far_from_zero():
    # a mean of 1000 and a deviation of 0.1: E[a^2] - E[a]^2 in float32 would be noise, centring at
    # the running mean is exact
    layer = nn.BatchNorm2d(1)
    layer.running_mean.fill_(1000.0)
    x = 1000 + 0.1 * torch.randn(64, 1, 4, 4)
    shift, square = shifted_moments(layer, x)
    assert (square - shift.square()).item() == pytest.approx(
        x.double().var(correction=0).item(), rel=1e-4
    )


def test_hooks_are_gone_even_after_an_error():
    net, layers = two_layers()
    with pytest.raises(RuntimeError), record_inputs(layers, shifted_moments):
        net(torch.zeros(1, 2, 1, 1))
    assert not any(layer._forward_pre_hooks for layer in layers)
