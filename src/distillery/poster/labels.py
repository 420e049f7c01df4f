"""What a patch of a poster is a picture of: PoDDL (PoDD, section 4.3). Pure functions.

A label of a patch is a row of probabilities, fixed or learned. Patches come in the order of
`geometry.corners`, cells row by row.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distillery.poster.geometry import Grid, edges, positions

# The authors divide by the row sum alone, and by 0 where a label is clipped to nothing.
GUARD = 1e-8


def weights(
    width: int,
    height: int,
    side: int,
    class_grid: Grid,
    patch_grid: Grid,
    cyclic: bool = False,
    refine: int = 1,
) -> Tensor:
    """The fraction of each patch's area that lies in each cell.

    The cells are those of the class grid, each divided into refine x refine, enlarged to the poster
    by nearest neighbour (pixel i of L lies in cell floor(i cells / L), exactly). Upsampling and
    average pooling are linear, so the labels of all patches are A times the labels of the cells,
    and A never changes.

    Deviation: refine > 1, labels finer than a class, is ours.

    Args:
        width: of the poster.
        height: of the poster.
        side: of a patch.
        class_grid: of the classes.
        patch_grid: of the patches.
        cyclic: whether patches wrap around.
        refine: cells of a class along each axis.

    Returns:
        A (p, cells) float32; rows sum to 1.
    """
    left, top = edges(width, height, side, patch_grid, cyclic)
    across = _shares(left, side, width, class_grid.columns * refine)
    down = _shares(top, side, height, class_grid.rows * refine)
    return _areas(across, down).float() / side**2


def _shares(starts: Tensor, side: int, length: int, cells: int) -> Tensor:
    """Pixels (windows, cells) of windows in cells along one axis; windows wrap around."""
    cell = torch.arange(length) * cells // length
    return one_hot(cell[(starts[:, None] + torch.arange(side)) % length], cells).sum(1)


def _areas(across: Tensor, down: Tensor) -> Tensor:
    """Pixels (p, cells) of patches in cells, from those along each axis.

    Args:
        across: (columns of patches, columns of cells).
        down: (rows of patches, rows of cells).
    """
    # Columns and rows of patches, then rows and columns of cells.
    areas = across[:, None, None, :] * down[None, :, :, None]
    return areas.flatten(2).flatten(0, 1)


def fixed(weights: Tensor, order: Tensor, classes: int) -> Tensor:
    """Labels that do not change: the class with most of the patch's area; ties share equally.

    Deviation: the paper's rule. The authors' code counts overlapping squares and takes a softmax of
    pixel counts, which is the same at ipc 1 and may differ in patches at the border below.

    Args:
        weights: (p, cells), of cells that are not refined.
        order: (rows, columns), the class of each cell.
        classes: how many there are.

    Returns:
        (p, classes) float32.
    """
    area = weights @ one_hot(order.flatten().long(), classes).to(weights)
    most = area >= area.amax(1, keepdim=True) - 1e-6  # less than a pixel, more than rounding
    return most.to(weights) / most.sum(1, keepdim=True)


def learned(weights: Tensor, cells: Tensor) -> Tensor:
    """Labels pooled over each patch and divided by their sum; differentiable.

    Args:
        weights: (p, cells).
        cells: (rows, columns, n), the learned labels, which are kept at 0 or above by whoever
            changes them.

    Returns:
        (p, n) float.
    """
    pooled = weights @ cells.flatten(0, 1)
    return pooled / (pooled.sum(1, keepdim=True) + GUARD)


def initial(order: Tensor, classes: int, refine: int = 1) -> Tensor:
    """Learned labels to start from: one-hot of the class placed there.

    Args:
        order: (rows, columns), the class of each cell.
        classes: how many there are.
        refine: cells of a class along each axis.

    Returns:
        (rows * refine, columns * refine, classes) float32.
    """
    cells = order.long().repeat_interleave(refine, 0).repeat_interleave(refine, 1)
    return one_hot(cells, classes).float()


def reference(
    width: int, height: int, side: int, order: Tensor, patch_grid: Grid
) -> tuple[Tensor, Tensor]:
    """Weights and initial labels as the authors' code has them, for an ablation.

    One class or a whole line of classes may start without any label, and neighbours do not mix
    (`reference_shape`; at the published sizes a patch's window is one cell there).

    Deviation: which line of classes is lost follows from our rounding, the code's own is not
    documented.

    Args:
        width: of the poster.
        height: of the poster.
        side: of a patch.
        order: (rows, columns), the class of each cell.
        patch_grid: of the patches.

    Returns:
        Weights (p, cells) and initial labels (rows, columns, n), float32.
    """
    rows, columns = reference_shape(width, height, order.numel())
    cells = order[_owner(order.shape[0], rows)][:, _owner(order.shape[1], columns)]

    def shares(cells: int, length: int, count: int) -> Tensor:
        window = max(1, side * cells // length)
        return _shares(positions(cells, window, count), window, cells, cells)

    across = shares(columns, width, patch_grid.columns)
    down = shares(rows, height, patch_grid.rows)
    areas = _areas(across, down).float()
    return areas / areas.sum(1, keepdim=True), one_hot(cells.long(), order.numel()).float()


def reference_shape(width: int, height: int, classes: int) -> tuple[int, int]:
    """Rows and columns of the authors' label array.

    The poster's aspect at `classes` cells, rounded down or up on each axis to the largest area
    below `classes` (equality is refused); where both are whole, those.
    """
    # The rounding of this number is what refuses 10 x 10 at 303 and 286 pixels.
    scale = 1 / math.sqrt(width * height / classes)
    exact = height * scale, width * scale
    shapes = itertools.product(*({math.ceil(x), math.floor(x)} for x in exact))
    below = [shape for shape in shapes if math.prod(shape) < classes]
    if not below:
        return round(exact[0]), round(exact[1])
    rows, columns = max(below, key=lambda shape: (math.prod(shape), shape))
    return rows, columns


def _owner(cells: int, places: int) -> Tensor:
    """The cell (places,) that owns each place, each cell's first place rounded half to even."""
    starts = [round(cell * places / cells) for cell in range(cells)]
    return torch.tensor(
        [
            max(cell for cell, start in enumerate(starts) if start <= place)
            for place in range(places)
        ]
    )
