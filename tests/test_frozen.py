"""A frozen copy of a network: the network's numbers, in float32 to rounding, in bf16 nearly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distillery.methods import infer
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
    net = build_network(NETWORKS[name], (3, 8, 8), 5)
    for norm in norms(net):
        nn.init.uniform_(norm.weight, -1, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        net(2 * torch.randn(32, 3, 8, 8) + 0.5)
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


@pytest.mark.parametrize(("name", "wide"), [("resnet10", 0), ("convnet", 1 << 20)])
def test_float32_is_a_plain_loop_to_rounding_and_bf16_is_near(name, wide, monkeypatch):
    monkeypatch.setattr(module, "WIDE", wide)
    net, labels = trained(name), torch.arange(5).repeat(4)
    images = torch.randn(20, 3, 8, 8)
    expected = plain(net.double(), images.double(), labels, 0.7)
    net.float()
    bf16 = {"precision": "bf16"}
    for fields, losses, near, far in (
        ({}, 1e-6, 0, 2e-6),
        ({"micro_batch": 7}, 1e-6, 0, 2e-6),
        (bf16, 2e-3, 1e-3, 0.06),
        (bf16 | {"micro_batch": 7}, 2e-3, 1e-3, 0.06),
    ):
        ce, bn, gradient = found(net, images, labels, **fields)
        assert ce.item() == pytest.approx(expected[0].item(), rel=losses)
        assert bn.item() == pytest.approx(expected[1].item(), rel=losses)
        assert {t.dtype for t in (ce, bn, gradient)} == {torch.float32}
        assert near < (gradient - expected[2]).norm() / expected[2].norm() < far


def test_the_network_itself_stays_as_it_was():
    net, images = trained("convnet"), torch.randn(4, 3, 8, 8)
    before, state = net(images), {k: v.clone() for k, v in net.state_dict().items()}
    for precision in ("fp32", "bf16"):
        copy = frozen(net, CPU, precision)
        assert copy(images).dtype == torch.float32 and not copy.training
        assert len(norms(copy)) == len(norms(net))
    assert net(images).equal(before)
    assert all(v.equal(state[k]) and v.dtype == state[k].dtype for k, v in net.state_dict().items())
    assert {type(m) for m in net.modules()} & {nn.BatchNorm2d, nn.Conv2d} == {
        nn.BatchNorm2d,
        nn.Conv2d,
    }


def test_bf16_is_autocast_of_the_network():
    net, images = trained("resnet10"), torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = net(images).float()
    assert frozen(net, CPU, "bf16")(images).equal(expected)


class Scaled(nn.Conv2d):
    """Computes with its weights in float32, as weight standardisation does."""

    def forward(self, images):
        return self._conv_forward(images, self.weight / self.weight.norm(), self.bias)


def test_layers_that_do_more_than_their_base_are_left_alone():
    class Doubled(nn.BatchNorm2d):
        def forward(self, features):
            return 2 * super().forward(features)

    net = nn.Sequential(Scaled(3, 4, 3), Doubled(4)).eval().requires_grad_(False)
    copy = frozen(net, CPU, "bf16")
    assert next(m for m in copy.modules() if isinstance(m, Scaled)).weight.dtype == torch.float32
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(frozen(net, CPU, "fp32")(images), net(images))


METHODS = {
    "infer": (INFER, two_teachers, 5, "compensators"),
    "sre2l": (SRE2L, lambda train: [tiny_teacher(train)], 3, "images"),
}


@pytest.mark.parametrize("name", METHODS)
def test_sets_of_bf16_are_near_those_of_float32(name, tmp_path):
    reference, teachers, ipc, part = METHODS[name]
    train = tiny_set()
    sets = [
        distil({**reference, "precision": word}, train, ipc, job, teachers(train))
        for word, job in ((word, job_in(tmp_path / word)) for word in ("fp32", "bf16"))
    ]
    exact, rounded = (s[part].float() for s in sets)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.2
