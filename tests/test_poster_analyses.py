"""What the analyses say about a poster: pixel by pixel, neighbour by neighbour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery.analyses import convergence
from distillery.analyses.inputs import AnalysisInputs, Result
from distillery.analyses.poster import restored
from distillery.components import registry
from distillery.errors import ClassOrderError, PlanError
from distillery.methods.shared.snapshots import SNAPSHOTS
from distillery.poster import geometry, labels
from distillery.poster.geometry import Grid
from distillery.poster.layout import PosterLayout
from distillery.sets.distilled import DistilledSet
from distillery.sets.parts import Kind, Part
from distillery.sets.whitening import Whitening
from distillery.stages import analyse as stage
from distillery.store.artefact import Artefact
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.methods import METHODS, classes
from helpers.tiny import data_artefact, tiny_set

TRAIN = tiny_set(classes=6)
ORDER = torch.tensor([[4, 0, 2], [1, 5, 3]])
DISTANCES = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
DISTANCES = (DISTANCES + DISTANCES.T).fill_diagonal_(0)
PARTS = {
    "poster": torch.randn(1, 1, 13, 20, generator=torch.Generator().manual_seed(1)),
    "order": ORDER.short()[None],
}
KINDS = {"poster": Kind.IMAGE, "order": Kind.INDEX, "soft": Kind.SOFT_LABEL}
LAYOUT = {"columns": 4, "rows": 3, "side": 8, "cyclic": False, "reference": False}


def distilled(cyclic: bool = False, **changed: torch.Tensor) -> DistilledSet:
    parts = {name: Part(tensor, KINDS[name]) for name, tensor in (PARTS | changed).items()}
    layout = LAYOUT | {"cyclic": cyclic}
    return DistilledSet("podd", 0.7, TRAIN.classes, (0.5,), (0.25,), parts, layout)


def analyse(folder: Path, name: str, **changed: torch.Tensor | bool) -> Result:
    analysis, recipe = registry.build("analysis", {"name": name})
    inputs = AnalysisInputs(
        TRAIN, TRAIN, distilled(**changed), None, [], None, (0.5,), (0.25,), distances=DISTANCES
    )
    return analysis.analyse(inputs, recipe, job_in(folder))


def test_poster_counts_the_pixels_of_each_class(tmp_path):
    result = analyse(tmp_path, "poster")
    owner = torch.tensor([[ORDER[y * 2 // 13, x * 3 // 20] for x in range(20)] for y in range(13)])
    assert result.value == 260 and torch.equal(result.arrays["map"], owner)
    assert (
        result.values["pixels"] == owner.flatten().bincount().tolist()
        and sum(result.values["patches"]) == 12
    )
    assert result.arrays["corners"].tolist() == [[x, y] for x in (0, 4, 8, 12) for y in (0, 2, 5)]
    assert (
        torch.equal(result.arrays["poster"], PARTS["poster"][0])
        and result.arrays["side"].item() == 8
    )
    fixed = labels.fixed(labels.weights(20, 13, 8, Grid(3, 2), Grid(4, 3)), ORDER, 6)
    assert torch.equal(result.arrays["labels"], fixed)
    assert result.values["mass"] == pytest.approx(fixed.sum(0).tolist())


@pytest.mark.parametrize("cyclic", [False, True])
def test_poster_shows_learned_labels_where_the_set_holds_them(cyclic, tmp_path):
    soft = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(2))
    result = analyse(tmp_path, "poster", soft=soft[None], cyclic=cyclic)
    weights = labels.weights(20, 13, 8, Grid(3, 2), Grid(4, 3), cyclic)
    assert torch.equal(result.arrays["labels"], labels.learned(weights, soft))
    assert torch.equal(result.arrays["corners"], geometry.corners(20, 13, 8, Grid(4, 3), cyclic))


def test_order_sums_its_neighbours(tmp_path):
    result = analyse(tmp_path, "order")
    pairs = [(4, 0), (0, 2), (1, 5), (5, 3), (4, 1), (0, 5), (2, 3)]
    distance = {pair: DISTANCES[pair].item() for pair in pairs} | {
        pair[::-1]: DISTANCES[pair].item() for pair in pairs
    }
    assert result.value == pytest.approx(1 / sum(distance[pair] for pair in pairs))
    for label, (row, column, mean) in enumerate(
        zip(*(result.values[name] for name in ("row", "column", "distance")), strict=True)
    ):
        mine = [value for pair, value in distance.items() if pair[0] == label]
        assert ORDER[row, column] == label and mean == pytest.approx(sum(mine) / len(mine))
    assert result.arrays["right"].flatten().tolist() == pytest.approx(
        [distance[pair] for pair in pairs[:4]]
    )
    assert result.arrays["down"].flatten().tolist() == pytest.approx(
        [distance[pair] for pair in pairs[4:]]
    )
    mean = 7 * DISTANCES.sum().item() / 30  # of a random order: 7 pairs of 15
    assert (
        result.arrays["random"].mean().item() == pytest.approx(mean, rel=0.03)
        and len(result.arrays["random"]) == 1000
    )


def test_accuracy_stands_beside_the_score_of_the_order(tmp_path):
    analysis, recipe = registry.build("analysis", {"name": "order-accuracy"})
    inputs = AnalysisInputs(
        TRAIN, TRAIN, distilled(), None, [], None, (0.5,), (0.25,), distances=DISTANCES
    )
    student = Artefact(
        tmp_path, {"id": "s", "metadata": {"accuracy": {"last": 41.5, "best": 50.0}}, "files": {}}
    )
    result = analysis.analyse(inputs, recipe, job_in(tmp_path, inputs={"student": student}))
    assert result.value == 41.5 and result.values["accuracy"] == [41.5]
    assert result.values["score"] == [analyse(tmp_path, "order").value]
    several = replace(inputs, distilled=distilled(order=ORDER.short().repeat(2, 1, 1)))
    with pytest.raises(PlanError, match="no one order"):
        analysis.analyse(several, recipe, job_in(tmp_path, inputs={"student": student}))


def test_sets_without_a_poster_or_of_other_classes_are_named(tmp_path):
    inputs = SimpleNamespace(
        distilled=DistilledSet("random", 1, TRAIN.classes, (0.5,), (0.25,), {}), distances=DISTANCES
    )
    for name in ("poster", "order"):
        analysis, recipe = registry.build("analysis", {"name": name})
        with pytest.raises(PlanError, match=f"analysis '{name}': method 'random' has none"):
            analysis.analyse(inputs, recipe, None)
    with pytest.raises(PlanError, match="the order is none of the 6 classes"):
        analyse(tmp_path, "order", order=ORDER.clamp_max(4)[None])


def test_posters_of_a_class_each_lie_side_by_side(tmp_path):
    """Six posters on the grid of six classes, 3 x 2, in label order; patches where they are."""
    posters = torch.randn(6, 1, 13, 20, generator=torch.Generator().manual_seed(1))
    orders = torch.arange(6, dtype=torch.int16)[:, None, None].expand(-1, 2, 2)
    arrays = analyse(tmp_path, "poster", poster=posters, order=orders).arrays
    assert arrays["poster"].shape == (1, 26, 60) and arrays["labels"].shape == (6 * 12, 6)
    assert arrays["order"].tolist() == [[0, 1, 2], [3, 4, 5]]
    for label in range(6):
        top, left = 13 * (label // 3), 20 * (label % 3)
        area = slice(top, top + 13), slice(left, left + 20)
        assert torch.equal(arrays["poster"][:, *area], posters[label])
        assert (arrays["map"][area] == label).all()
        own = slice(12 * label, 12 * label + 12)
        assert (arrays["labels"][own].argmax(1) == label).all()
        corners = geometry.corners(20, 13, 8, Grid(4, 3)) + torch.tensor([left, top])
        assert torch.equal(arrays["corners"][own], corners)


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_whitened_poster_is_shown_as_pixels_too(cyclic, tmp_path):
    """By a slow second way: each pixel the mean of what the patches that hold it restore to."""
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(5)) / 8
    whitening = Whitening.of(torch.eye(64) + (matrix + matrix.T) / 4)
    poster, layout = PARTS["poster"][0], PosterLayout.stored(distilled(cyclic=cyclic))
    found = restored(poster, layout, whitening)
    sums, counts = torch.zeros(2, 13, 20)
    for x, y in geometry.corners(20, 13, 8, Grid(4, 3), cyclic).tolist():
        rows, columns = (torch.arange(8) + y) % 13, (torch.arange(8) + x) % 20
        patch = poster[0][rows[:, None], columns]
        pixels = (patch.flatten().double() @ whitening.matrix.double().inverse()).view(8, 8)
        sums[rows[:, None], columns] += pixels.float()
        counts[rows[:, None], columns] += 1
    torch.testing.assert_close(found[0], sums / counts, atol=1e-4, rtol=1e-4)
    analysis, recipe = registry.build("analysis", {"name": "poster"})
    inputs = AnalysisInputs(
        TRAIN, TRAIN, distilled(cyclic=cyclic), None, [], None, (0.5,), (0.25,), whitening
    )
    shown = analysis.analyse(inputs, recipe, job_in(tmp_path)).arrays
    assert torch.equal(shown["restored"], found) and torch.equal(shown["poster"], poster)
    assert "restored" not in analyse(tmp_path, "poster").arrays


def embeddings(folder: Path, class_order: str) -> Artefact:
    folder.mkdir()
    save_file({"distances": DISTANCES}, folder / "embeddings.safetensors")
    return Artefact(
        folder,
        {
            "id": "e",
            "metadata": {"class_order": class_order},
            "files": {"embeddings.safetensors": {}},
        },
    )


def test_stage_hands_distances_on_and_refuses_those_of_other_classes(tmp_path):
    made = tmp_path / "set"
    made.mkdir()
    distilled().save(made)
    data = data_artefact(tmp_path / "data", TRAIN, test=TRAIN)
    spec = {"recipe": {"method": {"name": "podd"}}}
    meta = {"id": "set", "metadata": {"bytes": {"images": 1}}, "spec": spec}
    inputs = {"data": data, "distilled": Artefact(made, meta)}
    recipe = {"analysis": {"name": "order"}}
    own = {"embeddings": embeddings(tmp_path / "own", TRAIN.class_order)}
    job = job_in(tmp_path / "job", recipe=recipe, inputs=inputs | own)
    assert stage.make(job)["value"] == analyse(tmp_path / "direct", "order").value
    assert load_file(job.out / "arrays.safetensors")["right"].shape == (2, 2)
    other = {"embeddings": embeddings(tmp_path / "other", "0")}
    with pytest.raises(ClassOrderError, match="embeddings e have class order 0"):
        stage.make(job_in(tmp_path / "other job", recipe=recipe, inputs=inputs | other))
    with pytest.raises(PlanError, match="needs embeddings"):
        stage.make(job_in(tmp_path / "no job", recipe=recipe, inputs=inputs))


STUDENT = {"name": "convnet", "width": 4, "depth": 2, "norm": "instance"}
TRAINING = {"epochs": 2, "batch": 100, "optimizer": {"name": "adam", "lr": 1e-3}, "test_every": 2}


def test_convergence_trains_a_student_of_each_state_once(tmp_path, monkeypatch):
    train, (method, recipe, ipc) = classes(), METHODS["rat-bptt"]
    made, seen = job_in(tmp_path / "set"), []
    whole = method.distill(train, replace(recipe, snapshots=2), ipc=ipc, teachers=[], job=made)
    states, trained = load_file(made.out / SNAPSHOTS), convergence.train

    def watch(student, samples, training, loss, job, *, test, labeller):
        every = SimpleNamespace(
            indices=torch.arange(len(samples)), mixing=SimpleNamespace(labels=lambda y: y)
        )
        seen.append((samples.normalise(samples.take(every.indices)), labeller(every).softmax(1)))
        return trained(student, samples, training, loss, job, test=test, labeller=labeller)

    monkeypatch.setattr(convergence, "train", watch)
    values = {
        "student": STUDENT,
        "labels": {"name": "learned"},
        "loss": {"name": "soft-ce"},
        "training": TRAINING,
    }
    job = job_in(
        tmp_path,
        recipe=values,
        inputs={"distilled": Artefact(made.out, {"id": "set", "files": {}})},
    )
    inputs = AnalysisInputs(train, train, whole, None, [], None, whole.mean, whole.std)
    with saving():
        first, again = (convergence.analyse(inputs, convergence.Recipe(), job) for _ in range(2))
    assert first == again and first.values["meta_step"] == [2, 4] and len(seen) == 2
    assert first.value == first.values["accuracy"][1] and all(
        0 <= value <= 100 for value in first.values["accuracy"]
    )
    for step, (images, labels_) in zip((2, 4), seen, strict=True):
        torch.testing.assert_close(images, (states[f"{step}/images"] - 0.5) / 0.25)
        soft = states[f"{step}/soft"]
        torch.testing.assert_close(labels_, soft / soft.sum(1, keepdim=True), atol=1e-6, rtol=1e-5)
    assert not torch.equal(seen[0][0], seen[1][0])
    (made.out / SNAPSHOTS).unlink()
    with pytest.raises(PlanError, match=r"one state only; set distill\.snapshots"):
        convergence.analyse(inputs, convergence.Recipe(), job)
