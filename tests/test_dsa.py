"""DSA against a slow second implementation, pixel by pixel; its place in a batch; its modes."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from distillery.errors import PlanError
from distillery.plan.types import component, validated
from distillery.training.augment import pipeline
from distillery.training.augmentations import dsa as dsa_module
from distillery.training.augmentations.dsa import OPERATIONS, Strengths, dsa
from distillery.training.batches import ROLES, Batches
from distillery.training.recipe import Training, split_at_normalisation
from distillery.training.samples import Samples

DEFAULT = Strengths()
SIDES = [(8, 8), (5, 5), (6, 9)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=5, channels=3, height=8, width=8, dtype=torch.float32):
    return torch.randn(batch, channels, height, width, generator=generator(7), dtype=dtype)


def applied(name, x, seed=0, **parameters):
    return OPERATIONS[name](x, generator(seed), getattr(Strengths(**parameters), name))


def uniform(count, seed=0):
    return torch.rand(count, 1, 1, 1, generator=generator(seed)).flatten().tolist()


# ---- each operation, pixel by pixel --------------------------------------------------------------


def by_pixel(x, value):
    """value(image, channel, row, column) at each place of each image, images in float64 numpy."""
    x = x.double().numpy()
    return torch.tensor(
        [
            [
                [[value(x, *at, i, j) for j in range(x.shape[3])] for i in range(x.shape[2])]
                for at in row
            ]
            for row in places(x)
        ]
    )


def places(x):
    return [[(b, c) for c in range(x.shape[1])] for b in range(x.shape[0])]


def slow_flip(u):
    return lambda x, b, c, i, j: x[b, c, i, x.shape[3] - 1 - j if u[b] < 0.5 else j]


def slow_brightness(u):
    return lambda x, b, c, i, j: x[b, c, i, j] + (u[b] - 0.5)


def slow_saturation(u):
    return lambda x, b, c, i, j: (
        (grey := sum(x[b, :, i, j]) / x.shape[1]) + (x[b, c, i, j] - grey) * 2 * u[b]
    )


def slow_contrast(u):
    return lambda x, b, c, i, j: (
        (mean := sum(x[b].flatten()) / x[b].size) + (x[b, c, i, j] - mean) * (u[b] + 0.5)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("flip", slow_flip),
        ("brightness", slow_brightness),
        ("saturation", slow_saturation),
        ("contrast", slow_contrast),
    ],
)
def test_flip_and_colour_are_the_formulas_of_the_table(name, slow, channels):
    x = images(4, channels, 5, 6)
    expected = by_pixel(x, slow(uniform(4)))
    torch.testing.assert_close(applied(name, x).double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast"])
def test_colour_is_the_identity_at_one_half(name, monkeypatch):
    monkeypatch.setattr(dsa_module, "_uniform", lambda x, g: torch.full((len(x), 1, 1, 1), 0.5))
    torch.testing.assert_close(applied(name, images()), images(), atol=1e-6, rtol=0)


def test_saturation_of_grey_images_is_the_identity():
    torch.testing.assert_close(applied("saturation", images(channels=1)), images(channels=1))


def test_brightness_and_flip_are_drawn_for_each_image_over_their_whole_range():
    x = torch.zeros(2000, 1, 1, 2) + torch.tensor([0.0, 1.0])
    moved = applied("brightness", x) - x
    torch.testing.assert_close(moved[..., 0], moved[..., 1])
    assert scipy.stats.kstest(moved[:, 0, 0, 0], scipy.stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    assert scipy.stats.binomtest(int(applied("flip", x)[:, 0, 0, 0].sum()), 2000).pvalue > 1e-3


def shifted(image, down, right):
    found = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            if 0 <= i - down < image.shape[1] and 0 <= j - right < image.shape[2]:
                found[:, i, j] = image[:, i - down, j - right]
    return found


@pytest.mark.parametrize(
    ("share", "sides", "reach"),
    [(0.125, (8, 8), (1, 1)), (0.3, (5, 5), (2, 2)), (0.2, (6, 9), (1, 2))],
)
def test_crop_is_a_shift_with_zeros_each_within_reach_alike(share, sides, reach):
    image = images(1, 2, *sides)[0]
    shifts = [
        (i, j) for i in range(-reach[0], reach[0] + 1) for j in range(-reach[1], reach[1] + 1)
    ]
    candidates = {shifted(image.numpy(), *shift).tobytes(): shift for shift in shifts}
    assert len(candidates) == len(shifts)
    found = (
        applied("crop", image.expand(100 * len(shifts), -1, -1, -1), crop=share) + 0.0
    )  # -0 is 0
    counts = Counter(candidates[one.numpy().tobytes()] for one in found)
    assert scipy.stats.chisquare([counts[shift] for shift in shifts]).pvalue > 1e-3


@pytest.mark.parametrize(("side", "reach"), [(32, 4), (64, 8), (128, 16), (224, 28)])
def test_crop_reaches_an_eighth_of_the_side(side, reach):
    # floor(0.125 side + 0.5), as in the code of DSA
    # a bar in the first column: its place is the shift to the right; moved out to the left it is
    # gone
    x = torch.zeros(60 * reach, 1, 1, side)
    x[..., reach] = 1
    places = applied("crop", x)[:, 0].sum(1).argmax(1)
    assert (places.min(), places.max()) == (0, 2 * reach)


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_cutout_is_a_clipped_rectangle_of_zeros_each_centre_alike(sides):
    x = torch.ones(20, 2, *sides)
    cuts = [math.floor(0.5 * n + 0.5) for n in sides]
    centres = [range(n + (side % 2 == 0)) for n, side in zip(sides, cuts, strict=True)]
    spans = [
        [tuple(i for i in range(c - s // 2, c - s // 2 + s) if 0 <= i < n) for c in cs]
        for cs, s, n in zip(centres, cuts, sides, strict=True)
    ]
    rectangles = Counter((rows, columns) for rows in spans[0] for columns in spans[1])
    found = Counter()
    for image in torch.cat([applied("cutout", x, seed) for seed in range(100)]):
        assert image[0].equal(image[1]) and image.unique().tolist() in ([0, 1], [0])
        zero = image[0] == 0
        rows, columns = (tuple(zero.any(side).nonzero().flatten().tolist()) for side in (1, 0))
        assert zero.sum() == len(rows) * len(columns)
        found[rows, columns] += 1
    assert found.keys() <= rectangles.keys()
    expected = [2000 * count / rectangles.total() for count in rectangles.values()]
    assert scipy.stats.chisquare([found[r] for r in rectangles], expected).pvalue > 1e-3


def torchs(x, theta):
    grid = F.affine_grid(
        torch.stack([torch.stack(row, 1) for row in theta], 1), x.shape, align_corners=False
    )
    return F.grid_sample(
        x, grid.to(x.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("most", [1.0, 1.2, 3.0])
def test_scale_is_torchs_affine_grid(most, sides):
    x, none = images(40, 3, *sides, dtype=torch.float64), torch.zeros(40)
    down, right = torch.empty(2, 40, 1).uniform_(1 / most, most, generator=generator())[:, :, 0]
    assert (
        1 / most - 1e-6 <= min(down.min(), right.min())
        and max(down.max(), right.max()) <= most + 1e-6
    )
    expected = torchs(x, [[right, none, none], [none, down, none]])
    torch.testing.assert_close(applied("scale", x, scale=most), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("most", [0.0, 15.0, 180.0])
def test_rotation_is_torchs_affine_grid(most, sides):
    x, none = images(40, 3, *sides, dtype=torch.float64), torch.zeros(40)
    angle = (
        torch.empty(40, 1, 1).uniform_(-most, most, generator=generator()).flatten() * math.pi / 180
    )
    expected = torchs(x, [[angle.cos(), -angle.sin(), none], [angle.sin(), angle.cos(), none]])
    torch.testing.assert_close(applied("rotate", x, rotate=most), expected, atol=1e-5, rtol=0)


def test_angles_and_factors_fill_their_range(monkeypatch):
    seen = []
    monkeypatch.setattr(
        dsa_module, "at_points", lambda x, rows, columns: seen.append((rows, columns)) or x
    )
    monkeypatch.setattr(
        dsa_module, "at_lines", lambda x, rows, columns: seen.append((rows, columns)) or x
    )
    x = torch.zeros(3000, 1, 1, 1).expand(3000, 1, 4, 4)
    for name in ("rotate", "scale"):
        applied(name, x)
    (rows, columns), places = seen
    angle = torch.atan2(
        rows[:, 0, 3] - rows[:, 0, 0], columns[:, 0, 3] - columns[:, 0, 0]
    ).rad2deg()
    assert scipy.stats.kstest(angle, scipy.stats.uniform(-15, 30).cdf).pvalue > 1e-3
    for line in places:
        factor = (line[:, 3] - line[:, 0]) / 3
        assert (
            scipy.stats.kstest(factor, scipy.stats.uniform(1 / 1.2, 1.2 - 1 / 1.2).cdf).pvalue
            > 1e-3
        )


def test_a_quarter_turn_is_exact():
    x, places = images(1, 1, 4, 4), torch.arange(4) + 0.5
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    turned = dsa_module.at_points(x, columns[None], (4 - rows)[None])
    assert turned.equal(torch.rot90(x, 1, (2, 3)))


# ---- the operations together ---------------------------------------------------------------------


def operations(mode, batches=600):
    """The names of the operations of each batch."""
    stream = generator()
    return [tuple(dsa_module.MODES[mode](stream)) for _ in range(batches)]


def test_idc_draws_one_geometric_operation_for_each_batch():
    found = Counter(operations("idc"))
    always = ("flip", "brightness", "saturation", "contrast")
    assert set(found) == {
        (*always, geometric, "cutout") for geometric in ("crop", "scale", "rotate")
    }
    assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-3


def test_one_draws_one_of_six_groups_and_all_takes_them_in_order():
    found, colour = Counter(operations("one")), ("brightness", "saturation", "contrast")
    assert set(found) == {colour, ("crop",), ("cutout",), ("flip",), ("scale",), ("rotate",)}
    assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-3
    assert set(operations("all", 5)) == {(*colour, "crop", "cutout", "flip", "scale", "rotate")}


def test_flip_rotate_draws_one_of_the_two():
    found = Counter(operations("flip-rotate"))
    assert set(found) == {("flip",), ("rotate",)}
    assert scipy.stats.binomtest(found["flip",], 600).pvalue > 1e-3


@pytest.mark.parametrize("mode", dsa_module.MODES)
def test_dsa_is_its_operations_one_after_the_other(mode):
    for seed in range(6):
        stream, expected = generator(seed), images()
        for name in dsa_module.MODES[mode](stream):
            expected = OPERATIONS[name](expected, stream, getattr(DEFAULT, name))
        assert dsa(images(), generator(seed), mode).equal(expected)
        assert pipeline([f"dsa:{mode}"])(images(), generator(seed)).equal(expected)
    assert pipeline(["dsa"])(images(), generator()).equal(dsa(images(), generator(), "idc"))


def test_random_numbers_come_from_the_given_generator_alone():
    before = torch.get_rng_state()
    first, again = (dsa(images(), generator(3), "all") for _ in range(2))
    assert first.equal(again) and not first.equal(dsa(images(), generator(4), "all"))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradient_is_that_of_finite_differences(name, channels):
    x = images(3, channels, 5, 5, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: applied(name, x, 2), x)


@pytest.mark.parametrize("name", ["flip", "rotate"])
def test_it_is_differentiable_twice_and_its_derivative_repeats(name):
    x = images(3, 2, 5, 5, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: applied(name, x, 2).square(), x)
    first, again = (torch.autograd.grad(applied(name, x, 2).square().sum(), x)[0] for _ in range(2))
    assert first.equal(again)


def test_the_image_itself_is_left_alone():
    x = images()
    dsa(x, generator(), "all")
    assert x.equal(images())


@pytest.mark.parametrize("text", ["dsa:two", "dsa:", "dsa:1"])
def test_an_unknown_mode_is_a_plan_error(text):
    with pytest.raises(PlanError, match="valid: all, flip-rotate, idc, one"):
        pipeline([text])


# ---- in a batch ----------------------------------------------------------------------------------


def samples(count=12, value=None):
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator(1), dtype=torch.uint8)
    pixels = pixels if value is None else torch.full_like(pixels, value)
    known = {
        "labels": torch.zeros(count, dtype=torch.int64),
        "shape": (3, 8, 8),
        "pixels": lambda i: pixels[i].numpy(),
        "resident": False,
    }
    return Samples.from_images(
        SimpleNamespace(**known), "cpu", mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1)
    )


def batches(data, *names):
    streams = {role: generator(seed) for seed, role in enumerate(ROLES)}
    return list(Batches(data, Training(1, 6, augment=names), streams).epoch(0))


def test_pixels_are_augmented_before_normalising_and_dsa_comes_after():
    data, stream = samples(), generator(ROLES.index("augment"))
    for batch in batches(data, "crop:2", "flip", "dsa:all", "dsa:one"):
        expected = data.normalise(pipeline(["crop:2", "flip"])(data.take(batch.indices), stream))
        for mode in ("all", "one"):
            expected = dsa(expected, stream, mode)
        assert batch.images.equal(expected)


def test_without_dsa_batches_are_augmented_then_normalised_with_the_bits_of_before():
    data, stream = samples(), generator(ROLES.index("augment"))
    for batch in batches(data, "crop:2", "flip", "resized-crop"):
        expected = pipeline(["crop:2", "flip", "resized-crop"])(data.take(batch.indices), stream)
        assert batch.images.equal((expected - data.mean) / data.std)


def test_what_cutout_cuts_is_the_mean_exactly():
    stored, cut = samples(value=255), 4
    for batch in batches(stored, "dsa:idc"):
        assert batch.images.shape == (6, 3, 8, 8)
        assert ((batch.images == 0).all(1).sum((1, 2)) >= (cut // 2) ** 2).all()
    still = Strengths(crop=0.0, scale=1.0, rotate=0.0)
    white = stored.normalise(stored.take(torch.arange(12)))
    seen = dsa(white, generator(), "idc", still)
    zero = (seen == 0).all(1)
    assert ((seen == 0) == zero[:, None]).all()  # nothing but the cut is 0, in all channels
    for square in zero:
        sides = [int(square.any(side).sum()) for side in (0, 1)]
        assert square.sum() == sides[0] * sides[1] and all(
            cut // 2 <= side <= cut for side in sides
        )


def test_names_are_split_where_normalised_ones_begin():
    split = split_at_normalisation
    assert split(("crop:4", "flip", "dsa:one", "dsa")) == (("crop:4", "flip"), ("dsa:one", "dsa"))
    assert split(("flip",)) == (("flip",), ())
    assert split(["dsa"]) == ([], ["dsa"])
    assert split(()) == ((), ())


@pytest.mark.parametrize("names", [("dsa", "crop:4"), ("flip", "dsa:idc", "crop:4", "dsa")])
def test_pixels_after_dsa_are_a_plan_error_in_the_plan_and_in_the_batches(names):
    with pytest.raises(
        PlanError, match=r"^here\.augment: 'crop:4' works on pixels, 'dsa.*put 'crop:4' first$"
    ):
        validated(Training, {"epochs": 1, "batch": 6, "augment": list(names)}, "here")
    with pytest.raises(PlanError, match="'crop:4' works on pixels"):
        batches(samples(), *names)


def test_methods_whose_images_are_normalised_may_use_any_order():
    recipe = {"name": "g-vbsm", "teachers": ["a"], "augment": ["dsa:one", "roll:4"]}
    with pytest.raises(PlanError, match=r"here\.reference_augment: 'flip'"):
        component("method", recipe | {"reference_augment": ["dsa", "flip"]}, "here")
    found = component("method", recipe | {"reference_augment": ["flip", "dsa"]}, "here")
    assert found.get("augment") == ["dsa:one", "roll:4"]


def test_the_modes_are_those_that_the_planner_knows():
    assert tuple(dsa_module.MODES) == dsa_module.TRAITS["parameter"]


# ---- what a batch looks like in memory -----------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_the_layout_of_a_batch(name: str) -> None:
    """Channels last, a convolution's float32 second derivatives are noisier."""
    assert applied(name, images()).is_contiguous()


@pytest.mark.parametrize("seed", range(3))
def test_gradients_through_a_step_on_rotated_images_are_exact_to_float32(seed: int) -> None:
    """A gradient through a training step in float32 against the same in float64."""
    x, real = images(), images(batch=7)
    weight = torch.randn(4, 3, 3, 3, generator=generator(seed)) / 5

    def through_a_step(dtype: torch.dtype) -> torch.Tensor:
        pixels, kernel = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
        turned = applied("rotate", pixels, seed)
        inner = F.conv2d(turned, kernel, padding=1).tanh().square().mean()
        (step,) = torch.autograd.grad(inner, kernel, create_graph=True)
        outer = F.conv2d(real.to(dtype), kernel - step, padding=1).tanh().mean()
        return torch.autograd.grad(outer, pixels)[0].double()

    exact = through_a_step(torch.float64)
    error = (through_a_step(torch.float32) - exact).norm() / exact.norm()
    assert 0 < error < 2e-6
