"""The poster as pure functions: published sizes, brute force over pixels, formulas by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from distillery.errors import BudgetError
from distillery.poster import geometry, initial, labels, order
from distillery.poster.geometry import Grid

CLIP = json.loads((Path(__file__).parent / "data/clip_cifar10_distances.json").read_text())
DISTANCES = torch.tensor(CLIP["distances"], dtype=torch.float64)
FIGURE_8 = (
    ("truck", "airplane", "bird", "deer", "cat"),
    ("automobile", "ship", "frog", "horse", "dog"),
)

IPC = (1, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SIZES = {  # sizes by ipc, PoDD's rule: CIFAR-10, CIFAR-100, CUB-200, Tiny-ImageNet
    (10, 32): dict(
        zip(
            IPC,
            [(160, 64), (143, 57), (135, 53), (125, 49), (113, 45), (102, 40), (87, 35)],
            strict=True,
        )
    )
    | {0.9: (153, 60)},
    (100, 32): {
        ipc: (side, side)
        for ipc, side in zip(IPC, [320, 286, 267, 247, 226, 202, 175], strict=True)
    }
    | {0.9: (303, 303)},
    (200, 32): dict(
        zip(
            IPC,
            [(640, 320), (572, 286), (536, 267), (497, 247), (453, 226), (405, 202), (351, 175)],
            strict=True,
        )
    ),
    (200, 64): dict(
        zip(
            IPC,
            [(1280, 640), (1145, 572), (1071, 535), (992, 495), (906, 452), (811, 404), (702, 350)],
            strict=True,
        )
    ),
}
PATCHES = {
    (10, 32): Grid(16, 6),
    (100, 32): Grid(20, 20),
    (200, 32): Grid(60, 30),
    (200, 64): Grid(40, 20),
}
SETTINGS = [(*data, ipc) for data, sizes in SIZES.items() for ipc in sizes]


def poster(width: int, height: int, channels: int = 3) -> Tensor:
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("classes", "side", "ipc"), SETTINGS)
def test_sizes_are_the_table_and_patches_reach_the_borders(classes, side, ipc):
    width, height = geometry.poster_size(ipc, classes, side, geometry.class_grid(classes))
    assert (width, height) == SIZES[classes, side][ipc]
    assert width * height <= round(ipc * classes * side**2, 6)
    grid = PATCHES[classes, side]
    corners = geometry.corners(width, height, side, grid)
    assert corners.amin(0).tolist() == [0, 0] and corners.amax(0).tolist() == [
        width - side,
        height - side,
    ]
    distinct = len(corners.unique(dim=0))
    assert distinct == (64 if (classes, ipc) == (10, 0.3) else grid.count), (
        "duplicates only for CIFAR-10 at 0.3"
    )


def test_class_grids_are_the_most_square_ones_as_wide_as_high():
    found = {n: geometry.class_grid(n) for n in (1, 2, 7, 10, 12, 100, 200, 1000)}
    expected = {
        1: (1, 1),
        2: (2, 1),
        7: (7, 1),
        10: (5, 2),
        12: (4, 3),
        100: (10, 10),
        200: (20, 10),
        1000: (40, 25),
    }
    assert {n: (grid.columns, grid.rows) for n, grid in found.items()} == expected


def test_a_row_of_a_prime_number_of_classes_stays_as_high_as_a_patch():
    assert geometry.poster_size(0.5, 7, 8, Grid(7, 1)) == (28, 8)
    assert geometry.poster_size(2, 7, 8, Grid(7, 1)) == (81, 11)  # floor(8 sqrt 2), floor(896 / 11)


@pytest.mark.parametrize(("ipc", "classes"), [(0.05, 10), (0.009, 100)])
def test_a_poster_smaller_than_a_patch_is_refused(ipc, classes):
    with pytest.raises(BudgetError, match=f"ipc {ipc}.*raise ipc"):
        geometry.poster_size(ipc, classes, 32, geometry.class_grid(classes))
    with pytest.raises(BudgetError, match="33 pixels does not fit into the 32"):
        geometry.positions(32, 33, 2)


def test_positions_round_halves_to_even():
    assert geometry.positions(10, 5, 3).tolist() == [0, 2, 5]  # 2.5 -> 2
    assert geometry.positions(14, 5, 7).tolist() == [
        0,
        2,
        3,
        4,
        6,
        8,
        9,
    ]  # 1.5, 4.5, 7.5 -> 2, 4, 8
    assert geometry.positions(10, 5, 1).tolist() == [0]


def test_at_one_image_per_class_the_patches_are_the_tiles():
    tiles = torch.randn(2, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([torch.cat(list(row), 2) for row in tiles], 1)
    index = geometry.flat_index(160, 64, 32, Grid(5, 2))
    assert torch.equal(geometry.cut(whole, index), tiles.transpose(0, 1).flatten(0, 1)), (
        "x outermost"
    )


@pytest.mark.parametrize("cyclic", [False, True])
def test_patches_are_slices_and_their_gradient_counts_them(cyclic):
    width, height, side, grid = 23, 13, 8, Grid(5, 3)
    image = poster(width, height).requires_grad_()
    index = geometry.flat_index(width, height, side, grid, cyclic)
    rolled = [
        image.roll((-top, -left), (1, 2))[:, :side, :side]
        for left, top in geometry.corners(width, height, side, grid, cyclic).tolist()
    ]
    patches = geometry.cut(image, index)
    assert torch.equal(patches, torch.stack(rolled))
    (gradient,) = torch.autograd.grad(patches.sum(), image)
    assert torch.equal(
        gradient[0].flatten(), index.flatten().bincount(minlength=width * height).float()
    )


def test_cyclic_patches_cover_every_pixel_as_often():
    index = geometry.flat_index(24, 12, 8, Grid(6, 3), cyclic=True)
    assert (index.flatten().bincount() == 18 * 64 / (24 * 12)).all()
    assert geometry.cyclic_positions(10, 5, 4).tolist() == [0, 2, 5, 8]


def owners(width: int, height: int, rows: int, columns: int) -> Tensor:
    """Cell (H, W) of each pixel, one pixel at a time."""
    return torch.tensor(
        [
            [y * rows // height * columns + x * columns // width for x in range(width)]
            for y in range(height)
        ]
    )


CASES = [
    (10, 32, 0.7, Grid(16, 6), False, 1),
    (10, 32, 0.3, Grid(16, 6), True, 1),
    (6, 8, 0.8, Grid(4, 4), True, 3),
]


@pytest.mark.parametrize(("classes", "side", "ipc", "grid", "cyclic", "refine"), CASES)
def test_weights_are_average_pools_of_the_enlarged_cells(classes, side, ipc, grid, cyclic, refine):
    cells = geometry.class_grid(classes)
    width, height = geometry.poster_size(ipc, classes, side, cells)
    found = labels.weights(width, height, side, cells, grid, cyclic, refine)
    owner = owners(width, height, cells.rows * refine, cells.columns * refine)
    masks = one_hot(owner, cells.count * refine**2).permute(2, 0, 1).float()
    pooled = torch.stack(
        [
            avg_pool2d(masks.roll((-top, -left), (1, 2))[:, :side, :side], side).flatten()
            for left, top in geometry.corners(width, height, side, grid, cyclic).tolist()
        ]
    )
    torch.testing.assert_close(found, pooled)
    torch.testing.assert_close(found.sum(1), torch.ones(grid.count))


def test_weights_at_one_image_per_class_are_the_cells_themselves():
    found = labels.weights(160, 64, 32, Grid(5, 2), Grid(5, 2))
    column_by_column = torch.arange(10).view(2, 5).T.flatten()
    assert torch.equal(found, torch.eye(10)[column_by_column])


@pytest.mark.parametrize("ipc", [1, 0.9, 0.8, 0.7])
def test_fixed_labels_count_pixels(ipc):
    width, height = SIZES[10, 32][ipc]
    placed = order.random_order(10, 2, 5, torch.Generator().manual_seed(3))
    owner = placed.flatten()[owners(width, height, 2, 5)]
    expected = []
    for left, top in geometry.corners(width, height, 32, Grid(16, 6)).tolist():
        counts = owner[top : top + 32, left : left + 32].flatten().bincount(minlength=10)
        expected.append(
            [float(count == counts.max()) / int((counts == counts.max()).sum()) for count in counts]
        )
    found = labels.fixed(labels.weights(width, height, 32, Grid(5, 2), Grid(16, 6)), placed, 10)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_ties_share_a_label():
    placed = torch.tensor([[2, 0], [3, 1]])
    middle = labels.weights(16, 16, 8, Grid(2, 2), Grid(3, 3))
    found = labels.fixed(middle, placed, 4).view(3, 3, 4)
    assert found[1, 1].tolist() == [0.25] * 4 and found[1, 0].tolist() == [0.5, 0, 0.5, 0]
    assert found[0, 1].tolist() == [0, 0, 0.5, 0.5] and found[2, 2].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("refine", [1, 2])
def test_learned_labels_sum_to_one_and_their_gradient_is_that_of_differences(refine):
    weights = labels.weights(13, 9, 6, Grid(3, 2), Grid(4, 3), refine=refine).double()
    stream = torch.Generator().manual_seed(0)
    cells = torch.rand(
        2 * refine, 3 * refine, 6, generator=stream, dtype=torch.float64
    ).requires_grad_()
    found = labels.learned(weights, cells)
    torch.testing.assert_close(found.sum(1), torch.ones(12, dtype=torch.float64), atol=1e-6, rtol=0)
    assert torch.autograd.gradcheck(lambda y: labels.learned(weights, y), cells)
    assert torch.isfinite(labels.learned(weights, 0 * cells)).all(), "a label clipped to nothing"


@pytest.mark.parametrize(("classes", "side", "ipc"), SETTINGS)
def test_every_class_starts_with_a_label(classes, side, ipc):
    width, height = SIZES[classes, side][ipc]
    cells, grid = geometry.class_grid(classes), PATCHES[classes, side]
    placed = order.random_order(
        classes, cells.rows, cells.columns, torch.Generator().manual_seed(0)
    )
    start = labels.initial(placed, classes)
    assert torch.equal(start.argmax(2), placed) and start.sum().item() == classes
    found = labels.learned(labels.weights(width, height, side, cells, grid), start)
    assert (found.sum(0) > 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(grid.count))


def test_refined_labels_start_as_those_they_refine():
    placed = order.random_order(10, 2, 5, torch.Generator().manual_seed(0))
    coarse = labels.learned(
        labels.weights(150, 60, 32, Grid(5, 2), Grid(16, 6)), labels.initial(placed, 10)
    )
    fine = labels.weights(150, 60, 32, Grid(5, 2), Grid(16, 6), refine=3)
    torch.testing.assert_close(labels.learned(fine, labels.initial(placed, 10, refine=3)), coarse)


# Poster, classes: rows and columns of the authors' label array, classes that start without a label.
REFERENCE = {
    (303, 303, 100): (10, 9, 10),
    (610, 302, 200): (9, 21, 20),
    (1211, 608, 200): (10, 19, 10),
    (125, 49, 10): (1, 6, 5),
    (113, 45, 10): (1, 6, 5),
    (102, 40, 10): (1, 6, 5),
    (87, 35, 10): (2, 4, 2),
    (286, 286, 100): (10, 9, 10),
    **{(side, side, 100): (10, 10, 0) for side in (320, 267, 247, 226, 202, 175)},
    (160, 64, 10): (2, 5, 0),
    (640, 320, 200): (10, 20, 0),
}


@pytest.mark.parametrize(("width", "height", "classes"), REFERENCE)
def test_reference_labels_have_the_authors_shape_and_lose_as_many_classes(width, height, classes):
    rows, columns, lost = REFERENCE[width, height, classes]
    side, cells = (64 if width > 1000 else 32), geometry.class_grid(classes)
    placed = torch.arange(classes).view(cells.rows, cells.columns)
    weights, start = labels.reference(width, height, side, placed, PATCHES[classes, side])
    assert labels.reference_shape(width, height, classes) == (rows, columns) and start.shape == (
        rows,
        columns,
        classes,
    )
    assert (start.sum((0, 1)) == 0).sum() == lost
    assert ((weights == 1).sum(1) == 1).all() and (weights.sum(1) == 1).all(), (
        "each patch copies one cell"
    )
    assert len(labels.learned(weights, start)) == PATCHES[classes, side].count


def test_reference_labels_at_one_image_per_class_are_the_cells():
    placed = order.random_order(10, 2, 5, torch.Generator().manual_seed(0))
    weights, start = labels.reference(160, 64, 32, placed, Grid(5, 2))
    assert labels.learned(weights, start).argmax(1).tolist() == placed.T.flatten().tolist()


def test_traversal_walks_anti_diagonals_from_bottom_left():
    two_by_five = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4)]
    assert order.traversal(2, 5) == two_by_five
    assert order.traversal(3, 2) == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (2, 1)]


def test_order_of_a_toy_matrix_by_hand():
    far = torch.tensor([[0, 5, 2, 9], [5, 0, 4, 1], [2, 4, 0, 3], [9, 1, 3, 0.0]])
    # (0, 0) is 0; (1, 0): nearest to 0 is 2; (0, 1): of 1 at 5 and 3 at 9, 1; (1, 1): what is left
    assert order.greedy_order(far, 2, 2).tolist() == [[0, 1], [2, 3]]
    # from 3: 1 at 1; then 2 at 3 (0 at 9)
    assert order.greedy_order(far, 2, 2, start=3).tolist() == [[3, 2], [1, 0]]
    assert order.score(torch.tensor([[0, 1], [2, 3]]), far) == pytest.approx(1 / (5 + 3 + 2 + 1))


def test_ties_take_the_lowest_label_and_every_class_has_a_place():
    assert order.greedy_order(torch.ones(6, 6), 2, 3).tolist() == [[0, 2, 4], [1, 3, 5]]
    random = torch.rand(200, 200, generator=torch.Generator().manual_seed(0))
    placed = order.greedy_order(random + random.T, 10, 20, start=7)
    assert placed.flatten().sort().values.tolist() == list(range(200)) and placed[0, 0] == 7


def greedy(distances: list[list[float]], start: int) -> dict[tuple[int, int], int]:
    """The rule a second time, on lists: all placed cells that touch count, in any order."""
    placed, free = {(0, 0): start}, [label for label in range(10) if label != start]
    for cell in [(1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4)]:
        touching = [label for other, label in placed.items() if math.dist(cell, other) == 1]
        best = min(
            free, key=lambda label: (sum(distances[label][other] for other in touching), label)
        )
        placed[cell] = best
        free.remove(best)
    return placed


@pytest.mark.parametrize("start", range(10))
def test_cifar10_in_order_of_clip(start):
    found = order.greedy_order(DISTANCES, 2, 5, start)
    assert {
        (row, column): int(found[row, column]) for row in range(2) for column in range(5)
    } == greedy(CLIP["distances"], start)


def test_scores_of_cifar10_orders():
    index = CLIP["classes"].index
    printed = torch.tensor([[index(name) for name in row] for row in FIGURE_8])
    by_start = [
        order.total_distance(order.greedy_order(DISTANCES, 2, 5, start), DISTANCES)
        for start in range(10)
    ]
    assert order.total_distance(printed, DISTANCES) == pytest.approx(1.545, abs=6e-4)
    assert by_start[index("airplane")] == pytest.approx(1.516, abs=6e-4)
    assert by_start[index("truck")] == pytest.approx(1.522, abs=6e-4)
    assert min(by_start) == by_start[index("deer")] == pytest.approx(1.488, abs=6e-4)
    assert order.score(order.greedy_order(DISTANCES, 2, 5), DISTANCES) == pytest.approx(
        1 / 1.516, abs=3e-4
    )
    stream = torch.Generator().manual_seed(0)
    random = torch.tensor(
        [order.total_distance(order.random_order(10, 2, 5, stream), DISTANCES) for _ in range(1000)]
    )
    assert random.mean().item() == pytest.approx(
        1.690, abs=8e-3
    ) and random.std().item() == pytest.approx(0.062, abs=6e-3)


def test_tiles_have_unit_length_where_nothing_overlaps():
    found = initial.tiles(3, 160, 64, 32, Grid(5, 2), torch.Generator().manual_seed(0))
    patches = geometry.cut(found, geometry.flat_index(160, 64, 32, Grid(5, 2)))
    torch.testing.assert_close(patches.flatten(1).norm(dim=1), torch.ones(10))
    assert found.std().item() == pytest.approx(1 / math.sqrt(3 * 32**2), rel=0.02)
    assert found.shape == (3, 64, 160)


def test_tiles_scatter_by_a_quarter_of_the_smallest_distance_around_their_means():
    found = initial.tiles(1, 8, 4, 4, Grid(2, 1), torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(0)
    (first, second), scatter = (
        torch.randn(2, 16, generator=stream),
        torch.randn(2, 16, generator=stream),
    )
    tile = second + (first - second).norm() / 4 * scatter[1]
    torch.testing.assert_close(found[0, :, 4:], (tile / tile.norm()).view(4, 4))


@pytest.mark.parametrize(
    ("grid", "ipc"), [(Grid(5, 2), 0.3), (Grid(2, 5), 0.6), (Grid(7, 1), 0.5), (Grid(5, 2), 3)]
)
def test_tiles_fill_posters_of_any_size(grid, ipc):
    width, height = geometry.poster_size(ipc, grid.count, 32, grid)
    found = initial.tiles(3, width, height, 32, grid, torch.Generator().manual_seed(0))
    assert found.shape == (3, height, width) and (found != 0).all()
    assert 0.5 < found.std().item() * math.sqrt(3 * 32**2) < 1.1
    assert torch.equal(
        found, initial.tiles(3, width, height, 32, grid, torch.Generator().manual_seed(0))
    )


def test_overlapping_tiles_fade_linearly():
    left, right = torch.zeros(1, 2, 6), torch.ones(1, 2, 6)
    assert initial.blended([left, right], [0, 4])[0, 0].tolist() == [
        0,
        0,
        0,
        0,
        0.25,
        0.75,
        1,
        1,
        1,
        1,
    ]


def test_noise_has_its_standard_deviation():
    found = initial.noise(3, 160, 64, 0.018, torch.Generator().manual_seed(0))
    assert found.shape == (3, 64, 160) and found.std().item() == pytest.approx(0.018, rel=0.02)


def test_tiles_of_a_larger_poster_have_the_same_deviation() -> None:
    """Ipc 4: the tiles are twice as large a side, and their pixels as large as at ipc 1."""
    for side, (width, height) in ((32, (160, 64)), (32, (320, 128)), (8, (80, 32))):
        found = initial.tiles(3, width, height, side, Grid(5, 2), torch.Generator().manual_seed(0))
        assert found.shape == (3, height, width)
        assert found.std().item() == pytest.approx((3 * side**2) ** -0.5, rel=0.02)


def test_tiles_stray_by_a_quarter_of_the_smallest_distance_of_their_means() -> None:
    stream, values = torch.Generator().manual_seed(4), 2 * 8 * 8
    means = torch.randn(3, values, generator=stream)
    distances = [(means[i] - means[j]).norm() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert max(distances) > 1.05 * min(distances)
    expected = means + min(distances) / 4 * torch.randn(3, values, generator=stream)
    expected = expected / expected.norm(dim=1, keepdim=True)
    found = initial.tiles(2, 24, 8, 8, Grid(3, 1), torch.Generator().manual_seed(4))
    tiles = torch.stack([found[:, :, 8 * i : 8 * i + 8] for i in range(3)])
    torch.testing.assert_close(tiles.flatten(1), expected)


def test_a_tie_that_is_missed_by_a_pixel_is_none() -> None:
    # of 32 x 32 pixels one is 0.00098; cells are a row, classes lie as 1, 0, 2
    order_ = torch.tensor([[1, 0, 2]])
    pixels = torch.tensor([[512, 512, 0], [512, 511, 1], [341, 341, 342], [0, 512, 512]]) / 1024
    expected = [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]]
    assert labels.fixed(pixels, order_, 3).tolist() == expected


@pytest.mark.parametrize(
    ("size", "least", "most"), [((153, 60), 0.09, 0.14), ((87, 35), 0.02, 0.05)]
)
def test_the_authors_fade_differs_by_the_stated_share(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], least: float, most: float
) -> None:
    """Theirs runs from 1 to 0 inclusive; CIFAR-10's posters at 0.9 and 0.3 images per class."""

    def inclusive(parts: list[Tensor], starts: list[int]) -> Tensor:
        whole = parts[0]
        for part, start in zip(parts[1:], starts[1:], strict=True):
            overlap = whole.shape[2] - start
            share = torch.linspace(0, 1, overlap)
            blend = (1 - share) * whole[:, :, start:] + share * part[:, :, :overlap]
            whole = torch.cat([whole[:, :, :start], blend, part[:, :, overlap:]], 2)
        return whole

    stream = torch.Generator()
    ours = initial.tiles(3, *size, 32, Grid(5, 2), stream.manual_seed(0))
    monkeypatch.setattr(initial, "blended", inclusive)
    theirs = initial.tiles(3, *size, 32, Grid(5, 2), stream.manual_seed(0))
    assert least < (ours - theirs).norm() / theirs.norm() < most
