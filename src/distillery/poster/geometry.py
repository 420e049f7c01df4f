"""Where things lie on a poster (PoDD, sections 3 and 5.1). Pure functions.

The size of a poster, the grid of its classes, the patches that are cut from it. A poster is
(C, H, W); grids say columns x rows, as the paper does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from distillery.errors import BudgetError


@dataclass(frozen=True)
class Grid:
    """Cells or patches side by side.

    Attributes:
        columns: along the width.
        rows: along the height.
    """

    columns: int
    rows: int

    @property
    def count(self) -> int:
        """Number of cells: columns * rows."""
        return self.columns * self.rows


def class_grid(classes: int) -> Grid:
    """The most square grid that holds each of `classes` >= 1 classes once.

    It is at least as wide as high: 10 -> 5 x 2, 100 -> 10 x 10, 200 -> 20 x 10. A prime gives one
    row.
    """
    rows = max(rows for rows in range(1, math.isqrt(classes) + 1) if classes % rows == 0)
    return Grid(classes // rows, rows)


def most_pixels(ipc: float, classes: int, side: int) -> int:
    """Pixels of a poster at most: those of `ipc` images (side x side) per class.

    `ipc` is the decimal number it prints as.
    """
    return math.floor(Fraction(str(ipc)) * classes * side**2)


def poster_size(ipc: float, classes: int, side: int, grid: Grid) -> tuple[int, int]:
    """Width and height of a poster whose area is at most that of its budget.

    H = floor(rows side sqrt(ipc)), W = floor(ipc classes side^2 / H); where H would be less than a
    patch (few rows), H = side. A square grid gives a square poster. The arithmetic is exact.

    Deviation: the paper has no rule. This one gives its two stated sizes at 0.4 (CIFAR-100,
    202 x 202) and 0.9 (CIFAR-10, 153 x 60); the authors' other sizes at 0.9 are up to 1 pixel off
    it and are to be stated in the recipe.

    Args:
        ipc: images per class, a fraction perhaps.
        classes: on the poster.
        side: of a patch, and of an image, in pixels.
        grid: of the classes.

    Returns:
        Width and height in pixels.

    Raises:
        BudgetError: not even one patch fits.
    """
    area = most_pixels(ipc, classes, side)
    height = max(side, math.isqrt(most_pixels(ipc, grid.rows**2, side)))
    width = height if grid.columns == grid.rows else area // height
    if width < side or width * height > area:
        raise BudgetError(
            f"ipc {ipc}: a poster of {classes} classes is smaller than one {side} x {side} patch; "
            f"raise ipc"
        )
    return width, height


def positions(length: int, side: int, count: int) -> Tensor:
    """Left edges of windows spread evenly over a line.

    The first and the last window touch the ends; halves are rounded to even numbers, without
    floating point. One window starts at 0.

    Deviation: the paper's equal stride for rows and columns cannot hold; this is the authors' code.

    Args:
        length: of the line in pixels.
        side: of a window in pixels.
        count: windows.

    Returns:
        (count,) int64 in 0 .. length - side.

    Raises:
        BudgetError: a window does not fit.
    """
    if not 1 <= side <= length:
        raise BudgetError(
            f"a patch of {side} pixels does not fit into the {length} pixels of a poster; raise ipc"
        )
    return torch.tensor(
        [round(Fraction(i * (length - side), max(count - 1, 1))) for i in range(count)]
    )


def cyclic_positions(length: int, side: int, count: int) -> Tensor:
    """As `positions`, on a circle: the last windows wrap around.

    Args:
        length: of the circle in pixels.
        side: of a window in pixels.
        count: windows, spread evenly over all pixels.

    Returns:
        (count,) int64 in 0 .. length - 1.

    Raises:
        BudgetError: a window does not fit.
    """
    positions(length, side, 1)  # refuses a window that does not fit
    return torch.tensor([round(Fraction(i * length, count)) for i in range(count)])


def edges(
    width: int, height: int, side: int, patch_grid: Grid, cyclic: bool = False
) -> tuple[Tensor, Tensor]:
    """Left edges (columns,) and top edges (rows,), int64, of the patches."""
    spread = cyclic_positions if cyclic else positions
    return spread(width, side, patch_grid.columns), spread(height, side, patch_grid.rows)


def corners(width: int, height: int, side: int, patch_grid: Grid, cyclic: bool = False) -> Tensor:
    """Left and top (p, 2) int64 of all patches, x outermost, y innermost.

    This is the one order that patches and labels share.
    """
    return torch.cartesian_prod(*edges(width, height, side, patch_grid, cyclic))


def flat_index(
    width: int, height: int, side: int, patch_grid: Grid, cyclic: bool = False
) -> Tensor:
    """Where the pixels of the patches are.

    Deviation: cyclic, windows that wrap around the edges so that every pixel is in as many patches
    as any other, is proposed in the paper (section 6) without settings; these are ours.

    Args:
        width: of the poster.
        height: of the poster.
        side: of a patch.
        patch_grid: of the patches.
        cyclic: whether they wrap around.

    Returns:
        Places (p, side * side) int64 in `poster.flatten(1)`, patches in the order of `corners`.
    """
    left, top = corners(width, height, side, patch_grid, cyclic).unsqueeze(-1).unbind(1)
    offset = torch.arange(side)
    rows, columns = (top + offset) % height, (left + offset) % width
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def cut(poster: Tensor, index: Tensor) -> Tensor:
    """Patches (p, C, side, side) of a poster (C, H, W); differentiable.

    Args:
        poster: (C, H, W).
        index: of `flat_index`.
    """
    side = math.isqrt(index.shape[1])
    return poster.flatten(1)[:, index].transpose(0, 1).unflatten(2, (side, side))
