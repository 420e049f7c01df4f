"""A poster's layout, and its way to patches with labels (PoDD, sections 3 and 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillery.poster import geometry
from distillery.poster import labels as poddl

if TYPE_CHECKING:
    from distillery.sets.distilled import DistilledSet


@dataclass(frozen=True)
class PosterLayout:
    """What lies where on a poster.

    Attributes:
        width: of the poster in pixels.
        height: of the poster in pixels.
        side: of a patch in pixels.
        cells: the grid of classes.
        patches: the grid of patches.
        cyclic: whether patches go on at the opposite border.
        reference: whether learned labels have the shape of the authors' array instead of the
            cells'.
    """

    width: int
    height: int
    side: int
    cells: geometry.Grid
    patches: geometry.Grid
    cyclic: bool
    reference: bool = False

    @classmethod
    def stored(cls, distilled: DistilledSet) -> PosterLayout:
        """The layout of a stored set."""
        _, _, height, width = distilled["poster"].shape
        _, rows, columns = distilled["order"].shape
        stated = distilled.layout
        return cls(
            width,
            height,
            stated["side"],
            geometry.Grid(columns, rows),
            geometry.Grid(stated["columns"], stated["rows"]),
            stated["cyclic"],
            stated["reference"],
        )

    def stated(self) -> dict[str, Any]:
        """What `stored` needs besides the shapes of the parts."""
        return {
            "columns": self.patches.columns,
            "rows": self.patches.rows,
            "side": self.side,
            "cyclic": self.cyclic,
            "reference": self.reference,
        }

    @property
    def index(self) -> Tensor:
        """Where each patch's pixels are: (p, side * side) int64."""
        return geometry.flat_index(self.width, self.height, self.side, self.patches, self.cyclic)

    @property
    def weights(self) -> Tensor:
        """What share of each patch lies in each cell: (p, cells) float32."""
        return poddl.weights(
            self.width, self.height, self.side, self.cells, self.patches, self.cyclic
        )

    def learned_labels(self, order: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """How learned labels become those of patches, and what they are at the start.

        Args:
            order: (rows, columns) int64, the class of each cell.
            classes: how many there are.

        Returns:
            The share that each patch has of each of the n learned labels, (p, n) float32, and the
            labels to start from, (rows, columns, classes) float32.
        """
        if self.reference:
            return poddl.reference(self.width, self.height, self.side, order, self.patches)
        return self.weights, poddl.initial(order, classes)


def unfolding(
    layout: PosterLayout, orders: Tensor, classes: int, device: torch.device | str
) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]:
    """A function from posters to patches and their labels; differentiable.

    Args:
        layout: of each poster.
        orders: (B, rows, columns) int64, the class of each cell.
        classes: how many there are.
        device: where the posters are.

    Returns:
        A function of `poster` (B, C, H, W) and, where labels are learned, `soft` (B, rows, columns,
        n), to the patches (B p, C, side, side) and their label probabilities (B p, n).
    """
    index = layout.index.to(device)
    weights = layout.learned_labels(orders[0], classes)[0].to(device)
    by_poster = [poddl.fixed(layout.weights, order, classes) for order in orders]
    fixed_labels = torch.cat(by_poster).to(device)

    def unfold(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        patches = torch.cat([geometry.cut(poster, index) for poster in values["poster"]])
        if "soft" not in values:
            return patches, fixed_labels
        return patches, torch.cat([poddl.learned(weights, cells) for cells in values["soft"]])

    return unfold
