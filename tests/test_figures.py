"""Figures from synthetic entries: drawn, labelled, and the same bytes again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from distillery.components import registry
from distillery.errors import PlanError
from distillery.figures.panel import Entry, Panel, facets, heading, names, spread
from distillery.figures.style import COLOURS, colour, pale, places, rendered

ROWS = ("SRe2L", "INFER", "Random")


def entry(row: str, ipc: float = 10, value: float = 40.0, **fields: object) -> Entry:
    return Entry(
        **{
            "row": row,
            "dataset": "cifar100",
            "ipc": ipc,
            "student": "resnet18",
            "value": value,
            "std": 0.8,
            "n": 3,
            "over": "students",
        }
        | fields
    )


def accuracy() -> list[Entry]:
    heights = {
        ("SRe2L", 10): 23.5,
        ("SRe2L", 50): 51.4,
        ("INFER", 10): 45.2,
        ("INFER", 50): 62.8,
        ("Random", 10): 19.6,
    }
    return [entry(row, ipc, value) for (row, ipc), value in heights.items()]


def similarity() -> list[Entry]:
    start = {"SRe2L": 0.78, "INFER": 0.52, "Random": 0.41}
    return [
        entry(row, ipc, start[row] - 0.01 * i, std=0.004, student=None, dataset=dataset)
        for row in ROWS
        for i, ipc in enumerate((10, 20, 50, 100))
        for dataset in ("cifar10", "cifar100")
    ]


def landscape() -> list[Entry]:
    offsets = np.linspace(-1, 1, 21, dtype=np.float32)
    a, b = np.meshgrid(offsets, offsets, indexing="ij")
    found = []
    for row, steep in zip(ROWS, (6.0, 2.5, 4.0), strict=True):
        surface = np.logaddexp(0, steep * a) + 0.4 * steep * b**2
        arrays = {
            "offsets": offsets,
            "surface": surface,
            "first": np.logaddexp(0, 2 * steep * a - steep * b) + 0.3,
        }
        found.append(entry(row, arrays=arrays))
    return found


def difficulty() -> list[Entry]:
    found = []
    for row, skill in zip(ROWS[:2], (0.6, 0.75), strict=True):
        width = np.geomspace(6000, 8, 10).round().astype(int)
        rows = [
            ("width", i, 0.9 * i, 0.9 * (i + 1), n, round(n * skill * 0.85**i))
            for i, n in enumerate(width)
        ]
        edges = np.concatenate([[0], np.geomspace(0.001, 9, 10)])
        rows += [
            ("quantile", i, edges[i], edges[i + 1], 1000, round(1000 * skill * 0.93**i))
            for i in range(10)
        ]
        found.append(
            entry(
                row,
                values=pd.DataFrame(
                    rows, columns=["bins", "bin", "low", "high", "total", "correct"]
                ),
            )
        )
    return found


def divergence() -> list[Entry]:
    found = []
    for row, scale in zip(ROWS[:2], (3.0, 1.0), strict=True):
        rows = [
            (augmented, temperature, scale * size * (1 + augmented), 0.03 * size, 10_000)
            for augmented in (False, True)
            for temperature, size in ((30.0, 0.002), (1.0, 0.6))
        ]
        columns = ["augmented", "temperature", "kl", "standard_error", "mixes"]
        found.append(entry(row, values=pd.DataFrame(rows, columns=columns)))
    return found


CLASSES = ("apple", "bear", "castle", "lamp", "orchid", "tank", "worm")


def boundary() -> list[Entry]:
    found = []
    for row, width in zip(ROWS, (9.0, 5.0, 14.0), strict=True):
        random = np.random.default_rng(0)
        centres = 30 * np.stack([np.cos(np.arange(7) * 0.9), np.sin(np.arange(7) * 0.9)], 1)
        labels = np.repeat(np.arange(7), 40)
        points = (centres[labels] + width * random.standard_normal((280, 2))).astype(np.float32)
        axis = np.linspace(-60, 60, 120, dtype=np.float32)
        place = np.stack(np.meshgrid(axis, axis), -1)
        region = np.linalg.norm(place[:, :, None] - centres, axis=-1).argmin(-1)
        predictions = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(-1)
        arrays = {
            "points": points,
            "labels": labels,
            "predictions": predictions,
            "grid": np.stack([axis, axis]),
        }
        arrays |= {"region": region, "classes": np.array([0, 3, 17, 40, 54, 85, 99])}
        values = pd.DataFrame({"class": CLASSES, "images": 40, "correct": 30})
        found.append(
            entry(row, value=100 * np.mean(labels == predictions), values=values, arrays=arrays)
        )
    return found


def compensators(channels: int = 3) -> list[Entry]:
    random = np.random.default_rng(1)
    waves = np.sin(np.linspace(0, 6, 32))
    u = 0.15 * random.standard_normal((4, 4, channels, 32, 32)) + 0.2 * waves * waves[:, None]
    natural = (
        0.5
        + 0.4
        * np.sin(np.linspace(0, 3, 32))
        * random.uniform(-1, 1, (5, channels, 1, 1))
        * waves[:, None]
    ).clip(0, 1)
    arrays = {
        "u": u,
        "natural": natural,
        "compensated": (natural + u[:, :1]).clip(0, 1),
        "classes": np.array([2, 14, 37, 60, 88]),
    }
    networks = ["resnet18", "mobilenet_v2", "resnet10-w16", "convnet128"]
    values = pd.DataFrame({"teacher": [3, 0, 2, 1], "network": [networks[j] for j in (3, 0, 2, 1)]})
    values = pd.concat([values, values], ignore_index=True)  # two subsets
    return [entry("INFER", student=None, value=0.6, arrays=arrays, values=values)]


def continual() -> list[Entry]:
    found = []
    for row, start in zip(ROWS[:2], (48.0, 55.0), strict=True):
        rows = [
            (0, student, i, 40 * i, 400 * i, start - 6 * i + student)
            for student in range(3)
            for i in range(1, 6)
        ]
        columns = ["draw", "student_of_draw", "step", "classes_seen", "memory", "accuracy"]
        found.append(entry(row, values=pd.DataFrame(rows, columns=columns)))
    return found


def convergence() -> list[Entry]:
    steps = {
        "draw": 0,
        "student_of_draw": [0, 0, 1, 1],
        "meta_step": [100, 200, 100, 200],
        "accuracy": [20.0, 30.0, 22.0, 31.0],
    }
    return [entry(row, value=30.5, values=pd.DataFrame(steps)) for row in ROWS[:2]]


def order_accuracy() -> list[Entry]:
    """Five orders, accuracy 10 more than a hundredfold of the score but for the last."""
    places = {
        "poco": (0.30, 40.0),
        "a": (0.20, 30.0),
        "b": (0.25, 35.0),
        "c": (0.22, 32.0),
        "d": (0.21, 35.0),
    }
    frames = {
        name: pd.DataFrame({"draw": 0, "score": [x, x], "accuracy": [y - 1, y + 1]})
        for name, (x, y) in places.items()
    }
    return [
        entry("PoDD", value=frame.accuracy.mean(), values=frame, extra={"order": name})
        for name, frame in frames.items()
    ]


def sweep() -> list[Entry]:
    """Gamma from the right to the left; INFER lacks the first."""
    places = {"SRe2L": (1.0, 0.1, 0.0), "INFER": (1.0, 0.1)}
    return [
        entry(row, value=40 - 10 * gamma, extra={"gamma": gamma})
        for row, values in places.items()
        for gamma in values
    ]


def poster(classes: int = 6) -> list[Entry]:
    random = np.random.default_rng(2)
    order = np.arange(classes)[::-1].reshape(2, -1)
    owner = order.repeat(12, 0).repeat(12, 1)
    arrays = {
        "poster": random.standard_normal((3, *owner.shape)),
        "map": owner,
        "order": order,
        "side": np.array([12]),
    }
    arrays["corners"] = np.stack(
        np.meshgrid([0, 6, 12, 24], [0, 6, 12], indexing="ij"), -1
    ).reshape(-1, 2)
    arrays["labels"] = random.dirichlet(np.ones(classes), 12).astype(np.float32)
    values = pd.DataFrame({"class": [f"kind_{i}" for i in range(classes)], "pixels": 144})
    return [entry("PoDD", value=owner.size, student=None, values=values, arrays=arrays)]


def order() -> list[Entry]:
    places = {
        "row": [0, 0, 0, 1, 1, 1],
        "column": [0, 1, 2, 0, 1, 2],
        "distance": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    }
    values = pd.DataFrame({"class": CLASSES[:6], **places})
    arrays = {"right": np.array([[0.0, 0.2], [0.4, 0.6]]), "down": np.array([[0.7, 0.8, 1.0]])}
    arrays |= {"total": np.array([3.7]), "random": np.array([4.0, 5.0])}
    return [entry("PoDD", student=None, value=1 / 3.7, values=values, arrays=arrays)]


def tradeoff() -> list[Entry]:
    """INFER's ratio grows with ipc; SRe2L's is larger by its labels; Random has none."""
    ratios = {"SRe2L": (22.67, 4.53), "INFER": (4.04, 0.81), "Random": (None, None)}
    return [
        entry(row, ipc, 60 - 10 * place, ratio=ratio)
        for row, of_row in ratios.items()
        for place, (ipc, ratio) in enumerate(zip((50, 10), of_row, strict=True))
    ]


FIGURES = (
    tradeoff,
    accuracy,
    similarity,
    landscape,
    difficulty,
    divergence,
    boundary,
    compensators,
    continual,
    convergence,
    sweep,
    poster,
    order,
    order_accuracy,
)
ENTRIES = {f.__name__.replace("_", "-"): f for f in FIGURES}
TEXTS = {
    "accuracy": {
        "test accuracy (%)",
        "images per class (ipc)",
        "cifar100, ResNet-18",
        "10",
        "50",
        "45.2",
        *ROWS,
    },
    "similarity": {
        "mean cosine similarity\nwithin a class",
        "images per class (ipc)",
        "cifar10",
        "cifar100",
        "20",
        *ROWS,
    },
    "landscape": {
        "offset along the input gradient ($L_2$, pixel units)",
        "offset along a random orthogonal direction ($L_2$, pixel units)",
        *("cross entropy (nats),\nmean over images", "cross entropy (nats),\none image", *ROWS),
    },
    "difficulty": {
        "cross entropy of the teacher (nats)",
        "test images",
        "all test images",
        "8.1",
        "9",
        *ROWS[:2],
    },
    "divergence": {
        *(
            "KL(dynamic ‖ static) (nats)",
            "images behind the dynamic labels",
            "not augmented",
            "augmented",
            *ROWS[:2],
        ),
        *(
            "cifar100, ResNet-18, ipc 10\nT = 30",
            "cifar100, ResNet-18, ipc 10\nT = 1",
            "0.006",
            "1.2",
        ),
    },
    "boundary": {"t-SNE 1", "t-SNE 2", "misclassified", *CLASSES},
    "continual": {
        *(
            "classes seen",
            "accuracy on the test images\nof the classes seen (%)",
            "cifar100, ResNet-18, ipc 10",
        ),
        *("40", "200", *ROWS[:2]),
    },
    "convergence": {"meta-steps", "test accuracy (%)", "cifar100, ResNet-18", *ROWS[:2]},
    "order-accuracy": {
        *(
            "score of the order, 1 / sum of the distances of neighbours",
            "test accuracy (%)",
            "PoDD, order poco",
        ),
        "cifar100, ResNet-18, ipc 10: r = 0.90 (0.07 to 0.99) over 5 orders; "
        "the paper's is 0.76 over 5",
    },
    "tradeoff": {"compression ratio (%)", "test accuracy (%)", *ROWS[:2]},
    "sweep": {"gamma", "test accuracy (%)", "cifar100, ResNet-18, ipc 10", *ROWS[:2]},
    "poster": {
        "PoDD\n36 x 24, 12 patches of 12",
        "class of each pixel",
        "labels of the patches",
        "kind_5",
        "kind\n5",
    },
    "order": {
        *("distance of neighbours (1 - cosine)", *CLASSES[:6]),
        "PoDD: sum 3.700, score 0.270; random orders: sum 4.500 ± 0.500",
    },
    "compensators": {
        "natural",
        "$u_{1}$, ResNet-18",
        "$u_{3}$, resnet10-w16",
        "$u_{4}$, ConvNet128",
        "$x + u_{4}$",
        "class 37",
    },
}


PRINTED = {"correlation": 0.76, "orders": 5.0}


def draw(name: str, entries: list[Entry] | None = None) -> Figure:
    return registry.load("figure", name).draw(
        Panel(f"Title of {name}", ENTRIES[name]() if entries is None else entries, PRINTED)
    )


def texts(figure: Figure) -> set[str]:
    figure.canvas.draw()
    return {found.get_text() for found in figure.findobj(Text)}


def test_every_figure_and_every_analysis_is_here():
    assert (
        set(ENTRIES)
        == set(registry.index("figure"))
        == {*registry.index("analysis"), "accuracy", "sweep", "tradeoff"}
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_figure_says_what_it_shows_and_is_the_same_again(name, tmp_path):
    figure = draw(name)
    assert texts(figure) >= TEXTS[name]
    title, below = figure.get_suptitle().split("\n", 1)
    assert title == f"Title of {name}" and "n = 3" in below and "cifar" in below
    assert figure.get_size_inches()[0] == 7
    for place in ("one.png", "two.png"):
        (tmp_path / place).write_bytes(rendered(draw(name), ".png"))
    one, two = ((tmp_path / place).read_bytes() for place in ("one.png", "two.png"))
    assert one == two and one[:4] == b"\x89PNG"


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_vector_files_hold_neither_time_nor_chance(suffix, tmp_path):
    for place in "ab":
        file = tmp_path / f"{place}{suffix}"
        file.write_bytes(rendered(draw("accuracy"), suffix))
    one, two = ((tmp_path / f"{place}{suffix}").read_bytes() for place in "ab")
    assert one == two and b"Date" not in one


@pytest.mark.parametrize("name", ENTRIES)
def test_figure_without_measurements_says_so(name):
    empty = [replace(e, value=None, values=pd.DataFrame(), arrays={}) for e in ENTRIES[name]()]
    with pytest.raises(PlanError, match="make its analyses first"):
        draw(name, empty)


def test_bars_are_as_high_as_the_accuracies_and_carry_their_row():
    (axes,) = draw("accuracy").axes
    heights = {
        (
            to_hex(bar.get_facecolor()).upper(),
            round(bar.get_x() + bar.get_width() / 2),
        ): bar.get_height()
        for bar in axes.patches
    }
    found = {
        (ROWS[COLOURS.index(colour)], (10, 50)[group]): height
        for (colour, group), height in heights.items()
    }
    assert np.isnan(found.pop(("Random", 50))), "not measured, no bar"
    assert found == {(e.row, e.ipc): e.value for e in accuracy()}


def test_ten_classes_and_twelve_rows_have_colours_that_differ():
    shades = np.array([to_rgb(colour(place)) for place in range(12)])
    apart = np.linalg.norm(shades[:, None] - shades[None], axis=-1)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.25
    tints = np.array([pale(place) for place in range(12)])
    apart = np.linalg.norm(tints[:, None] - tints[None], axis=-1)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.08


@pytest.mark.parametrize("rows", [2, 3, 6, 12])
@pytest.mark.parametrize("scale", [1.0, 0.00234])
def test_no_bar_runs_into_a_number(rows, scale):
    entries = [
        replace(one, row=f"row {i}", values=one.values.assign(kl=one.values["kl"] * factor))
        for i, factor in zip(range(rows), [scale, 9 * scale] * rows, strict=False)
        for one in divergence()[:1]
    ]
    figure = draw("divergence", entries)
    figure.canvas.draw()
    for axes in figure.axes:
        bars = [patch.get_window_extent() for patch in axes.patches]
        for number in axes.texts:
            box = number.get_window_extent().shrunk(0.98, 0.98)
            assert not any(box.overlaps(bar) for bar in bars), number.get_text()
            assert box.y1 <= axes.get_window_extent().y1, "into the title"


def test_the_lines_below_a_title_say_what_is_drawn():
    entries = [
        entry("a", over="draws"),
        entry("b", ipc=1, n=5, over="draws"),
        entry("b", dataset="digits", student="convnet-w16", over="draws"),
    ]
    assert heading(Panel("T", entries), entries, "bars: b", "") == (
        "T\ncifar100, digits; ResNet-18, convnet-w16; ipc 1, 10; n = 3 to 5 draws; bars: b"
    )
    one = [entry("a", n=1, over="students")]
    assert heading(Panel("T", one), one) == "T\ncifar100; ResNet-18; ipc 10; n = 1 student"
    none = [entry("a", student=None, n=1, over="students")]
    assert heading(Panel("T", none), none) == "T\ncifar100; ipc 10; n = 1"


def test_a_picture_of_one_student_has_the_accuracy_of_this_student():
    (one, *_) = boundary()
    shown = 100 * np.mean(one.arrays["labels"] == one.arrays["predictions"])
    found = texts(draw("boundary", [replace(one, value=12.3)]))
    assert f"SRe2L: {shown:.1f} % correct" in found


def test_bars_of_a_group_touch_and_stay_within_it():
    centres, width = places(2, 4)
    assert np.allclose(np.diff(centres), width) and np.allclose(centres.mean(1), [0, 1])
    assert centres[0, -1] + width / 2 < centres[1, 0] - width / 2


def test_landscapes_share_their_colours():
    figure = draw("landscape")
    limits = [axes.collections[0].get_clim() for axes in figure.axes if axes.get_title() in ROWS]
    assert len(limits) == 6 and len(set(limits[:3])) == len(set(limits[3:])) == 1
    losses = np.stack([e.arrays["surface"] for e in landscape()])
    low, high = limits[0]
    assert low <= losses.min() and losses.max() <= high and high - low < 1.3 * np.ptp(losses)


def test_students_are_averaged():
    both = difficulty()[0]
    again = both.values.assign(correct=both.values["correct"] + 10)
    merged = replace(both, values=pd.concat([both.values, again]))
    quantiles = draw("difficulty", [merged]).axes[1].patches[10:]
    expected = both.values[both.values["bins"] == "quantile"]["correct"] + 5
    assert [bar.get_height() for bar in quantiles] == expected.tolist()


def test_curves_are_means_and_their_bars_standard_deviations_over_students():
    (axes,) = draw("continual").axes
    line, bars = axes.containers[0].lines[0], axes.containers[0].lines[2][0]
    assert line.get_xdata().tolist() == [40, 80, 120, 160, 200]
    assert line.get_ydata().tolist() == [
        43.0,
        37.0,
        31.0,
        25.0,
        19.0,
    ]  # 48 - 6 step + (0, 1, 2): mean 1, ddof 1 std 1
    assert bars.get_segments()[0][:, 1].tolist() == [42.0, 44.0]


def test_of_several_draws_each_counts_once():
    rows = [
        (0, "a", 1.0),
        (0, "a", 3.0),
        (1, "a", 6.0),
        (0, "b", 5.0),
        (0, "b", 7.0),
        (1, "b", 6.0),
    ]
    values = pd.DataFrame(rows, columns=["draw", "at", "value"])
    several = spread(values, "value", ["at"])
    assert several["mean"].tolist() == [4.0, 6.0]  # of (2, 6) and of (6, 6)
    assert several["std"].tolist() == pytest.approx([8**0.5, 0.0])
    one = spread(values[values["draw"] == 0], "value", ["at"])
    assert one["mean"].tolist() == [2.0, 6.0]
    assert one["std"].tolist() == pytest.approx([2**0.5, 2**0.5])
    assert spread(values[:1], "value")["std"].tolist() == [0.0]


def test_a_sweep_goes_along_the_tables_own_axis():
    (axes,) = draw("sweep").axes
    lines = [container.lines[0] for container in axes.containers]
    assert [line.get_xdata().tolist() for line in lines] == [[0.0, 0.1, 1.0], [0.1, 1.0]]
    assert [line.get_ydata().tolist() for line in lines] == [[40.0, 39.0, 30.0], [39.0, 30.0]]
    for extra in ({}, {"gamma": "none"}, {"gamma": 0.1, "steps": 5}):
        with pytest.raises(
            PlanError,
            match="figure 'Title of sweep': a sweep needs one axis of the table's own, whose",
        ):
            draw("sweep", [entry("SRe2L", extra=extra)])


def test_accuracy_stands_at_the_ratio_that_the_table_states():
    figure = draw("tradeoff")
    (axes,) = figure.axes
    lines = [container.lines[0] for container in axes.containers]
    assert [line.get_xdata().tolist() for line in lines] == [[4.53, 22.67], [0.81, 4.04]]
    assert [line.get_ydata().tolist() for line in lines] == [[50.0, 60.0]] * 2
    assert axes.get_xscale() == "log"
    assert "no ratio is known: Random" in figure.get_suptitle().replace("\n", " ")
    with pytest.raises(PlanError, match="figure 'Title of tradeoff': the table states no compress"):
        draw("tradeoff", [replace(one, ratio=None) for one in tradeoff()])


def test_courses_of_different_length_have_axes_of_their_own():
    short = [replace(e, extra={"steps": 5}) for e in continual()]
    long = [
        replace(
            e,
            extra={"steps": 10},
            values=e.values.assign(classes_seen=e.values["classes_seen"] // 2),
        )
        for e in short
    ]
    axes = draw("continual", [*short, *long]).axes
    assert [a.get_title() for a in axes] == [
        f"cifar100, ResNet-18, ipc 10, steps {steps}" for steps in (5, 10)
    ]
    assert [len(a.containers) for a in axes] == [2, 2]
    assert [a.containers[0].lines[0].get_xdata().tolist()[0] for a in axes] == [40, 20]


def test_many_entries_wrap_onto_further_lines():
    for name, columns in (("boundary", 3), ("landscape", 4)):
        entries = [replace(e, dataset=dataset) for dataset in ("a", "b") for e in ENTRIES[name]()]
        found = texts(draw(name, entries))
        assert any(t.startswith("SRe2L, a") for t in found) and any(
            t.startswith("Random, b") for t in found
        )
        assert len(entries) > columns


def test_grey_images_and_several_sets_of_compensators():
    assert "INFER, ipc 50" in "".join(
        texts(draw("compensators", [compensators(1)[0], replace(compensators()[0], ipc=50)]))
    )


def test_posters_are_clipped_at_two_and_a_half_deviations_and_show_every_patch():
    (made,) = poster()
    shown, _, heat, _ = draw("poster").axes
    z = (made.arrays["poster"] - made.arrays["poster"].mean()) / made.arrays["poster"].std()
    np.testing.assert_allclose(
        shown.images[0].get_array(), (z.clip(-2.5, 2.5) / 5 + 0.5).transpose(1, 2, 0)
    )
    assert np.array_equal(np.stack(shown.lines[0].get_data(), 1), made.arrays["corners"] + 5.5)
    assert np.array_equal(heat.images[0].get_array(), made.arrays["labels"].T)


def test_a_whitened_poster_stands_beside_its_pixels():
    (made,) = poster()
    pixels = np.random.default_rng(3).standard_normal(made.arrays["poster"].shape)
    whitened = replace(made, arrays=made.arrays | {"restored": pixels})
    plain = replace(made, ipc=50)
    axes = np.array(draw("poster", [whitened, plain]).axes[:8]).reshape(2, 4)
    for line, values in zip(axes, (pixels, plain.arrays["poster"]), strict=True):
        z = ((values - values.mean()) / values.std()).clip(-2.5, 2.5) / 5 + 0.5
        np.testing.assert_allclose(line[1].images[0].get_array(), z.transpose(1, 2, 0))
    assert [line[1].get_title() for line in axes] == ["not whitened", "as it is"]


def test_orders_of_several_rows_stand_apart():
    entries = order_accuracy()
    longer = [replace(entry, row="PoDD, epochs") for entry in entries]
    figure = registry.load("figure", "order-accuracy").draw(Panel("orders", entries + longer, {}))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 2 and [t.partition(", cifar100")[0] for t in titles] == [
        "PoDD",
        "PoDD, epochs",
    ]


def test_names_of_many_classes_are_left_out_of_a_poster():
    assert not {"kind_3", "kind\n3"} & texts(draw("poster", poster(60)))


def test_bridges_of_an_order_have_the_colour_of_their_distance():
    axes = draw("order").axes[0]
    shade = axes.collections[0].to_rgba
    found = {
        tuple(np.round(np.add(patch.get_xy(), 0.21), 6)): patch.get_facecolor()
        for patch in axes.patches[:7]
    }
    expected = {
        (0.5, 0): 0.0,
        (1.5, 0): 0.2,
        (0.5, 1): 0.4,
        (1.5, 1): 0.6,
        (0, 0.5): 0.7,
        (1, 0.5): 0.8,
        (2, 0.5): 1.0,
    }
    assert found == {place: shade(distance) for place, distance in expected.items()}
    assert axes.patches[7].get_facecolor() == shade(0.1), (
        "a cell has the colour of its mean distance"
    )


def test_names_tell_entries_apart_and_say_no_more():
    entries = [entry("a"), entry("b"), entry("a", ipc=50)]
    assert names(entries) == ["a, ipc 10", "b, ipc 10", "a, ipc 50"] and names(entries[:2]) == [
        "a",
        "b",
    ]
    own = [
        replace(one, row="a", ipc=10, extra={"order": order, "steps": 5})
        for one, order in zip(entries[:2], ("poco", "random:0"), strict=True)
    ]
    assert names(own) == ["a, order poco", "a, order random:0"]
    assert list(facets(entries)) == ["cifar100, ResNet-18"]
    assert list(facets([entry("a", student=None)], ("dataset", "student", "ipc"))) == [
        "cifar100, ipc 10"
    ]


def test_a_correlation_stands_beside_the_papers_where_it_prints_one():
    figure = registry.load("figure", "order-accuracy")
    measured = "r = 0.90 (0.07 to 0.99) over 5 orders"
    for printed, text in (({}, measured), (PRINTED, f"{measured}; the paper's is 0.76 over 5")):
        found = texts(figure.draw(Panel("orders", order_accuracy(), printed)))
        assert f"cifar100, ResNet-18, ipc 10: {text}" in found
