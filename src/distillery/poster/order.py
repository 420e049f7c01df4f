"""Which class lies where on a poster: PoCO (PoDD, section 4.2 and Algorithm 2). Pure functions.

Similar classes are to be neighbours. An order is (rows, columns) int64, the label of the class in
each cell; distances are (n, n), symmetric, 1 - cosine.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

GridCell = tuple[int, int]  # row and column


def traversal(rows: int, columns: int) -> list[GridCell]:
    """The cells in the order in which they are filled.

    Anti-diagonal by anti-diagonal, each from bottom left to top right.

    Deviation: the paper says zigzag; this is the authors' code, which always walks the same way.
    """
    return sorted(
        ((row, column) for row in range(rows) for column in range(columns)),
        key=lambda cell: (sum(cell), cell[1]),
    )


def greedy_order(distances: Tensor, rows: int, columns: int, start: int = 0) -> Tensor:
    """The greedy order of Algorithm 2.

    Class `start` lies in the top left cell, then in each cell of `traversal` the class with the
    smallest sum of distances to the neighbours above and to the left; ties take the lowest label.

    Deviation: with start 0, as Algorithm 2 and the code have it, the layout printed in the paper's
    Figure 8 (truck top left) cannot come out.

    Args:
        distances: (n, n), n = rows * columns.
        rows: of the grid.
        columns: of the grid.
        start: the first class.

    Returns:
        (rows, columns) int64.
    """
    order = torch.full((rows, columns), -1)
    free = torch.ones(len(distances), dtype=torch.bool)
    order[0, 0], free[start] = start, False
    for row, column in traversal(rows, columns)[1:]:
        near = [order[cell] for cell in ((row - 1, column), (row, column - 1)) if min(cell) >= 0]
        cost = torch.stack([distances[label].double() for label in near]).sum(0)
        order[row, column] = best = int(cost.masked_fill(~free, torch.inf).argmin())
        free[best] = False
    return order


def neighbours(order: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Distances between neighbours.

    Args:
        order: (rows, columns).
        distances: (n, n).

    Returns:
        Those of cells side by side (rows, columns - 1), and of cells one above the other
        (rows - 1, columns).
    """
    order = order.long()
    return distances[order[:, :-1], order[:, 1:]], distances[order[:-1], order[1:]]


def total_distance(order: Tensor, distances: Tensor) -> float:
    """Sum of the distances of all neighbours."""
    return sum(part.double().sum().item() for part in neighbours(order, distances))


def score(order: Tensor, distances: Tensor) -> float:
    """1 / `total_distance`: larger for more similar neighbours (PoDD, section 5.3)."""
    return 1 / total_distance(order, distances)


def random_order(classes: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """A random order of `classes` = rows * columns classes; the generator lies on the CPU."""
    return torch.randperm(classes, generator=generator).view(rows, columns)
