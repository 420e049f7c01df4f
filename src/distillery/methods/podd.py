"""PoDD (Shul, Horwitz and Hoshen, 2024): a whole data set in one poster, whose overlapping patches are the training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from distillery.components.fields import Count, Positive
from distillery.embeddings.distances import read_distances
from distillery.errors import BudgetError, PlanError, nearest
from distillery.methods.shared.meta import (
    Learned,
    Problem,
    Space,
    every,
    learn,
    passes,
    some,
    window_starts,
)
from distillery.methods.shared.recipes import Unrolled
from distillery.poster import geometry, initial, order
from distillery.poster import labels as poddl
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.parts import Kind, Part
from distillery.unroll.optimizers import Adam

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.methods.shared.meta import Values
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("podd",)
TRAITS = {"fractional_ipc": True, "poster": True, "free_pixels": True}
EPSILON = 1e-8


@dataclass(frozen=True)
class Recipe(Unrolled):
    """Paper section 5.1; the defaults are CIFAR-10's.

    posters: "one" for all classes, or one "per-class" (section 6, above one image per class). size: width and height of a
    poster in pixels, None: the largest of the classes' grid within the budget. class_grid: columns and rows of classes on
    the poster, None: nearest to a square. patch_grid: columns and rows of patches. patches: in an inner step (None: all).
    order: "poco" by the similarity of the classes' `embedding` (an entry of `embed`), "given" as the labels, or
    "random:<seed>". labels: "fixed" by the class that fills most of a patch, or "learned" at a rate label_lr (None: lr).
    label_shape: of the learned ones, a cell per class ("paper", None), or the array of the authors' code ("reference"), for an
    ablation (`poster.labels.reference`). init: "tiles", a Gaussian tile of unit norm per class, blended, or "noise". init_std:
    of the noise, None: 1 / sqrt(C h h). cyclic: whether patches go on at the opposite border.
    """

    meta_steps: Count = 40000
    window_start: Literal["epoch", "step", "fixed"] = "epoch"
    posters: Literal["one", "per-class"] = "one"
    size: tuple[Count, Count] | None = None
    class_grid: tuple[Count, Count] | None = None
    patch_grid: tuple[Count, Count] = (16, 6)
    patches: Count | None = None
    order: str = "poco"
    embedding: str | None = None
    labels: Literal["fixed", "learned"] = "learned"
    label_lr: Positive | None = None
    label_shape: Literal["paper", "reference"] | None = None
    init: Literal["tiles", "noise"] = "tiles"
    init_std: Positive | None = None
    cyclic: bool = False

    @property
    def soft(self) -> bool:
        """Patches have labels of their own, fixed or learned."""
        return True

    def instances(self, ipc: float, classes: int) -> int:
        """Patches of the set, whatever the budget."""
        return (
            self.patch_grid[0]
            * self.patch_grid[1]
            * (classes if self.posters == "per-class" else 1)
        )

    def images_per_step(self, ipc: float, classes: int) -> int:
        """Patches of an inner step."""
        return self.patches or self.instances(ipc, classes)


@dataclass(frozen=True)
class Layout:
    """What lies where: posters of width x height pixels, `cells` of classes and `patches` of `side` pixels on each. reference:
    whether learned labels have the shape of the authors' array instead of the cells'."""

    width: int
    height: int
    side: int
    cells: geometry.Grid
    patches: geometry.Grid
    cyclic: bool
    reference: bool = False

    @classmethod
    def of(cls, recipe: Recipe, ipc: float, classes: int, side: int) -> Layout:
        """The layout of a recipe for images of `side` pixels. Raises BudgetError where a poster holds no patch or exceeds the
        budget, PlanError when the class grid does not hold each class once, or the authors' array has no meaning."""
        alone, reference = (
            recipe.posters == "per-class",
            recipe.labels == "learned" and recipe.label_shape == "reference",
        )
        if reference and (alone or recipe.cyclic):
            raise PlanError(
                "label_shape = 'reference': is for one poster that is not cyclic; leave label_shape out"
            )
        cells = _class_grid(recipe, ipc, classes)
        held = 1 if alone else classes
        width, height = recipe.size or geometry.size(
            ipc, held, side, geometry.Grid(1, 1) if alone else cells
        )
        if width * height > geometry.most(ipc, held, side) or min(width, height) < side:
            raise BudgetError(
                f"size = [{width}, {height}]: a poster at ipc {ipc:g} has {side} pixels a side or more and at most "
                f"{geometry.most(ipc, held, side)} in all; leave size out to have it worked out"
            )
        return cls(
            width, height, side, cells, geometry.Grid(*recipe.patch_grid), recipe.cyclic, reference
        )

    @classmethod
    def stored(cls, distilled: DistilledSet) -> Layout:
        """The layout of a stored set."""
        (height, width), (rows, columns) = (
            distilled["poster"].shape[2:],
            distilled["order"].shape[1:],
        )
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
        """What `stored` needs besides the shapes of the parts: columns, rows and side of the patches, and both flags."""
        grid = {"columns": self.patches.columns, "rows": self.patches.rows, "side": self.side}
        return grid | {"cyclic": self.cyclic, "reference": self.reference}

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

    def learned(self, order: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Of learned labels: what share each patch has of each (p, their number) float32, and the labels to start from
        (rows, columns, classes) float32, for the class of each cell, `order` (rows, columns)."""
        if self.reference:
            return poddl.reference(self.width, self.height, self.side, order, self.patches)
        return self.weights, poddl.initial(order, classes)


def _class_grid(recipe: Recipe, ipc: float, classes: int) -> geometry.Grid:
    if (
        recipe.posters == "per-class"
    ):  # section 6: as many cells a side as the square root of the images
        return geometry.Grid(*(max(1, round(ipc**0.5)),) * 2)
    grid = geometry.Grid(*recipe.class_grid) if recipe.class_grid else geometry.class_grid(classes)
    if grid.count != classes:
        raise PlanError(
            f"class_grid = {list(recipe.class_grid)}: has {grid.count} cells for {classes} classes; give each one"
        )
    return grid


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: float, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """One poster for all classes, or one for each; a student trains on its overlapping patches.

    Parts, B posters: poster (B, C, H, W) float32, whitened, or pixels (`Space.stored`); order (B, rows, columns) int16, the
    class of each cell; patches (4,) int16, their columns, rows and side, and whether they are cyclic, and a fifth number, 1,
    where label_shape is "reference"; where labels are learned soft (B, rows, columns, classes) float32, at least 0, of the
    rows and columns of the order or of the authors' array. Raises BudgetError and PlanError as `Layout.of` and `arrange`
    do, DistilleryError when a meta-step is not finite.
    Deviation: the poster is that of the last meta-step; the authors' code keeps the one with the lowest training loss.
    Labels are the paper's (`poster.labels`), those of the authors' code an option.
    """
    space, classes, (channels, side, _) = Space.of(train, job), len(train.classes), train.shape
    layout = Layout.of(recipe, ipc, classes, side)
    placed = arrange(recipe, layout, train, job)
    poster = torch.stack(
        [start(recipe, layout, channels, job.generator(f"poster/{b}")) for b in range(len(placed))]
    )
    learned = {"poster": Learned(poster.to(job.device), Adam(recipe.lr))}
    if recipe.labels == "learned":
        soft = torch.stack([layout.learned(order, classes)[1] for order in placed])
        learned["soft"] = Learned(
            soft.to(job.device), Adam(recipe.label_lr or recipe.lr), images=False, least=0.0
        )
    unfold = unfolding(layout, placed, classes, job.device)
    count = len(placed) * layout.patches.count
    problem = Problem(
        learned,
        unfold,
        draw=some(count, recipe.patches) if recipe.patches else every(count),
        real=passes(len(train), recipe.batch, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Adam(recipe.inner_lr),
    )
    values = learn(problem, space, classes, recipe, job)
    parts = {
        "poster": Part(values["poster"], Kind.IMAGE),
        "order": Part(placed.to(torch.int16), Kind.INDEX),
    }
    if "soft" in values:
        parts["soft"] = Part(values["soft"], Kind.SOFT_LABEL)
    return DistilledSet(
        "podd",
        ipc,
        tuple(train.classes),
        space.mean,
        space.std,
        parts,
        layout.stated(),
        whitening=space.whitening,
    )


def arrange(recipe: Recipe, layout: Layout, train: ImageSet, job: Job) -> Tensor:
    """The class of each cell of each poster, (B, rows, columns) int64. Raises PlanError for an order that does not exist."""
    classes, rows, columns = len(train.classes), layout.cells.rows, layout.cells.columns
    if recipe.posters == "per-class":
        return torch.arange(classes)[:, None, None].expand(-1, rows, columns)
    kind, _, seed = recipe.order.partition(":")
    orders = {
        "poco": lambda: order.place(_distances(train, job), rows, columns),
        "given": lambda: torch.arange(classes).view(rows, columns),
        "random": lambda: order.shuffled(
            classes, rows, columns, torch.Generator().manual_seed(int(seed))
        ),
    }
    if kind not in orders:
        raise PlanError(f"order = '{recipe.order}': does not exist: {nearest(kind, orders)}")
    if seed.isdecimal() != (kind == "random"):
        raise PlanError(
            f"order = '{recipe.order}': cannot be read; write poco, given, or random:0, with any number as seed"
        )
    return orders[kind]()[None]


def _distances(train: ImageSet, job: Job) -> Tensor:
    if not job.find_input("embeddings"):
        raise PlanError(
            "order = 'poco': needs embedding, an entry of `embed`; or set order to given"
        )
    return read_distances(job.input("embeddings"), train.class_order)


def start(recipe: Recipe, layout: Layout, channels: int, stream: torch.Generator) -> Tensor:
    """A poster (C, H, W) float32 before the first meta-step."""
    if recipe.init == "tiles":
        return initial.tiles(
            channels, layout.width, layout.height, layout.side, layout.cells, stream
        )
    std = recipe.init_std or (channels * layout.side**2) ** -0.5
    return initial.noise(channels, layout.width, layout.height, std, stream)


def unfolding(
    layout: Layout, placed: Tensor, classes: int, device: torch.device | str
) -> Callable[[Values], tuple[Tensor, Tensor]]:
    """A function of `poster` (B, C, H, W) and, where labels are learned, `soft` (B, rows, columns, n): the patches
    (B p, C, side, side), and their label probabilities (B p, n); differentiable."""
    index, weights = layout.index.to(device), layout.learned(placed[0], classes)[0].to(device)
    still = torch.cat([poddl.fixed(layout.weights, order, classes) for order in placed]).to(device)

    def unfold(values: Values) -> tuple[Tensor, Tensor]:
        patches = torch.cat([geometry.cut(poster, index) for poster in values["poster"]])
        soft = (
            torch.cat([poddl.learned(weights, cells) for cells in values["soft"]])
            if "soft" in values
            else still
        )
        return patches, soft

    return unfold


def expand(distilled: DistilledSet) -> Instances:
    """The patches, whitened or pixels, and the logarithms of their labels; hard labels are the most probable classes."""
    layout, placed = Layout.stored(distilled), distilled["order"].long().cpu()
    unfold = unfolding(layout, placed, len(distilled.classes), distilled["poster"].device)
    patches, soft = unfold(distilled.tensors)
    return Instances(soft.argmax(1), patches.__getitem__, (soft + EPSILON).log())
