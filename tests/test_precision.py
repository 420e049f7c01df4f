"""The memory format of a network, by its norm, device and precision."""

import pytest
import torch
from torch import nn

from distillery.training.loop import initialise
from distillery.training.precision import autocast, set_memory_format

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- layout --------------------------------------------------------------------------------------


def norms(norm):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        norm,
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.mark.parametrize(
    ("norm", "device", "bf16", "last"),
    [
        (nn.BatchNorm2d(8), "cpu", False, True),
        (nn.BatchNorm2d(8), "cpu", True, True),
        (nn.GroupNorm(8, 8), "cpu", False, False),
        (nn.GroupNorm(8, 8), "cpu", True, False),
        (nn.InstanceNorm2d(8), "cpu", True, False),
        (nn.BatchNorm2d(8), "cuda", False, False),
        (nn.BatchNorm2d(8), "cuda", True, True),
        (nn.GroupNorm(8, 8), "cuda", True, True),
    ],
)
def test_channels_last_where_it_is_faster(norm, device, bf16, last):
    for before in (torch.contiguous_format, torch.channels_last):
        model = norms(norm).to(memory_format=before)
        assert set_memory_format(model, torch.device(device), bf16) is model
        layout = torch.channels_last if last else torch.contiguous_format
        assert all(p.is_contiguous(memory_format=layout) for p in model.parameters() if p.ndim == 4)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda width: nn.GroupNorm(width, width)])
def test_the_layout_of_the_weights_decides_and_not_that_of_the_images(norm, bf16):
    images, cpu = (
        torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)),
        torch.device("cpu"),
    )
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = set_memory_format(initialise(lambda: norms(norm(8)), 0), cpu, bf16)
        with autocast(cpu, bf16):
            logits = model(
                images.contiguous(memory_format=layout)
                if isinstance(model[1], nn.BatchNorm2d)
                else images
            )
        logits.float().square().sum().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    assert all(one.equal(other) for one, other in zip(*found, strict=True))
