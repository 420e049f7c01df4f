"""The look that all figures share, and how they are written: same figure, same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

T = TypeVar("T")

WIDTH = 7.0  # inches, the text width of a page
# Okabe and Ito's colours, which people with any colour vision tell apart, and four more: ten
# classes and twelve rows have colours of their own
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"),
    *("#882255", "#7A7A7A", "#7FBF3F", "#5B2C83"),
)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "p", "h")
GREY = "#D0D0D0"
HEAT = "cividis"
PER_LINE = 2  # axes side by side, of figures with axes of their own for each setting
FRAME = 0.7  # inches beside axes, for the labels of their y axis
LETTER = 0.6  # width of a digit over the size of its font
LINE = 0.145  # inches, height of a line of a title
GROUP = 0.8  # of the distance between two groups of bars
_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}

look = matplotlib.rc_context(
    {
        "font.family": "DejaVu Sans",  # the font that comes with matplotlib
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "figure.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.axisbelow": True,
        "grid.color": "#E5E5E5",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.4,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "savefig.dpi": 200,
        "svg.hashsalt": "distillery",
        "pdf.fonttype": 42,
    }
)


def canvas(
    title: str, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of page width with a title, and its axes.

    Args:
        title: stands above it.
        height: inches.
        rows: of axes.
        columns: of axes.
        **options: as of `Figure.subplots`.

    Returns:
        The figure and its axes (rows, columns).
    """
    height += LINE * title.count("\n")
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def facet_canvas(
    title: str, count: int, height: float, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with `count` axes, two side by side; those that are left over are blank.

    Args:
        title: stands above it.
        count: of the axes.
        height: of a line of axes, inches.
        **options: as of `Figure.subplots`.
    """
    lines, columns = math.ceil(count / PER_LINE), min(count, PER_LINE)
    figure, grid = canvas(title, 0.6 + height * lines, lines, columns, **options)
    blank(grid.flat[count:])
    return figure, grid


def colour(place: int) -> str:
    """The colour of the thing at `place` in a legend; they repeat after twelve."""
    return COLOURS[place % len(COLOURS)]


def pale(place: int) -> tuple[float, ...]:
    """A light tint of `colour(place)`, for areas behind points."""
    return tuple(0.35 * c + 0.65 for c in to_rgb(colour(place)))


def unique(values: Iterable[T]) -> list[T]:
    """Each value once, in order of first appearance: the order of a legend."""
    return list(dict.fromkeys(values))


def legend(
    figure: Figure, names: Sequence[str], colours: Sequence[ColorType], *more: Artist
) -> None:
    """A legend of coloured squares below all axes, then of what is in `more`."""
    handles = [
        *(Patch(color=shade, label=name) for name, shade in zip(names, colours, strict=True)),
        *more,
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))


def curve_legend(figure: Figure, curves: Mapping[str, Artist]) -> None:
    """A legend of curves, by their names, below all axes."""
    figure.legend(curves.values(), curves, loc="outside lower center", ncols=min(len(curves), 4))


def places(groups: int, bars: int) -> tuple[np.ndarray, float]:
    """Centres (groups, bars) of the bars of groups around 0, 1, 2, ..., and the width of a bar."""
    width = GROUP / bars
    return np.arange(groups)[:, None] + (np.arange(bars) - (bars - 1) / 2) * width, width


def bars(
    axes: Axes,
    heights: np.ndarray,
    errors: np.ndarray,
    colours: Sequence[str],
    write: str | None = None,
) -> None:
    """Grouped bars from zero with error bars.

    Args:
        axes: to draw on.
        heights: (groups, bars), NaN for nothing.
        errors: (groups, bars), NaN for none.
        colours: of the bars of a group.
        write: format of the numbers above them; None: no numbers.
    """
    centres, width = places(*heights.shape)
    tops = np.nan_to_num(heights) + np.nan_to_num(errors)
    for bar, shade in enumerate(colours):
        axes.bar(
            centres[:, bar],
            heights[:, bar],
            0.92 * width,
            yerr=errors[:, bar],
            color=shade,
            error_kw={"lw": 0.8},
        )
    if write:
        texts = [write.format(height) if np.isfinite(height) else "" for height in heights.flat]
        letters = max(map(len, texts))
        size, upright = numbers_size(axes, width / len(heights), letters)
        turned: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": size,
            "ha": "center",
            "va": "bottom",
            "rotation": 90 if upright else 0,
        }
        for x, top, text in zip(centres.flat, tops.flat, texts, strict=True):
            axes.annotate(text, (x, top), (0, 2), **turned)
        axes.margins(y=0.09 * letters if upright else 0.12)
    axes.grid(axis="y")
    axes.set_xticks(np.arange(len(heights)))
    axes.set_xlim(-0.5, len(heights) - 0.5)
    axes.tick_params(axis="x", length=0)


def numbers_size(axes: Axes, share: float, letters: int) -> tuple[float, bool]:
    """Font size of the numbers above bars, and whether they stand upright.

    None is wider than its bar, so that none runs into a taller bar beside it.

    Args:
        axes: of the bars.
        share: of the axes' width that a bar and its gap have.
        letters: of the longest number.
    """
    place = axes.get_subplotspec()
    columns = place.get_gridspec().ncols if place else 1
    points = 72 * share * (WIDTH / columns - FRAME)
    upright = letters * LETTER * 7 > 0.95 * points
    return (min(7.0, 0.95 * points) if upright else 7.0), upright


def curve(
    axes: Axes, place: int, x: Sequence[float], y: Sequence[float], error: Sequence[float]
) -> Artist:
    """A line with markers and error bars; what a legend shows of it.

    Args:
        axes: to draw on.
        place: of the line in the legend: decides its colour and marker.
        x: of the points.
        y: of the points.
        error: half the length of the error bars.
    """
    drawn = axes.errorbar(
        x, y, error, color=colour(place), marker=MARKERS[place % len(MARKERS)], elinewidth=0.8
    )
    return cast(Artist, drawn)  # a container of artists, which a legend takes for one


def blank(axes: Iterable[Axes]) -> None:
    """Take away the frames of axes that hold nothing."""
    for one in axes:
        one.set_axis_off()


@look
def rendered(figure: Figure, suffix: str) -> bytes:
    """The figure as a .png, .pdf or .svg file: same figure, same bytes.

    The time and the program's version are left out.
    """
    file = io.BytesIO()
    figure.savefig(file, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return file.getvalue()
