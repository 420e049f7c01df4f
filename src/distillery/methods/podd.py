"""PoDD (Shul, Horwitz and Hoshen, 2024): a whole data set in one poster.

A student trains on the overlapping patches of the poster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distillery.components.fields import Count, Positive
from distillery.embeddings.distances import read_distances
from distillery.errors import BudgetError, PlanError, nearest
from distillery.methods.shared.image_space import ImageSpace
from distillery.methods.shared.meta_draws import (
    full_batch,
    random_subset,
    shuffled_passes,
    window_starts,
)
from distillery.methods.shared.meta_learning import LearnedTensor, MetaProblem, learn
from distillery.methods.shared.recipes import Unrolled
from distillery.poster import geometry, initial
from distillery.poster.layout import PosterLayout, unfolding
from distillery.poster.order import greedy_order, random_order
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.parts import Kind, Part
from distillery.unroll.optimizers import Adam

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.methods.shared.snapshots import Values
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("podd",)
TRAITS = {"fractional_ipc": True, "poster": True, "free_pixels": True}
EPSILON = 1e-8
ORDERS = ("poco", "given", "random")


@dataclass(frozen=True)
class Recipe(Unrolled):
    """Paper section 5.1; the defaults are CIFAR-10's.

    Attributes:
        posters: "one" for all classes, or one "per-class" (section 6, above one image per class).
        size: width and height of a poster in pixels, None: the largest of the classes' grid within
            the budget.
        class_grid: columns and rows of classes on the poster, None: nearest to a square.
        patch_grid: columns and rows of patches.
        patches: patches in an inner step (None: all).
        order: of the classes: "poco" by the similarity of their `embedding`, "given" as the labels,
            or "random:<seed>".
        embedding: an entry of `embed`.
        labels: "fixed" by the class that fills most of a patch, or "learned".
        label_lr: learning rate of learned labels (None: lr).
        label_shape: of learned labels, a cell per class ("paper", None), or the array of the
            authors' code ("reference"), for an ablation (`poster.labels.reference`).
        init: "tiles", a Gaussian tile of unit norm per class, blended, or "noise".
        init_std: of the noise, None: 1 / sqrt(C h h).
        cyclic: whether patches go on at the opposite border.
    """

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

    def mistake(self) -> tuple[str, str] | None:
        """The field that does not go with another one, and why; None where all is well."""
        one = self.posters == "one"
        reference = self.labels == "learned" and self.label_shape == "reference"
        if reference and (not one or self.cyclic):
            return "label_shape", "'reference': is for one poster that is not cyclic"
        kind, _, seed = self.order.partition(":")
        if one and (kind not in ORDERS or seed.isdecimal() != (kind == "random")):
            return "order", f"'{self.order}': write poco, given, or random:0, with any seed"
        if one and kind == "poco" and self.embedding in (None, "none"):
            return "order", "'poco': needs embedding, an entry of `embed`; or set order to given"
        return super().mistake()

    def misfit(self, ipc: float, classes: int, side: int, images: float) -> tuple[str, str] | None:
        """The field that does not go with the budget or the data, and why; None: all is well.

        Args:
            ipc: images per class, a fraction perhaps.
            classes: how many there are.
            side: of the images in pixels.
            images: of each class; not read.
        """
        held = 1 if self.posters == "per-class" else classes
        pixels = int(round(ipc * held * side**2, 6))
        width, height = self.size or (pixels // side, pixels // side)
        stated = f"[{width}, {height}]"
        if self.size and (width * height > pixels or min(width, height) < side):
            why = f"a poster at ipc {ipc:g} has sides of {side} px or more, {pixels} px in all"
            return "size", f"{stated}: {why}; leave it out to have it worked out"
        if self.class_grid and held > 1 and self.class_grid[0] * self.class_grid[1] != classes:
            return "class_grid", f"{list(self.class_grid)}: has not a cell for each of {classes}"
        if self.patch_grid[0] > width or self.patch_grid[1] > height:
            why = f"a poster at ipc {ipc:g} has at most {width} columns and {height} rows of pixels"
            return "patch_grid", f"{list(self.patch_grid)}: {why}; ask for fewer patches"
        return None

    @property
    def soft(self) -> bool:
        """Patches have labels of their own, fixed or learned."""
        return True

    def instances(self, ipc: float, classes: int) -> int:
        """Patches of the set, whatever the budget."""
        posters = classes if self.posters == "per-class" else 1
        return self.patch_grid[0] * self.patch_grid[1] * posters

    def images_per_step(self, ipc: float, classes: int) -> int:
        """Patches of an inner step."""
        return self.patches or self.instances(ipc, classes)


def poster_layout(recipe: Recipe, ipc: float, classes: int, side: int) -> PosterLayout:
    """The layout of a recipe.

    Args:
        recipe: the settings.
        ipc: images per class, a fraction perhaps.
        classes: how many there are.
        side: of the images in pixels.

    Raises:
        BudgetError: a poster holds no patch or exceeds the budget.
        PlanError: the class grid does not hold each class once, or the authors' array has no
            meaning.
    """
    per_class = recipe.posters == "per-class"
    reference = recipe.labels == "learned" and recipe.label_shape == "reference"
    if reference and (per_class or recipe.cyclic):
        raise PlanError(
            "label_shape = 'reference': is for one poster that is not cyclic; leave label_shape out"
        )
    cells = _class_grid(recipe, ipc, classes)
    held = 1 if per_class else classes  # classes on one poster
    size_grid = geometry.Grid(1, 1) if per_class else cells
    width, height = recipe.size or geometry.poster_size(ipc, held, side, size_grid)
    most = geometry.most_pixels(ipc, held, side)
    if width * height > most or min(width, height) < side:
        raise BudgetError(
            f"size = [{width}, {height}]: a poster at ipc {ipc:g} has {side} pixels a side or "
            f"more and at most {most} in all; leave size out to have it worked out"
        )
    patches = geometry.Grid(*recipe.patch_grid)
    return PosterLayout(width, height, side, cells, patches, recipe.cyclic, reference)


def _class_grid(recipe: Recipe, ipc: float, classes: int) -> geometry.Grid:
    if recipe.posters == "per-class":
        # Section 6: as many cells a side as the square root of the images.
        side = max(1, round(ipc**0.5))
        return geometry.Grid(side, side)
    if recipe.class_grid is None:
        return geometry.class_grid(classes)
    grid = geometry.Grid(*recipe.class_grid)
    if grid.count != classes:
        raise PlanError(
            f"class_grid = {list(recipe.class_grid)}: has {grid.count} cells for {classes} "
            f"classes; give each one"
        )
    return grid


def distill(
    train: ImageSet, recipe: Recipe, *, ipc: float, teachers: list[Teacher], job: Job
) -> DistilledSet:
    """Learn one poster for all classes, or one for each.

    Deviation: the poster is that of the last meta-step; the authors' code keeps the one with the
    lowest training loss. Students see each patch once per pass, theirs draw the patches of each
    step anew (-0.3 points, standard error 0.3, on nine posters of digits). Labels are the paper's
    (`poster.labels`), those of the authors' code an option.

    Args:
        train: the real images.
        recipe: the settings.
        ipc: images per class, a fraction perhaps.
        teachers: none.
        job: gives device, random streams and folders; its input `embeddings` the class distances.

    Returns:
        Parts, B posters: poster (B, C, H, W) float32, whitened, or pixels (`ImageSpace.stored`);
        order (B, rows, columns) int16, the class of each cell; where labels are learned soft
        (B, rows, columns, classes) float32, at least 0, of the rows and columns of the order or of
        the authors' array. Layout: `PosterLayout.stated`.

    Raises:
        BudgetError: as `poster_layout` does.
        PlanError: as `poster_layout` and `arrange` do.
        ClassOrderError: the class distances are of other classes, or in another order.
        DistilleryError: a meta-step is not finite.
    """
    space, classes, (channels, side, _) = ImageSpace.of(train, job), len(train.classes), train.shape
    layout = poster_layout(recipe, ipc, classes, side)
    orders = arrange(recipe, layout, train, job)
    streams = [job.generator(f"poster/{number}") for number in range(len(orders))]
    posters = torch.stack([start(recipe, layout, channels, stream) for stream in streams])
    learned = {"poster": LearnedTensor(posters.to(job.device), Adam(recipe.lr))}
    if recipe.labels == "learned":
        soft = torch.stack([layout.learned_labels(order, classes)[1] for order in orders])
        optimizer = Adam(recipe.label_lr or recipe.lr)
        learned["soft"] = LearnedTensor(soft.to(job.device), optimizer, images=False, least=0.0)
    count = len(orders) * layout.patches.count
    problem = MetaProblem(
        learned,
        unfolding(layout, orders, classes, job.device),
        draw=random_subset(count, recipe.patches) if recipe.patches else full_batch(count),
        real=shuffled_passes(len(train), recipe.batch, job),
        window_start=window_starts(recipe, len(train), job),
        inner=Adam(recipe.inner_lr),
    )
    values = learn(problem, space, classes, recipe, job)
    return poster_set(values, orders, layout, ipc, train, space)


def poster_set(
    values: Values,
    orders: Tensor,
    layout: PosterLayout,
    ipc: float,
    train: ImageSet,
    space: ImageSpace,
) -> DistilledSet:
    """The set that stores learned posters.

    Args:
        values: `poster`, and `soft` where labels were learned.
        orders: (B, rows, columns) int64, the class of each cell.
        layout: of each poster.
        ipc: the budget.
        train: whose classes they are.
        space: where they were learned.
    """
    parts = {
        "poster": Part(values["poster"], Kind.IMAGE),
        "order": Part(orders.to(torch.int16), Kind.INDEX),
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


def arrange(recipe: Recipe, layout: PosterLayout, train: ImageSet, job: Job) -> Tensor:
    """Which class lies where.

    Args:
        recipe: says by which rule.
        layout: gives the grid of classes.
        train: whose classes they are.
        job: its input `embeddings` gives the class distances.

    Returns:
        The class of each cell of each poster, (B, rows, columns) int64.

    Raises:
        PlanError: the order does not exist, or needs class distances that are not there.
        ClassOrderError: the class distances are of other classes, or in another order.
    """
    classes, rows, columns = len(train.classes), layout.cells.rows, layout.cells.columns
    if recipe.posters == "per-class":
        return torch.arange(classes)[:, None, None].expand(-1, rows, columns)
    kind, _, seed = recipe.order.partition(":")
    orders = {
        "poco": lambda: greedy_order(_distances(train, job), rows, columns),
        "given": lambda: torch.arange(classes).view(rows, columns),
        "random": lambda: random_order(
            classes, rows, columns, torch.Generator().manual_seed(int(seed))
        ),
    }
    if kind not in orders:
        raise PlanError(f"order = '{recipe.order}': does not exist: {nearest(kind, orders)}")
    if seed.isdecimal() != (kind == "random"):
        raise PlanError(
            f"order = '{recipe.order}': cannot be read; "
            f"write poco, given, or random:0, with any number as seed"
        )
    return orders[kind]()[None]


def _distances(train: ImageSet, job: Job) -> Tensor:
    artefact = job.find_input("embeddings")
    if artefact is None:
        raise PlanError(
            "order = 'poco': needs embedding, an entry of `embed`; or set order to given"
        )
    return read_distances(artefact, train.class_order)


def start(recipe: Recipe, layout: PosterLayout, channels: int, stream: torch.Generator) -> Tensor:
    """A poster (C, H, W) float32 before the first meta-step."""
    width, height, side = layout.width, layout.height, layout.side
    if recipe.init == "tiles":
        return initial.tiles(channels, width, height, side, layout.cells, stream)
    std = recipe.init_std or (channels * side**2) ** -0.5
    return initial.noise(channels, width, height, std, stream)


def expand(distilled: DistilledSet) -> Instances:
    """The patches, whitened or pixels, and the logarithms of their labels.

    Hard labels are the most probable classes.
    """
    layout, orders = PosterLayout.stored(distilled), distilled["order"].long().cpu()
    unfold = unfolding(layout, orders, len(distilled.classes), distilled["poster"].device)
    patches, soft = unfold(distilled.tensors)
    return Instances(soft.argmax(1), patches.__getitem__, (soft + EPSILON).log())
