"""Unrolled training against torch's optimisers, the full graph and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softmax

from distillery.errors import DistilleryError
from distillery.nets.network import build_network
from distillery.training.augment import pipeline
from distillery.unroll import window
from distillery.unroll.network import FlatNetwork
from distillery.unroll.optimizers import Adam, Sgd
from distillery.unroll.window import InnerTraining, batched_loss, meta_gradients, run_steps

CLASSES, SIDE = 3, 8
OPTIMIZERS = [Adam(1e-2), Sgd(0.1), Sgd(0.05, 0.9), Sgd(0.05, 0.9, 5e-3)]
AUGMENT = pipeline(["dsa:flip-rotate"])


def generator(seed):
    return torch.Generator().manual_seed(seed)


def convnet(width=4, norm="instance", dtype=torch.float64):
    return build_network(
        {"name": "convnet", "width": width, "norm": norm}, (2, SIDE, SIDE), CLASSES
    ).to(dtype)


def smooth():
    """A network without kinks, for finite differences."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * (SIDE - 2) ** 2, CLASSES)
    ).double()


def random_data(count, seed, dtype=torch.float64):
    """Images (count, 2, 8, 8) and probabilities (count, 3)."""
    stream = generator(seed)
    images = torch.randn(count, 2, SIDE, SIDE, generator=stream, dtype=dtype)
    return images, softmax(torch.randn(count, CLASSES, generator=stream, dtype=dtype), 1)


def batch(step, count=5, size=4):
    """A batch that repeats one image, flipped or rotated."""
    indices = torch.randint(count, (size,), generator=generator(step))
    indices[-1] = indices[0]
    return indices, lambda images: AUGMENT(images, generator(100 + step))


def setting(optimizer, module=None, dtype=torch.float64):
    """An inner training after three steps, its set, and the outer loss."""
    network = FlatNetwork(module or convnet(dtype=dtype))
    inner, data = (
        InnerTraining(network=network, optimizer=optimizer, batch=batch),
        random_data(5, 0, dtype),
    )
    theta = network.initial(0)
    state = run_steps(inner, theta, optimizer.start(theta), *data, range(3))
    return inner, state, data, lambda theta: cross_entropy(network(theta, real[0]), real[1])


real = random_data(7, 1)


# ---- the network ---------------------------------------------------------------------------------


def test_it_is_the_module_with_those_parameters():
    module, images = convnet(dtype=torch.float32), random_data(4, 0, torch.float32)[0]
    network = FlatNetwork(module)
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    assert network.size == len(theta) and network(theta, images).equal(module(images))
    assert not network(network.initial(3), images).equal(module(images))
    assert nn.utils.parameters_to_vector(module.parameters()).equal(theta)


def test_a_fresh_theta_is_that_of_a_fresh_module_and_draws_nothing_from_torchs_stream():
    network, before = FlatNetwork(convnet(dtype=torch.float32)), torch.get_rng_state()
    theta = network.initial(5)
    assert (
        torch.get_rng_state().equal(before)
        and theta.equal(network.initial(5))
        and not theta.equal(network.initial(6))
    )
    torch.manual_seed(5)
    assert theta.equal(nn.utils.parameters_to_vector(convnet(dtype=torch.float32).parameters()))


def test_the_mask_is_the_biases_before_a_norm_and_their_true_gradient_is_rounding():
    module = convnet()
    names = [name for name, p in module.named_parameters() for _ in range(p.numel())]
    network = FlatNetwork(module)
    assert {name for name, free in zip(names, network.mask, strict=True) if not free} == {
        "0.bias",
        "4.bias",
    }
    cross_entropy(module(real[0]), real[1]).backward()
    exact = torch.cat([p.grad.flatten() for p in module.parameters()])
    assert exact[network.mask == 0].abs().max() < 1e-15 < exact[network.mask == 1].abs().max()
    theta = nn.utils.parameters_to_vector(module.parameters()).detach().requires_grad_()
    (found,) = torch.autograd.grad(cross_entropy(network(theta, real[0]), real[1]), theta)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-14)
    assert (found[network.mask == 0] == 0).all()


def test_other_biases_are_not_masked():
    grouped = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(4, 4)
    )
    assert FlatNetwork(grouped).mask.all() and FlatNetwork(smooth()).mask.all()


def test_a_network_with_statistics_is_an_error():
    with pytest.raises(DistilleryError, match=r"'1\.running_mean'.*norm 'instance'"):
        FlatNetwork(convnet(norm="batch"))


@pytest.mark.parametrize("optimizer", [Adam(1e-2), Sgd(0.05, 0.9)], ids=str)
def test_training_leaves_masked_biases_where_they_were(optimizer):
    inner, (theta, _), *_ = setting(optimizer)
    start, cancelled = inner.network.initial(0), inner.network.mask == 0
    assert theta[cancelled].equal(start[cancelled]) and (theta != start)[~cancelled].any()


# ---- the optimisers ------------------------------------------------------------------------------


def torchs(optimizer, parameter):
    if isinstance(optimizer, Adam):
        return torch.optim.Adam([parameter], optimizer.lr, optimizer.betas, optimizer.eps)
    return torch.optim.SGD(
        [parameter], optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay
    )


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Adam(0.1, (0.5, 0.9), 1e-3)], ids=str)
def test_steps_are_those_of_torch(optimizer):
    stream = generator(0)
    theta = torch.randn(9, generator=stream, dtype=torch.float64)
    parameter, moments = nn.Parameter(theta.clone()), optimizer.start(theta)
    other = torchs(optimizer, parameter)
    for count in range(8):
        gradient = torch.randn(9, generator=stream, dtype=torch.float64) * 10.0 ** torch.arange(
            -8, 1
        )
        gradient[0] = 0.0
        parameter.grad = gradient
        other.step()
        theta, moments = optimizer.step(theta, moments, gradient, count)
        torch.testing.assert_close(theta, parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [0, 4, 300])
def test_adam_counts_by_a_tensor_too(count):
    stream = generator(3)
    theta, gradient, mean, square = torch.randn(4, 30, generator=stream, dtype=torch.float64)
    moments = mean, square.square()
    expected, _ = Adam(1e-2).step(theta, moments, gradient, count)
    found, _ = Adam(1e-2).step(theta, moments, gradient, torch.tensor(count))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    assert not expected.equal(Adam(1e-2).step(theta, moments, gradient, count + 1)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_steps_derivative_is_that_of_finite_differences(optimizer):
    stream = generator(1)
    theta, gradient, *moments = torch.randn(
        2 + len(optimizer.start(torch.ones(1))), 6, generator=stream, dtype=torch.float64
    )
    if len(moments) == 2:
        moments[1] = moments[1].square() + 0.1
    values = [value.requires_grad_() for value in (theta, gradient, *moments)]

    def step(theta, gradient, *moments):
        after, later = optimizer.step(theta, moments, gradient, 4)
        return after, *later

    assert torch.autograd.gradcheck(step, values)


# ---- the meta-gradient ---------------------------------------------------------------------------


def apart(one, other):
    return float((one - other).norm() / other.norm())


def naive(inner, theta, moments, images, labels, steps, outer):
    """One graph from the set to the outer loss, by torch alone."""
    images, labels, theta = (part.detach().requires_grad_() for part in (images, labels, theta))
    for step in steps:
        indices, augment = inner.batch(step)
        loss = inner.loss(inner.network(theta, augment(images[indices])), labels[indices])
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta, moments = inner.optimizer.step(theta, moments, gradient, step)
    return outer(theta), *torch.autograd.grad(outer(theta), (images, labels))


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_it_is_the_gradient_of_a_naive_unroll(optimizer, explicit):
    inner, state, data, outer = setting(optimizer)
    (expected, *whole) = naive(inner, *state, *data, range(3, 9), outer)
    inner = replace(inner, network=FlatNetwork(convnet(), explicit=explicit))
    (loss, *found) = meta_gradients(inner, *state, *data, range(3, 9), outer)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    assert all(
        one.norm() > 0 and apart(one, other) < 1e-10
        for one, other in zip(found, whole, strict=True)
    )
    assert [one.shape for one in found] == [tensor.shape for tensor in data]
    assert not any(tensor.requires_grad for tensor in (loss, *found, *data, state[0], *state[1]))


def test_the_bits_are_the_same_however_many_graphs_are_kept(monkeypatch):
    """With torch's layers equal to rounding: its norm's first derivative is another in a graph."""
    inner, state, data, _ = setting(Adam(1e-2), dtype=torch.float32)
    inner = replace(inner, network=FlatNetwork(convnet(dtype=torch.float32), explicit=True))
    outer = batched_loss(inner.network, real[0].float(), real[1].float())
    plain, made = window.run_steps, []

    def counted(*arguments):
        made.append(arguments[-1])
        return plain(*arguments)

    monkeypatch.setattr(window, "run_steps", counted)
    size = window._measured(window._Graph.of_step, inner, state, *data, 3)[1]
    runs = []
    for graphs in (0, 1, 2.5, 6, math.inf):
        made.clear()
        runs.append(
            meta_gradients(inner, *state, *data, range(3, 9), outer, graph_bytes=graphs * size)
        )
        # A window of six: the last ones keep their graphs; the first is made as one to measure it.
        assert [steps.start for steps in made] == {
            0: [3, 4, 5, 6, 7, 8],
            1: [4, 5, 6, 7],
            2.5: [4, 5, 6],
            6: [],
            math.inf: [],
        }[graphs]
    for run in runs[1:]:
        assert all(one.equal(other) for one, other in zip(run, runs[0], strict=True))


def test_a_graph_is_as_large_as_what_it_keeps():
    """Two layers by hand: the input of each product, the ReLU's result, and theta."""
    inner, state, data, _ = setting(Sgd(0.1), smooth())
    size = window._measured(window._Graph.of_step, inner, state, *data, 3)[1]
    batch, hidden = 4 * 2 * SIDE**2, 4 * 3 * (SIDE - 2) ** 2
    assert 8 * (batch + 2 * hidden) < size < 8 * (6 * batch + 8 * hidden + 6 * inner.network.size)


def test_an_image_no_step_saw_has_no_gradient():
    inner, state, data, outer = setting(Adam())
    images, labels = meta_gradients(inner, *state, *data, range(3, 4), outer)[1:]
    seen = batch(3)[0].unique()
    assert len(seen) < 5
    for found in (images, labels):
        assert found.flatten(1).any(1).nonzero().flatten().equal(seen)


@pytest.mark.parametrize("optimizer", [Adam(1e-2), Sgd(0.05, 0.9)], ids=str)
def test_the_gradient_is_that_of_finite_differences(optimizer):
    inner, state, data, outer = setting(optimizer, smooth())
    found, steps, step = meta_gradients(inner, *state, *data, range(3, 7), outer), range(3, 7), 1e-5
    for which in (0, 1):
        for seed in range(3):
            direction = torch.randn(
                data[which].shape, generator=generator(seed), dtype=torch.float64
            )
            ends = []
            for sign in (1, -1):
                moved = [
                    tensor + sign * step * direction if i == which else tensor
                    for i, tensor in enumerate(data)
                ]
                ends.append(outer(run_steps(inner, *state, *moved, steps)[0]))
            expected = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(
                (found[1 + which] * direction).sum(), expected, rtol=1e-5, atol=1e-9
            )


def test_the_loss_is_that_of_plain_steps_and_a_window_continues_a_training():
    inner, state, data, outer = setting(Adam(1e-2))
    theta = inner.network.initial(0)
    alone, _ = run_steps(inner, theta, inner.optimizer.start(theta), *data, range(9))
    assert meta_gradients(inner, *state, *data, range(3, 9), outer).loss.equal(outer(alone))
    restarted = meta_gradients(
        inner, state[0], inner.optimizer.start(theta), *data, range(6), outer
    )
    assert not restarted.loss.equal(outer(alone))


@pytest.mark.parametrize("graph_bytes", [0.0, math.inf])
def test_a_dead_channel_leaves_the_gradient_finite(graph_bytes):
    inner, _, data, outer = setting(Adam(), convnet(dtype=torch.float32), torch.float32)
    module = convnet(dtype=torch.float32)
    with torch.no_grad():
        module[1].weight[0], module[1].bias[0] = (
            0.0,
            -1.0,
        )  # the ReLU behind lets nothing of it through
    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    _, moments = run_steps(inner, theta, inner.optimizer.start(theta), *data, range(2))
    assert (moments[1][inner.network.mask == 1] == 0).any()
    outer = batched_loss(inner.network, real[0].float(), real[1].float())
    found = meta_gradients(
        inner, theta, inner.optimizer.start(theta), *data, range(4), outer, graph_bytes=graph_bytes
    )
    assert all(value.isfinite().all() for value in found) and found.images.norm() > 0


def test_without_the_floor_a_dead_channel_is_not_finite(monkeypatch):
    monkeypatch.setattr("distillery.unroll.optimizers.LEAST", -1.0)
    with pytest.raises(AssertionError):
        test_a_dead_channel_leaves_the_gradient_finite(0.0)


def test_the_same_call_gives_the_same_bits():
    inner, state, data, outer = setting(Adam(), dtype=torch.float32)
    outer = batched_loss(inner.network, real[0], real[1])
    first, again = (meta_gradients(inner, *state, *data, range(3, 6), outer) for _ in range(2))
    assert all(
        one.equal(other) and one.dtype == torch.float32
        for one, other in zip(first, again, strict=True)
    )


# ---- the outer loss in parts ---------------------------------------------------------------------


@pytest.mark.parametrize("labels", [real[1], real[1].argmax(1)], ids=["soft", "hard"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_a_loss_in_parts_is_that_of_all_at_once(chunk, labels):
    network = FlatNetwork(convnet())
    theta = network.initial(0).requires_grad_()
    seen = []
    expected = cross_entropy(network(theta, real[0]), labels)

    def counted(theta, images):
        seen.append(len(images))
        return network(theta, images)

    found = batched_loss(counted, real[0], labels, chunk)(theta)
    assert max(seen) <= chunk and sum(seen) == 7
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(3 * loss, theta)[0] for loss in (found, expected))
    )


@pytest.mark.parametrize("graph_bytes", [0.0, math.inf])
def test_the_meta_gradient_through_a_loss_in_parts_is_the_same(graph_bytes):
    inner, state, data, outer = setting(Adam(1e-2))
    parts = batched_loss(inner.network, *real, chunk=3)
    found = (
        meta_gradients(inner, *state, *data, range(3, 6), loss, graph_bytes=graph_bytes)
        for loss in (parts, outer)
    )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_highers_adam_is_ours_with_epsilon_over_the_correction():
    """`higher`: theta - lr sqrt(b2) / b1 m / (sqrt(v) + eps), the root not corrected."""
    stream = generator(4)
    theta, gradient, mean = torch.randn(3, 20, generator=stream, dtype=torch.float64)
    gradient, square, eps = gradient * 1e-7, torch.full((20,), 1e-15, dtype=torch.float64), 1e-8
    for count in (0, 9, 99):
        bias_1, bias_2 = 1 - 0.9 ** (count + 1), 1 - 0.999 ** (count + 1)
        m, v = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        by_hand = theta - 1e-3 * bias_2**0.5 / bias_1 * m / (v.sqrt() + eps)
        moments = (mean, square)
        same, _ = Adam(1e-3, eps=eps / bias_2**0.5).step(theta, moments, gradient, count)
        torch.testing.assert_close(same, by_hand, rtol=1e-12, atol=0)
        ours, _ = Adam(1e-3, eps=eps).step(theta, moments, gradient, count)
        assert (ours - by_hand).abs().max() > 1e-6  # where roots are as small as epsilon
