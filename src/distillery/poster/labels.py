"""What a patch of a poster is a picture of: PoDDL (PoDD, section 4.3), fixed and learned. Pure functions.

A label of a patch is a row of probabilities; patches come in the order of `geometry.corners`, cells row by row.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distillery.poster.geometry import Grid, edges, positions

GUARD = (
    1e-8  # the authors divide by the row sum alone, and by 0 where a label is clipped to nothing
)


def weights(
    width: int,
    height: int,
    side: int,
    class_grid: Grid,
    patch_grid: Grid,
    cyclic: bool = False,
    refine: int = 1,
) -> Tensor:
    """A (p, cells) float32: the fraction of each patch's area that lies in each cell; rows sum to 1.

    The cells are those of the class grid, each divided into refine x refine, enlarged to the poster by nearest neighbour (pixel
    i of L lies in cell floor(i cells / L), exactly). Upsampling and average pooling are linear, so the labels of all patches
    are A times the labels of the cells, and A never changes.
    Deviation: refine > 1, labels finer than a class, is ours.
    """
    left, top = edges(width, height, side, patch_grid, cyclic)
    across = _shares(left, side, width, class_grid.columns * refine)
    down = _shares(top, side, height, class_grid.rows * refine)
    counts = (
        across[:, None, None, :] * down[None, :, :, None]
    )  # columns, rows of patches; rows, columns of cells
    return counts.flatten(2).flatten(0, 1).float() / side**2


def _shares(starts: Tensor, side: int, length: int, cells: int) -> Tensor:
    """Pixels (windows, cells) of each window in each cell, along one axis; windows wrap around at `length`."""
    cell = torch.arange(length) * cells // length
    return one_hot(cell[(starts[:, None] + torch.arange(side)) % length], cells).sum(1)


def fixed(weights: Tensor, order: Tensor, classes: int) -> Tensor:
    """Labels (p, classes) float32 that do not change: the class with most of the patch's area; exact ties share equally.

    weights: of cells that are not refined. order: (rows, columns), the class of each cell.
    Deviation: the paper's rule. The authors' code counts overlapping squares and takes a softmax of pixel counts, which is the
    same at ipc 1 and may differ in patches at the border below.
    """
    area = weights @ one_hot(order.flatten().long(), classes).to(weights)
    most = area >= area.amax(1, keepdim=True) - 1e-6  # less than a pixel, more than rounding
    return most.to(weights) / most.sum(1, keepdim=True)


def learned(weights: Tensor, cells: Tensor) -> Tensor:
    """Labels (p, n) float of the learned labels `cells` (rows, columns, n), which are kept at 0 or above by whoever changes
    them: pooled over each patch and divided by their sum; differentiable."""
    pooled = weights @ cells.flatten(0, 1)
    return pooled / (pooled.sum(1, keepdim=True) + GUARD)


def initial(order: Tensor, classes: int, refine: int = 1) -> Tensor:
    """Learned labels (rows * refine, columns * refine, classes) float32 to start from: one-hot of the class placed there."""
    cells = order.long().repeat_interleave(refine, 0).repeat_interleave(refine, 1)
    return one_hot(cells, classes).float()


def reference(
    width: int, height: int, side: int, order: Tensor, patch_grid: Grid
) -> tuple[Tensor, Tensor]:
    """Weights (p, cells) and initial labels (rows, columns, n) as the authors' code has them, for an ablation: one class or a
    whole line of classes may start without any label, and neighbours do not mix (`reference_shape`; a patch's window is at
    most one cell there).

    Deviation: which line of classes is lost follows from our rounding, the code's own is not documented.
    """
    rows, columns = reference_shape(width, height, order.numel())
    cells = order[_owner(order.shape[0], rows)][:, _owner(order.shape[1], columns)]
    across, down = (
        _shares(positions(cells_, window, count), window, cells_, cells_)
        for cells_, window, count in (
            (columns, max(1, side * columns // width), patch_grid.columns),
            (rows, max(1, side * rows // height), patch_grid.rows),
        )
    )
    counts = (across[:, None, None, :] * down[None, :, :, None]).flatten(2).flatten(0, 1).float()
    return counts / counts.sum(1, keepdim=True), one_hot(cells.long(), order.numel()).float()


def reference_shape(width: int, height: int, classes: int) -> tuple[int, int]:
    """Rows and columns of the authors' label array: the poster's aspect at `classes` cells, rounded down or up on each axis to
    the largest area below `classes` (equality is refused); where both are whole, those."""
    scale = 1 / math.sqrt(
        width * height / classes
    )  # its rounding is what refuses 10 x 10 at 303 and 286 pixels
    exact = height * scale, width * scale
    found = itertools.product(*({math.ceil(x), math.floor(x)} for x in exact))
    below = [shape for shape in found if math.prod(shape) < classes]
    return (
        max(below, key=lambda shape: (math.prod(shape), shape))
        if below
        else (round(exact[0]), round(exact[1]))
    )


def _owner(cells: int, places: int) -> Tensor:
    """The cell (places,) that owns each of `places` places, each cell's first place being rounded half to even."""
    starts = [round(cell * places / cells) for cell in range(cells)]
    return torch.tensor(
        [
            max(cell for cell, start in enumerate(starts) if start <= place)
            for place in range(places)
        ]
    )
