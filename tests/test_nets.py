"""Networks against the counts of the authors' (UFC, MTT, PoDD) and against torchvision's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import models

from distillery.components import registry
from distillery.errors import PlanError
from distillery.losses.target import Target
from distillery.nets.features import fired_batch_norms, penultimate
from distillery.nets.stem import restem
from distillery.training.loop import initialise, train
from distillery.training.recipe import Optimizer, Training
from distillery.training.samples import Samples
from helpers.jobs import job_in

SMALL = (
    "convnet",
    "resnet10",
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v2_plain",
    "efficientnet_b0",
    "shufflenet_v1",
    "shufflenet_v2",
    "wrn16_2",
)
NARROW = {"convnet": {"width": 8}, "shufflenet_v2": {"width": 0.5}}


def build(
    name: str, channels: int = 3, size: int = 32, classes: int = 10, **recipe: object
) -> nn.Module:
    module, read = registry.build("network", {"name": name, **recipe})
    return module.build(name, read, channels=channels, size=size, classes=classes)


def narrow(name: str, **shape: int) -> nn.Module:
    return build(name, **shape, **NARROW.get(name, {"width": 0.25}))


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "recipe", "ten", "hundred"),
    [
        ("convnet", {"norm": "batch"}, 320_010, 504_420),
        ("convnet", {"norm": "instance"}, 320_010, 504_420),
        ("resnet18", {}, 11_173_962, 11_220_132),
        ("mobilenet_v2", {}, 2_296_922, 2_412_212),
        ("mobilenet_v2_plain", {}, 697_546, 812_836),
        (
            "efficientnet_b0",
            {},
            3_599_686 - 1_088,
            3_628_576 - 1_088,
        ),  # without UFC's unused expansion
        ("shufflenet_v1", {}, 887_582, 959_672),
    ],
)
def test_parameter_counts_of_the_authors_networks(
    name: str, recipe: dict, ten: int, hundred: int
) -> None:
    with torch.device("meta"):
        assert [parameters(build(name, classes=classes, **recipe)) for classes in (10, 100)] == [
            ten,
            hundred,
        ]


def test_wide_resnet_16_2_counted_by_hand() -> None:
    # per group of two blocks: four 3x3 convolutions, four batch norms, the 1x1 shortcut of the
    # first block
    first = (16 + 32 + 32 + 32) * 32 * 9 + 2 * (16 + 32 + 32 + 32) + 16 * 32
    second = (32 + 64 + 64 + 64) * 64 * 9 + 2 * (32 + 64 + 64 + 64) + 32 * 64
    third = (64 + 128 + 128 + 128) * 128 * 9 + 2 * (64 + 128 + 128 + 128) + 64 * 128
    body = 3 * 16 * 9 + first + second + third + 2 * 128
    net = build("wrn16_2")
    assert parameters(net) == body + 129 * 10 == 691_674
    assert parameters(build("wrn16_2", classes=100)) == body + 129 * 100 == 703_284
    assert (
        sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in net.modules()) == 16 - 3
    )  # and 2 + 1 of these:
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) for m in net.modules()) == 3
    assert len(fired_batch_norms(net, torch.zeros(1, 3, 32, 32))) == 13


def test_wide_resnet_shortcut_reads_the_activated_input_where_channels_change() -> None:
    net, x = build("wrn16_2", width=0.25).eval(), torch.randn(2, 4, 8, 8)
    first, second = net[1], net[2]
    active = torch.relu(first.activate[0](x))
    torch.testing.assert_close(first(x), first.branch(active) + first.shortcut(active))
    y = torch.randn(2, 8, 8, 8)
    torch.testing.assert_close(second(y) - second.branch(torch.relu(second.activate[0](y))), y)


@pytest.mark.parametrize(
    ("recipe", "count"), [({}, 857_160), ({"depth": 4}, 857_160), ({"depth": 3}, 1_938_120)]
)
def test_convnet_at_64_px(recipe: dict, count: int) -> None:
    assert parameters(build("convnet", size=64, classes=200, **recipe)) == count


@pytest.mark.parametrize(
    ("size", "depth"), [(4, 2), (8, 2), (16, 2), (28, 3), (32, 3), (64, 4), (128, 5), (256, 6)]
)
def test_convnet_depth_follows_the_resolution(size: int, depth: int) -> None:
    net = build("convnet", width=2, size=size)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == depth


@pytest.mark.parametrize(("size", "depth"), [(8, 4), (32, 6), (2, None)])
def test_convnet_too_deep(size: int, depth: int | None) -> None:
    with pytest.raises(PlanError, match="below one pixel; use depth"):
        build("convnet", size=size, depth=depth)


def test_convnet_instance_norm_is_torchs() -> None:
    net, images = build("convnet", width=8), torch.randn(4, 3, 32, 32)
    logits = net(images)
    torch.testing.assert_close(net(images[:1]), logits[:1])
    for i, module in enumerate(net):
        if isinstance(module, nn.GroupNorm):
            net[i] = nn.InstanceNorm2d(8, affine=True)
    torch.testing.assert_close(net(images), logits)


PUBLISHED = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
    "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1,
    "efficientnet_b0": models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    "shufflenet_v2": models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_large_images_get_the_published_network(name: str) -> None:
    with torch.device("meta"):
        assert parameters(build(name, size=224, classes=1000)) == PUBLISHED[name].meta["num_params"]


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_bottleneck_resnets_differ_from_the_published_ones_by_stem_and_classifier(
    name: str,
) -> None:
    stem, classifier = (7 * 7 - 3 * 3) * 3 * 64, (2048 + 1) * (1000 - 10)
    with torch.device("meta"):
        assert parameters(build(name)) == PUBLISHED[name].meta["num_params"] - stem - classifier


@pytest.mark.parametrize(
    ("name", "twin"),
    [(name, name) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0")]
    + [("shufflenet_v2", "shufflenet_v2_x1_0")],
)
def test_from_128_px_on_networks_compute_what_torchvisions_do(name: str, twin: str) -> None:
    ours, theirs = build(name, size=128).eval(), models.get_model(twin, num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_forward_at_224_px() -> None:
    with torch.no_grad():
        assert build("resnet18", size=224, classes=7).eval()(torch.randn(1, 3, 224, 224)).shape == (
            1,
            7,
        )


def test_shufflenet_v1_has_its_published_stem_at_128_px() -> None:
    assert _last_map(build("shufflenet_v1", size=128, width=0.25), 128) == 128 // 32


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 32), (3, 32), (3, 64)])
def test_forward_and_backward(name: str, channels: int, size: int) -> None:
    net = narrow(name, channels=channels, size=size)
    logits = net(torch.randn(2, channels, size, size))
    logits.logsumexp(1).sum().backward()
    assert logits.shape == (2, 10) and logits.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def _last_map(net: nn.Module, size: int) -> int:
    sides: list[int] = []
    last = fired_batch_norms(net, torch.zeros(1, 3, size, size))[-1]
    last.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    net.eval()(torch.zeros(1, 3, size, size))
    return sides[0]


@pytest.mark.parametrize(
    ("name", "recipe", "side"),
    [
        ("resnet18", {"width": 0.25}, 4),
        ("mobilenet_v2", {"width": 0.25}, 4),
        ("mobilenet_v2", {"width": 0.25, "stem_stride": 2}, 2),
        ("mobilenet_v2_plain", {"width": 0.25}, 2),
        ("efficientnet_b0", {"width": 0.25}, 2),
        ("shufflenet_v1", {"width": 0.25}, 4),
        ("shufflenet_v2", {"width": 0.5}, 4),
        ("wrn16_2", {}, 8),
    ],
)
def test_final_map_of_small_images(name: str, recipe: dict, side: int) -> None:
    assert [_last_map(build(name, size=size, **recipe), size) for size in (32, 64)] == [
        side,
        2 * side,
    ]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 20),
        ("mobilenet_v2", 57),
        ("mobilenet_v2_plain", 53),
        ("efficientnet_b0", 48),
        ("shufflenet_v1", 49),
    ],
)
def test_fired_batch_norms_of_the_authors_networks(name: str, count: int) -> None:
    assert len(fired_batch_norms(build(name), torch.randn(2, 3, 32, 32))) == count


class _Odd(nn.Module):
    """Registers b, unused, a; runs a, then b."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.unused, self.a = (nn.BatchNorm2d(3) for _ in range(3))
        self.a.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def test_fired_batch_norms_are_in_registration_order_and_left_alone() -> None:
    net = _Odd()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert fired_batch_norms(net, torch.randn(2, 3, 4, 4)) == [net.b, net.a]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert (net.training, net.a.training, net.b.training) == (True, False, True)
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("name", SMALL)
def test_classifier_of_penultimate_gives_the_logits(name: str) -> None:
    net, images = narrow(name).eval(), torch.randn(2, 3, 32, 32)
    classifier = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    features = penultimate(net, images)
    assert features.shape == (2, classifier.in_features) and features.requires_grad
    torch.testing.assert_close(features @ classifier.weight.T + classifier.bias, net(images))


def test_penultimate_reads_the_linear_layer_that_runs_last() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.flatten(1)).relu())

    net, images = Swapped(), torch.randn(5, 1, 2, 2)
    torch.testing.assert_close(penultimate(net, images), net.first(images.flatten(1)).relu())


def test_penultimate_needs_a_linear_layer() -> None:
    with pytest.raises(PlanError, match="no penultimate features"):
        penultimate(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), torch.zeros(1, 3, 2, 2))


def test_resnet_width_scales_every_layer() -> None:
    for full, quarter in zip(
        build("resnet18").modules(), build("resnet18", width=0.25).modules(), strict=True
    ):
        if isinstance(full, nn.Conv2d):
            assert quarter.out_channels * 4 == full.out_channels
        if isinstance(full, nn.Linear):
            assert quarter.in_features * 4 == full.in_features


def test_resnet_width_is_rounded_to_the_nearest_channel() -> None:
    # 0.33 times 64, 64, 128, 256, 512 is 21.12, 21.12, 42.24, 84.48, 168.96
    net = build("resnet10", width=0.33)
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    assert [stage[0].conv1.out_channels for stage in stages] == [21, 42, 84, 169]
    assert net.conv1.out_channels == 21 and net.fc.in_features == 169


def test_wide_resnet_has_the_initialisation_of_he_by_fan_out() -> None:
    # He et al. 2015: variance 2 / fan-out; the fan-ins of these layers are half of it or less
    torch.manual_seed(0)
    for layer in build("wrn16_2").modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels >= 2 * layer.in_channels:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            spread = layer.weight.numel() ** -0.5
            assert abs(layer.weight.std() / (2 / fan_out) ** 0.5 - 1) < 4 * spread


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_variants_for_small_images_are_initialised_as_torch_does(name: str) -> None:
    """torch.nn.Conv2d and Linear: uniform within 1 / sqrt(fan-in), weights and biases."""
    torch.manual_seed(0)
    for layer in build(name).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            largest = layer.weight.abs().max()
            assert largest <= bound and (layer.weight.numel() < 1000 or largest > 0.98 * bound)


def test_efficientnet_drops_no_block_of_small_images() -> None:
    net, images = build("efficientnet_b0", width=0.25).train(), torch.randn(4, 3, 8, 8)
    assert torch.equal(net.features(images), net.features(images))


def test_shufflenet_v1_mixes_its_groups() -> None:
    """Each half of a unit's output reads both halves of its input, though its groups are two."""
    branch = build("shufflenet_v1").stage2[1].branch.eval()
    x = torch.randn(1, 200, 4, 4, requires_grad=True)
    for half in branch(x).chunk(2, 1):
        (gradient,) = torch.autograd.grad(half.square().sum(), x, retain_graph=True)
        assert all(part.abs().sum() > 0 for part in gradient.chunk(2, 1))


def test_mobilenet_has_plain_relu_and_shortcuts_where_channels_change() -> None:
    net = build("mobilenet_v2")
    assert not any(isinstance(m, nn.ReLU6) for m in net.modules())
    shortcuts = [block.shortcut for block in net.features[1:-1]]
    assert [type(s).__name__ for s in shortcuts].count("NoneType") == 3  # the blocks of stride 2
    assert sum(isinstance(s, nn.Sequential) for s in shortcuts) == 4  # 32-16, 16-24, 64-96, 160-320


def test_plain_mobilenet_has_identities_alone_and_widths_that_are_no_multiples_of_8() -> None:
    net = build("mobilenet_v2_plain")
    assert not any(isinstance(m, nn.ReLU6) for m in net.modules())
    blocks = net.features[1:-1]
    kinds = [type(block.shortcut).__name__ for block in blocks]
    # of 17 blocks 3 have stride 2, and at 4 of stride 1 the channels change
    assert (kinds.count("NoneType"), kinds.count("Identity")) == (3 + 4, 10)
    outputs = [block.branch[-1][0].out_channels for block in blocks]
    assert outputs == [8, *[12] * 2, *[16] * 3, *[32] * 4, *[48] * 3, *[80] * 3, 160]
    assert (net.features[0][0].stride, net.features[0][0].out_channels) == ((2, 2), 16)
    assert net.features[-1][0].out_channels == 1280


def test_plain_mobilenet_starts_from_the_variance_of_its_outputs() -> None:
    torch.manual_seed(0)
    net = build("mobilenet_v2_plain")
    depthwise = torch.cat(
        [
            b.branch[1][0].weight.flatten() * (b.branch[1][0].groups * 9 / 2) ** 0.5
            for b in net.features[1:-1]
        ]
    )
    head = net.features[-1][0].weight * (1280 / 2) ** 0.5
    for weights in (depthwise, head, net.classifier[1].weight / 0.01):
        assert abs(weights.std() - 1) < 0.02 and abs(weights.mean()) < 0.02
    assert not net.classifier[1].bias.any()


def test_shufflenet_v1_unit_of_stride_2_keeps_its_averaged_input() -> None:
    unit, x = build("shufflenet_v1", width=0.25).stage3[0], torch.randn(2, 48, 8, 8)
    out = unit(x)
    assert out.shape == (2, 104, 4, 4)  # 400 / 4 to the nearest multiple of 8
    torch.testing.assert_close(out[:, -48:], nn.functional.avg_pool2d(x, 3, 2, 1).relu())


def test_initial_weights_follow_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(narrow("shufflenet_v1").parameters())

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("bias", [True, False])
def test_restem_changes_only_what_is_asked_for(bias: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2, bias=bias), nn.Conv2d(4, 4, 3))
    second = net[1]
    restem(net, in_channels=1)
    stem = net[0]
    assert (stem.in_channels, stem.out_channels, stem.kernel_size) == (1, 4, (5, 5))
    assert (stem.stride, stem.padding, stem.bias is not None) == ((2, 2), (2, 2), bias)
    assert net[1] is second


def test_restem_leaves_a_fitting_stem_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3))
    stem = net[0]
    restem(net, in_channels=3)
    assert net[0] is stem
    restem(net, in_channels=1, stride=2)
    assert (net[0].in_channels, net[0].stride, net[0].kernel_size, net[0].bias) == (
        1,
        (2, 2),
        (3, 3),
        None,
    )


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "torchvision:resnet18", "torchvision:squeezenet1_1"]
)
def test_bridged_networks_take_grey_images(name: str) -> None:
    net = build(name, channels=1, size=32, classes=5)
    assert net.training and net(torch.randn(2, 1, 32, 32)).shape == (2, 5)


STUDENTS = {
    "resnet101": 42.90,
    "torchvision:efficientnet_b0": 4.26,
    "torchvision:mobilenet_v2": 2.48,
    "torchvision:swin_v2_t": 27.74,
}


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 11.27), *STUDENTS.items()])
def test_gifts_students_at_64_px_have_its_parameter_counts(name: str, millions: float) -> None:
    with torch.device("meta"):
        count = parameters(build(name, size=64, classes=200))
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "recipe"),
    [(name, {"width": 0.25} if name == "resnet101" else {}) for name in STUDENTS],
)
def test_gifts_students_train_at_64_px(name: str, recipe: dict, tmp_path: Path) -> None:
    pixels = torch.randint(
        0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    data = Samples(
        torch.arange(8) % 4,
        lambda i: pixels[i],
        torch.full((3, 1, 1), 0.5),
        torch.full((3, 1, 1), 0.25),
    )
    net, losses = initialise(lambda: build(name, size=64, classes=4, **recipe), 0), []
    training = Training(
        1, 200, Optimizer(lr=1e-4, weight_decay=1e-4), augment=("dsa:idc",), batch_up_to=((10, 4),)
    )

    def loss(logits: Tensor, target: Target) -> Tensor:
        assert logits.shape == (4, 4) and logits.dtype == torch.float32
        losses.append(cross_entropy(logits, target.mixed))
        return losses[-1]

    before = [p.detach().clone() for p in net.parameters()]
    history = train(net, data, training, loss, job_in(tmp_path), test=data)
    assert (
        len(losses) == 2 and all(one.isfinite() for one in losses) and list(history.accuracy) == [1]
    )
    assert all(
        p.grad.isfinite().all() and not p.equal(old)
        for p, old in zip(net.parameters(), before, strict=True)
    )


def test_bridged_network_returns_logits_alone_in_training() -> None:
    assert isinstance(build("torchvision:googlenet")(torch.randn(2, 3, 32, 32)), Tensor)


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PlanError, match="pip install timm"):
        build("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("resnet19", {}, "did you mean 'resnet1"),
        ("timm:mobilenetv2_10", {}, "did you mean 'mobilenetv2_1"),
        ("torchvision:resnet19", {}, "did you mean 'resnet1"),
        ("torchvision:fcn_resnet50", {}, "no classifier 'fcn_resnet50'"),
        ("torchvision:vit_b_16", {}, "does not take 3x32x32 images"),
        ("shufflenet_v2", {"width": 0.7}, "valid: 0.5, 1.0, 1.5, 2.0"),
    ],
)
def test_wrong_names_are_plan_errors(name: str, recipe: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build(name, **recipe)
