"""Augmentation and mixing: what each may do to an image, and how often."""

import itertools
import math

import pytest
import scipy.stats
import torch
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from distillery.errors import PlanError
from distillery.training.augment import pipeline
from distillery.training.augmentations import resized_crop
from distillery.training.batches import draw_mixing
from distillery.training.boxes import draw_boxes
from distillery.training.mixings.cutmix import span
from distillery.training.recipe import Mix
from distillery.training.resample import resize_boxes

ALL = (
    *("crop:2", "flip", "resized-crop", "roll:3", "centred-roll:3", "patch-shuffle:2"),
    *("patch-crop:2", "batch-crop:2", "batch-flip", "batch-resized-crop"),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=6, channels=3, height=8, width=8, dtype=torch.float32):
    return torch.rand(batch, channels, height, width, generator=generator(7), dtype=dtype)


def occurrences(outputs, candidates):
    """For each output the one candidate that it equals."""
    return [
        next(k for k, candidate in candidates.items() if torch.equal(output, candidate))
        for output in outputs
    ]


def test_crop_is_a_window_of_the_zero_padded_image_each_place_alike():
    image = images(1)[0] + 0.1
    padded = F.pad(image, (1, 1, 1, 1))
    windows = {(i, j): padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)}
    found = occurrences(pipeline(["crop:1"])(image.expand(1800, -1, -1, -1), generator()), windows)
    counts = [found.count(place) for place in windows]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert torch.equal(windows[1, 1], image)


def test_batch_crop_is_one_window_for_the_whole_batch_each_place_alike():
    x, stream, crops = images() + 0.1, generator(), pipeline(["batch-crop:1"])
    padded = F.pad(x, (1, 1, 1, 1))
    windows = {(i, j): padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)}
    found = occurrences([crops(x, stream) for _ in range(450)], windows)
    assert scipy.stats.chisquare([found.count(place) for place in windows]).pvalue > 1e-3


def test_crop_without_padding_is_the_identity():
    assert torch.equal(pipeline(["crop:0"])(images(), generator()), images())


def test_flip_mirrors_half_of_the_images():
    image = images(1)[0]
    found = occurrences(
        pipeline(["flip"])(image.expand(1000, -1, -1, -1), generator()),
        {0: image, 1: image.flip(2)},
    )
    assert 440 < sum(found) < 560


def test_batch_flip_mirrors_all_or_none_half_of_the_time():
    flips, x, stream = pipeline(["batch-flip"]), images(), generator()
    found = occurrences([flips(x, stream) for _ in range(300)], {0: x, 1: x.flip(3)})
    assert 110 < sum(found) < 190


def test_roll_shifts_the_whole_batch_by_0_to_reach():
    x, stream, rolls = images(), generator(), pipeline(["roll:2"])
    shifts = {(i, j): torch.roll(x, (i, j), (2, 3)) for i in range(3) for j in range(3)}
    found = occurrences([rolls(x, stream) for _ in range(400)], shifts)
    assert scipy.stats.chisquare([found.count(shift) for shift in shifts]).pvalue > 1e-3


def test_centred_roll_shifts_the_whole_batch_both_ways():
    x, stream, rolls = images(), generator(), pipeline(["centred-roll:1"])
    shifts = {(i, j): torch.roll(x, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    found = occurrences([rolls(x, stream) for _ in range(400)], shifts)
    assert scipy.stats.chisquare([found.count(shift) for shift in shifts]).pvalue > 1e-3


def test_patch_shuffle_permutes_columns_and_rows_of_each_image_alike():
    image = images(1)[0]
    halves = {"ab": (0, 4), "ba": (4, 0)}
    grids = {
        (r, c): torch.cat(
            [torch.cat([image[:, i : i + 4, j : j + 4] for j in halves[c]], 2) for i in halves[r]],
            1,
        )
        for r in halves
        for c in halves
    }
    found = occurrences(
        pipeline(["patch-shuffle:2"])(image.expand(800, -1, -1, -1), generator()), grids
    )
    assert scipy.stats.chisquare([found.count(grid) for grid in grids]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("factor", "edges"), [(3, [0, 3, 6, 8]), (4, [0, 2, 4, 6, 8]), (1, [0, 8])]
)
def test_patch_shuffle_is_a_permutation_of_patches(factor, edges):
    # each pixel holds its own place, in one channel the row, in the other the column
    place = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")).expand(
        20, 2, 8, 8
    )
    strips = {tuple(range(a, b)) for a, b in itertools.pairwise(edges)}
    shuffled = pipeline([f"patch-shuffle:{factor}"])(place, generator())
    for rows, columns in shuffled:
        assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
        for line in (rows[:, 0].int().tolist(), columns[0].int().tolist()):
            starts = [
                k for k in range(8) if k == 0 or line[k] != line[k - 1] + 1 or line[k] in edges
            ]
            assert {
                tuple(line[a:b]) for a, b in zip(starts, [*starts[1:], 8], strict=True)
            } == strips
    assert shuffled.equal(place) == (factor == 1)


def test_patch_shuffle_of_an_image_that_is_not_square():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    place = torch.stack([rows, columns]).expand(4, 2, 6, 9)
    for image in pipeline(["patch-shuffle:3"])(place, generator()):
        assert sorted(image[0, :, 0].tolist()) == list(range(6))
        assert sorted(image[1, 0].tolist()) == list(range(9))


@pytest.mark.parametrize("factor", [2, 3])
def test_patch_crop_shows_all_of_an_image_or_one_cell_of_it_resized(factor):
    image, cell = images(1)[0], 8 // factor
    shown = {
        (i, j): F.interpolate(
            image[None, :, i * cell : (i + 1) * cell, j * cell : (j + 1) * cell],
            (8, 8),
            mode="bilinear",
            align_corners=False,
        )[0]
        for i in range(factor)
        for j in range(factor)
    } | {"whole": image}
    outputs = pipeline([f"patch-crop:{factor}"])(image.expand(900, -1, -1, -1), generator())
    found = [
        next(k for k, candidate in shown.items() if torch.allclose(output, candidate, atol=1e-5))
        for output in outputs
    ]
    of_a_cell = (1 - 1 / factor**2) / factor**2
    expected = [900 * (1 / factor**2 if place == "whole" else of_a_cell) for place in shown]
    assert scipy.stats.chisquare([found.count(place) for place in shown], expected).pvalue > 1e-3


def test_patch_crop_of_one_patch_is_the_image():
    x = images(20)
    assert torch.equal(pipeline(["patch-crop:1"])(x, generator()), x)


@pytest.mark.parametrize("antialias", [True, False])
def test_box_is_resized_as_torchvision_does(antialias):
    x = images(4, 3, 12, 10)
    boxes = torch.tensor(
        [[0, 3, 5, 11], [0, 2, 1, 9], [12, 6, 5, 1], [10, 7, 9, 1]]
    )  # top, left, height, width by image
    expected = [
        tv.resized_crop(i, *box, size=[12, 10], antialias=antialias)
        for i, box in zip(x, boxes.T.tolist(), strict=True)
    ]
    found = resize_boxes(x, boxes[:2].float(), boxes[2:].float())
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (12, 7), (20, 10)], ids=str)
def test_box_is_resized_to_another_shape_as_torchvision_does_with_antialiasing(shape):
    x = images(4, 3, 12, 10)
    boxes = torch.tensor([[0, 3, 5, 11], [0, 2, 1, 9], [12, 6, 5, 1], [10, 7, 9, 1]])
    expected = [
        tv.resized_crop(i, *box, size=shape, antialias=True)
        for i, box in zip(x, boxes.T.tolist(), strict=True)
    ]
    found = resize_boxes(x, boxes[:2].float(), boxes[2:].float(), shape)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


def test_boxes_are_distributed_as_torchvision_draws_them(monkeypatch):
    boxes = []
    monkeypatch.setattr(
        resized_crop,
        "resize_boxes",
        lambda x, start, size: boxes.append(torch.cat([start, size])) or x,
    )
    pipeline(["resized-crop"])(images(3000, 1, 32, 32), generator())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = [
            RandomResizedCrop.get_params(torch.zeros(1, 32, 32), [0.08, 1], [3 / 4, 4 / 3])
            for _ in range(3000)
        ]
    for own, other in zip(boxes[0], torch.tensor(drawn).T, strict=True):
        assert scipy.stats.ks_2samp(own, other).pvalue > 1e-3
    assert (boxes[0][:2] + boxes[0][2:]).max() <= 32
    assert boxes[0][:2].min() >= 0


def test_boxes_have_a_log_uniform_ratio(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        resized_crop, "resize_boxes", lambda x, start, size: sizes.append(size) or x
    )
    pipeline(["resized-crop"])(torch.zeros(1, 1, 1, 1).expand(4000, 1, 1000, 1000), generator())
    height, width = sizes[0].double() / 1000
    always_fit = height * width < 0.7
    ratio = (width / height)[always_fit].log() / math.log(4 / 3)
    assert scipy.stats.kstest(ratio, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("shape", "largest"), [((40, 4), (4, 4)), ((4, 40), (4, 4)), ((9, 9), (9, 9))]
)
def test_where_no_box_fits_the_largest_of_the_ratio_is_taken(shape, largest):
    # All of the area at ratio 1: sides of sqrt(160) = 12.6 pixels, which only a square can hold.
    start, size = draw_boxes(5, shape, generator(), 1.0, (1, 1))
    assert size.T.tolist() == [list(map(float, largest))] * 5
    assert (start >= 0).all() and (torch.tensor(shape) >= start.T + size.T).all()


@pytest.mark.parametrize("name", ["resized-crop:1", "batch-resized-crop:1"])
def test_resized_crop_of_the_whole_area_is_the_identity(name):
    assert torch.equal(pipeline([name])(images(), generator()), images())


def test_resized_crop_draws_for_each_image_and_its_batch_variant_once():
    same = images(1).expand(8, -1, -1, -1)
    assert len(torch.unique(pipeline(["resized-crop"])(same, generator()), dim=0)) > 4
    assert len(torch.unique(pipeline(["batch-resized-crop"])(same, generator()), dim=0)) == 1


@pytest.mark.parametrize("name", ALL)
def test_augmentation_is_differentiable_and_repeatable(name):
    x, apply = images(2, 1, 4, 4, torch.float64).requires_grad_(), pipeline([name])
    assert torch.autograd.gradcheck(lambda x: apply(x, generator(3)), x)
    assert apply(images(), generator(5)).shape == images().shape
    assert torch.equal(apply(images(), generator(5)), apply(images(), generator(5)))


def test_random_numbers_come_from_the_given_generator_alone():
    before = torch.get_rng_state()
    pipeline(ALL)(images(), generator())
    draw_mixing(Mix("cutmix"), images(), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_pipeline_applies_in_order():
    stream = generator()
    expected = images()
    for name in ("roll:3", "crop:2"):
        expected = pipeline([name])(expected, stream)
    assert torch.equal(pipeline(["roll:3", "crop:2"])(images(), generator()), expected)
    assert torch.equal(pipeline([])(images(), stream), images())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crops:4", "did you mean 'crop'"),
        ("crop", "as in 'crop:1'"),
        ("crop:x", "as in 'crop:1'"),
        ("roll:-1", "cannot be read"),
        ("patch-shuffle:0", "cannot be read"),
        ("patch-crop:0", "cannot be read"),
        ("resized-crop:1.5", "cannot be read"),
        ("flip:2", "takes no parameter"),
    ],
)
def test_wrong_name_or_parameter_is_a_plan_error(name, message):
    with pytest.raises(PlanError, match=message):
        pipeline([name])


def test_no_mix_is_the_identity_and_draws_nothing():
    stream = generator()
    mixing = draw_mixing(Mix(), images(), stream)
    assert mixing.lam == 1
    assert mixing.images(images()).equal(images())
    assert mixing.labels(torch.eye(6)).equal(torch.eye(6))
    assert stream.get_state().equal(generator().get_state())


def test_mixup_is_the_convex_combination():
    x, mixing = images(), draw_mixing(Mix("mixup", 0.8), images(), generator(2))
    assert 0 < mixing.lam < 1
    assert sorted(mixing.permutation.tolist()) == list(range(6))
    torch.testing.assert_close(
        mixing.images(x), mixing.lam * x + (1 - mixing.lam) * x[mixing.permutation]
    )
    logits = torch.randn(6, 10, generator=generator())
    torch.testing.assert_close(
        mixing.labels(logits), mixing.lam * logits + (1 - mixing.lam) * logits[mixing.permutation]
    )


def test_mixup_with_lambda_one_is_the_identity(monkeypatch):
    monkeypatch.setattr("distillery.training.mixings.mixup.betaincinv", lambda a, b, u: 1.0)
    assert draw_mixing(Mix("mixup"), images(), generator()).images(images()).equal(images())


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_lambda_has_the_beta_distribution(alpha):
    stream, x = generator(), images(2, 1, 1, 1)
    lams = [draw_mixing(Mix("mixup", alpha), x, stream).lam for _ in range(2000)]
    assert scipy.stats.kstest(lams, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_label_weights_are_the_pixel_counts(seed):
    # Image i is i everywhere, its label is i, and each mixed pixel is 0..5: the mean pixel of a
    # mixed image is its mean label.
    x = torch.arange(6.0)[:, None, None, None].expand(6, 2, 12, 9)
    mixing = draw_mixing(Mix("cutmix", 1.0), x, generator(seed))
    mixed = mixing.images(x)
    assert torch.isin(mixed, torch.arange(6.0)).all()
    torch.testing.assert_close(
        mixed.mean((1, 2, 3)), mixing.labels(torch.arange(6.0)[:, None])[:, 0]
    )
    changed = (mixed != x).sum((1, 2, 3))
    top, bottom, left, right = mixing.box
    moved = mixing.permutation != torch.arange(6)
    assert changed.tolist() == (moved * 2 * (bottom - top) * (right - left)).tolist()
    assert x[:, 0, 0, 0].equal(torch.arange(6.0))  # the batch itself is left alone


@pytest.mark.parametrize(
    ("lam", "place", "expected"),
    [
        (0.75, 0.7, (3, 7)),
        (0.75, 0.05, (0, 2)),
        (0.75, 0.99, (5, 8)),
        (1.0, 0.5, (4, 4)),
        (0.0, 0.5, (0, 8)),
    ],
)
def test_cutmix_side_by_hand(lam, place, expected):
    # Of 8 pixels: side 8 sqrt(1 - lam), that is 4, 4, 4, 0, 8, around pixel floor(8 place), clipped
    # at the border.
    assert span(8, lam, place) == expected


def test_mixing_is_differentiable():
    x = images(3, 1, 4, 4, torch.float64).requires_grad_()
    for name in ("mixup", "cutmix"):
        assert torch.autograd.gradcheck(draw_mixing(Mix(name), x, generator(4)).images, x)
