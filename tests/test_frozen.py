"""A frozen copy of a network: the network's numbers, in float32 to rounding, in bf16 nearly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from distillery.errors import DistilleryError
from distillery.methods import infer, sre2l
from distillery.methods.shared.recovery import TeacherObjective
from distillery.nets.network import build_network
from distillery.training import frozen as module
from distillery.training.frozen import frozen
from helpers.jobs import job_in
from helpers.methods import INFER, SRE2L, distil, two_teachers
from helpers.tiny import tiny_set, tiny_teacher

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
NETWORKS = {
    "resnet10": {"name": "resnet10", "width": 0.125},
    "convnet": {"name": "convnet", "width": 16, "norm": "batch"},
}


def trained(name: str) -> nn.Module:
    """A network whose norms have weights, biases and statistics of their own."""
    torch.manual_seed(0)
    net = build_network(NETWORKS[name], (3, 16, 16), 5)
    for norm in norms(net):
        nn.init.uniform_(norm.weight, -1, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        net(2 * torch.randn(32, 3, 16, 16) + 0.5)
    return net.eval().requires_grad_(False)


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def plain(net: nn.Module, images: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, ...]:
    """The loop of the authors' kind, in the precision of the network: losses and gradient."""
    gaps: list[Tensor] = []

    def gap(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0]
        gaps.append(
            (x.mean((0, 2, 3)) - layer.running_mean).norm()
            + (x.var((0, 2, 3), correction=0) - layer.running_var).norm()
        )

    hooks = [layer.register_forward_hook(gap) for layer in norms(net)]
    leaf = images.clone().requires_grad_()
    ce, bn = cross_entropy(net(leaf), labels), 9 * gaps[0] + sum(gaps)
    (gradient,) = torch.autograd.grad(ce + alpha * bn, leaf)
    for hook in hooks:
        hook.remove()
    return ce.detach(), bn.detach(), gradient


def found(net: nn.Module, images: Tensor, labels: Tensor, **fields: object) -> tuple[Tensor, ...]:
    teacher = replace(tiny_teacher(tiny_set(channels=3)), model=net)
    recipe = infer.Recipe(("net",), alpha=0.7, **fields)
    objective = TeacherObjective.of(teacher, 0.7, recipe, images.shape[1:], CPU)
    ce, bn, gradient = objective.gradient(images[None], labels)
    return ce, bn, gradient[0]


@pytest.mark.parametrize("wide", [1 << 20, 0])
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_is_a_plain_loop_to_rounding_and_bf16_is_near(name, wide, monkeypatch):
    monkeypatch.setattr(module, "WIDE", wide)
    net, labels = trained(name), torch.arange(5).repeat(4)
    images = torch.randn(20, 3, 16, 16)
    expected = plain(net.double(), images.double(), labels, 0.7)
    net.float()
    # Against float64: the plain loop in float32 is as far away.
    for fields, loss, distance in (
        ({}, 1e-5, 1e-4),
        ({"micro_batch": 7}, 1e-5, 1e-4),
        ({"precision": "bf16"}, 0.02, 0.15),
        ({"precision": "bf16", "micro_batch": 7}, 0.02, 0.15),
    ):
        ce, bn, gradient = found(net, images, labels, **fields)
        assert ce.item() == pytest.approx(expected[0].item(), rel=loss)
        assert bn.item() == pytest.approx(expected[1].item(), rel=loss)
        assert {t.dtype for t in (ce, bn, gradient)} == {torch.float32}
        gap = (gradient - expected[2]).norm() / expected[2].norm()
        print(name, fields, float(gap), ce.item()/expected[0].item()-1, bn.item()/expected[1].item()-1)
        assert gap < distance
        assert cosine_similarity(gradient.flatten(), expected[2].flatten().float(), dim=0) > 0.9
