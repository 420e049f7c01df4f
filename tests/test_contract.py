"""A set that breaks its promise is one line that names the method, the part and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distillery.errors import ArtefactError, SetError
from distillery.sets import distilled as module
from distillery.sets.contract import check_made
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.jpeg import image_parts, quantised
from distillery.sets.load import load_set
from distillery.sets.parts import Kind, Part
from distillery.stages import distill as stage
from helpers.jobs import job_in
from helpers.tiny import data_artefact, tiny_set

CLASSES, IPC = 3, 2
TRAIN = tiny_set(CLASSES)
COLOUR = tiny_set(CLASSES, channels=3)
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Recipe:
    """What the made set is to be."""

    soft: bool = True


def by_index(ipc: int, classes: int = CLASSES) -> Tensor:
    return torch.arange(classes).repeat(ipc)


def expand(found: DistilledSet) -> Instances:
    return Instances(found["labels"], found["images"].__getitem__, found["soft"])


def made(
    *, images: Any = None, labels: Any = None, soft: Any = None, ipc: int = IPC, **changes: Any
) -> DistilledSet:
    """A good set of float images in [0, 1], hard labels and logits, but for what is stated."""
    stream = torch.Generator().manual_seed(0)
    count = ipc * CLASSES
    labels = by_index(ipc) if labels is None else labels
    images = torch.rand(count, *TRAIN.shape, generator=stream) if images is None else images
    soft = torch.rand(count, CLASSES, generator=stream).log() if soft is None else soft
    parts = {
        "images": Part(images, Kind.IMAGE),
        "labels": Part(labels, Kind.HARD_LABEL, derived=True),
        "soft": Part(soft, Kind.SOFT_LABEL),
    }
    fields = {"method": "learner", "ipc": ipc, "classes": TRAIN.classes, "mean": (0.5,)}
    return DistilledSet(**fields | {"std": (0.25,), "parts": parts} | changes)


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A method that keeps whatever it is given; its traits are those of a new method."""
    return _learner(monkeypatch)


def _learner(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    learner = SimpleNamespace(expand=expand, TRAITS={})
    monkeypatch.setattr(module, "load", lambda kind, name: learner)
    return learner


def check(distilled: Any, train: Any = TRAIN, ipc: float = IPC, recipe: Any = None) -> Instances:
    recipe = recipe or Recipe()
    return check_made(distilled, method="learner", recipe=recipe, ipc=ipc, train=train)


def put(tensor: Tensor, value: float, place: int = 3) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[place] = value
    return tensor


GOOD = made()
IMAGES, LABELS, SOFT = GOOD["images"], GOOD["labels"], GOOD["soft"]
FIVE_EACH = torch.arange(CLASSES).repeat(5)
Case = tuple[Callable[[], Any], str]
# What a method returned, and what the one line must say of it.
BROKEN: dict[str, Case] = {
    "nothing": (lambda: None, "distill returned NoneType; return a DistilledSet"),
    "tensor": (lambda: IMAGES, "distill returned Tensor"),
    "15 images for ipc 1": (
        lambda: made(
            images=torch.rand(15, 1, 8, 8), labels=FIVE_EACH, soft=torch.rand(15, 3).log()
        ),
        r"labels: 15 instances, ipc 2 of 3 classes promises 6",
    ),
    "labels[:-1]": (lambda: made(labels=LABELS[:-1]), "labels: 5 instances, .* promises 6"),
    "one image too few": (lambda: made(images=IMAGES[:-1]), "images: .*cannot be built.*index"),
    "grey for colour": (lambda: made(images=IMAGES[:, :, :1]), r"shape \(1, 1, 8\), the data \(1,"),
    "three channels": (
        lambda: made(images=IMAGES.expand(-1, 3, -1, -1)),
        r"images: have shape \(3, 8, 8\), the data \(1, 8, 8\)",
    ),
    "flat": (lambda: made(images=IMAGES.flatten(1)), r"images: have shape \(64,\)"),
    "double": (lambda: made(images=IMAGES.double()), "images: are float64; .*float32"),
    "half": (lambda: made(images=IMAGES.half()), "images: are float16"),
    "levels as they are": (
        lambda: made(images=(IMAGES * 255).byte()),
        "images: are uint8",
    ),
    "normalised": (
        lambda: made(images=(IMAGES - 0.5) / 0.25),
        r"pixels from -1\.\d+ to 1\.\d+: expected 0 to 1; denormalise",
    ),
    "0 to 255": (lambda: made(images=IMAGES * 255), "pixels from .* to 25.*; divide them by 255"),
    "all but black": (lambda: made(images=IMAGES / 255), "all but black; multiply"),
    "complex": (lambda: made(images=IMAGES.to(torch.complex64)), "part 'images': holds complex"),
    "no tensor": (lambda: made(images=IMAGES.tolist()), "part 'images': is a list; store a tensor"),
    "nan": (lambda: made(images=put(IMAGES, NAN)), "part 'images': holds 1 NaN and 0 infinite"),
    "inf": (lambda: made(images=put(IMAGES, INF)), "part 'images': holds 0 NaN and 1 infinite"),
    "nan label": (lambda: made(soft=put(SOFT, NAN)), "part 'soft': holds 1 NaN .* of 18"),
    "impossible label": (lambda: made(soft=put(SOFT, -INF)), "part 'soft': .* 1 infinite"),
    "narrow soft labels": (lambda: made(soft=SOFT[:, 1:]), r"soft labels: \(6, 2\) float32"),
    "short soft labels": (lambda: made(soft=SOFT[1:]), r"soft labels: \(5, 3\).*\(6, 3\) floats"),
    "whole soft labels": (lambda: made(soft=SOFT.long()), r"soft labels: \(6, 3\) int64"),
    "label too high": (lambda: made(labels=LABELS + 1), "labels: from 1 to 3, expected 0 to 2"),
    "label below 0": (lambda: made(labels=LABELS - 1), "labels: from -1 to 1"),
    "float labels": (lambda: made(labels=LABELS.float()), r"labels: \(6,\) float32, expected"),
    "one-hot labels": (lambda: made(labels=torch.eye(3).long()), r"labels: \(3, 3\) int64"),
    "missing class": (lambda: made(labels=LABELS.clamp(max=1)), "none of class 'class 2'"),
    "draw order": (lambda: made(labels=LABELS[[2, 0, 1, 3, 5, 4]]), "in no regular order"),
    "unequal": (lambda: made(labels=torch.tensor([0, 0, 0, 1, 2, 2])), "in no regular order"),
    "other method": (lambda: made(method="random"), "method = 'random': the job has 'learner'"),
    "other ipc": (lambda: made(ipc=3), "ipc = 3: the job has 2"),
    "other class order": (
        lambda: made(classes=TRAIN.classes[::-1]),
        r"classes = \['class 2', .*the job has \['class 0'",
    ),
    "other mean": (lambda: made(mean=(0.0,)), r"mean = \[0.0\]: the job has \[0.5\]"),
    "other std": (lambda: made(std=(0.5, 0.5)), r"std = \[0.5, 0.5\]: the job has \[0.25\]"),
    "whitened in pixels": (lambda: made(whitening="a1"), "mean = .*: whitened images has"),
    "range upside down": (lambda: made(value_range=(1.0, 0.0)), r"value_range = \[1.0, 0.0\]"),
    "range without end": (lambda: made(value_range=(0.0, INF)), r"value_range = \[0.0, inf\]"),
    "no images": (lambda: made(parts={}), r"parts : cannot be expanded \(KeyError: 'labels'\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_one_line(learner: SimpleNamespace, case: str) -> None:
    make, words = BROKEN[case]
    with pytest.raises(SetError) as caught:
        check(make())
    line = str(caught.value)
    assert re.search(words, line), line
    assert "\n" not in line and line.startswith("method 'learner': ")


def test_a_good_set_passes(learner: SimpleNamespace) -> None:
    assert len(check(made())) == 6
    labels = torch.arange(CLASSES).repeat_interleave(IPC)
    assert check(made(labels=labels)).labels.equal(labels)


def test_grey_images_do_not_become_colour(learner: SimpleNamespace) -> None:
    with pytest.raises(SetError, match=r"images: have shape \(1, 8, 8\), the data \(3, 8, 8\)"):
        check(made(mean=(0.5,) * 3, std=(0.25,) * 3), train=COLOUR)


def test_the_recipe_says_how_many_instances(learner: SimpleNamespace) -> None:
    recipe = SimpleNamespace(soft=True, instances=lambda ipc, classes: 3 * ipc * classes)
    images, soft = IMAGES.repeat(3, 1, 1, 1), SOFT.repeat(3, 1)
    large = made(images=images, labels=by_index(6), soft=soft)
    assert len(check(large, recipe=recipe)) == 18
    with pytest.raises(SetError, match=r"6 instances, .* promises 18"):
        check(made(), recipe=recipe)


def test_promised_soft_labels_are_there(learner: SimpleNamespace) -> None:
    learner.expand = lambda found: replace(expand(found), soft=None)
    with pytest.raises(SetError, match="soft labels: there are none, the recipe promises some"):
        check(made())
    check(made(), recipe=Recipe(soft=False))


def test_a_declared_space_is_free_but_not_of_levels(learner: SimpleNamespace) -> None:
    learner.TRAITS = {"free_pixels": True}
    check(made(images=IMAGES * 4 - 1.5))
    with pytest.raises(SetError, match="look like levels of 0 to 255; divide them by 255"):
        check(made(images=IMAGES * 255))
    with pytest.raises(SetError, match="holds 1 NaN"):
        check(made(images=put(IMAGES, NAN)))


def test_whitened_images_are_of_any_range(learner: SimpleNamespace) -> None:
    check(made(images=IMAGES * 30 - 10, whitening="a1", mean=(0.0,), std=(1.0,)))


def test_patches_of_a_poster_stand_as_they_lie(learner: SimpleNamespace) -> None:
    learner.TRAITS = {"poster": True}
    check(made(labels=torch.tensor([2, 0, 0, 2, 2, 0])))
    with pytest.raises(SetError, match="labels: from 0 to 3"):
        check(made(labels=torch.tensor([3, 0, 0, 2, 2, 0])))


def test_a_fault_of_expand_keeps_its_cause(learner: SimpleNamespace) -> None:
    def expand(found: DistilledSet) -> Instances:
        return Instances(found["labels"], found["pixels"].__getitem__)

    learner.expand = expand
    with pytest.raises(SetError, match=r"cannot be expanded \(KeyError: 'pixels'\)") as caught:
        check(made())
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("value", "words"),
    [(NAN, "pixels from nan"), (1.5, "to 1.5: cannot be stored as 8-bit"), (-0.5, "from -0.5")],
)
def test_what_is_no_pixel_becomes_no_level(value: float, words: str) -> None:
    for quality in (None, 75):
        with pytest.raises(SetError, match=words):
            quantised(put(IMAGES, value), quality)
    assert quantised(put(IMAGES, 1 + 1e-6), None).flatten()[3] == 255


# Of what is stored: how the set differs from a good one, and what its loading says.
STORED: dict[str, Case] = {
    name: BROKEN[name]
    for name in (
        *("one image too few", "normalised", "0 to 255", "all but black", "nan", "nan label"),
        *("narrow soft labels", "short soft labels", "label too high", "label below 0"),
        *("float labels", "missing class", "draw order", "unequal", "double", "half", "flat"),
        *("range upside down", "no images"),
    )
} | {
    "three channels": (
        lambda: made(images=IMAGES.repeat(1, 3, 1, 1)),
        "images: have 3 channels, mean and std 1",
    ),
    "no std": (lambda: made(std=()), r"std = \[\]: expected one number per channel"),
    "std of 0": (lambda: made(std=(0.0,)), "std above 0"),
    "ipc of true": (lambda: replace(made(), ipc=True), "ipc = True: expected a number above 0"),
    "one class": (
        lambda: made(classes=("a",), labels=LABELS * 0, soft=SOFT[:, :1]),
        "expected two or more different names",
    ),
    "equal classes": (lambda: made(classes=("a", "a", "b")), "two or more different names"),
}


@pytest.mark.parametrize("case", STORED)
def test_a_stored_set_is_checked_when_it_is_loaded(
    learner: SimpleNamespace, case: str, tmp_path: Path
) -> None:
    make, words = STORED[case]
    make().save(tmp_path)
    with pytest.raises(ArtefactError) as caught:
        load_set(tmp_path)
    line = str(caught.value)
    assert re.search(words, line) and line.startswith(str(tmp_path)) and "\n" not in line, line


def test_images_without_a_label_are_refused(tmp_path: Path) -> None:
    levels = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    for quality in (None, 75):
        parts = image_parts(levels, LABELS, quality)
        parts["labels"] = replace(parts["labels"], tensor=by_index(1))
        DistilledSet("random", 1, TRAIN.classes, (0.5,), (0.25,), parts).save(tmp_path)
        with pytest.raises(ArtefactError, match="has 6, part 'labels' has 3; store as many"):
            load_set(tmp_path)


def test_the_stage_refuses_a_bad_set_and_writes_nothing(
    learner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    learner.distill = lambda train, recipe, **others: made(labels=LABELS[:-1])
    monkeypatch.setattr(stage.registry, "build", lambda kind, reference: (learner, Recipe()))
    data = data_artefact(tmp_path / "data", TRAIN)
    recipe = {"method": {"name": "learner"}, "ipc": IPC}
    job = job_in(tmp_path, recipe=recipe, inputs={"data": data})
    with pytest.raises(SetError, match="method 'learner': labels: 5 instances"):
        stage.make(job)
    assert not list(job.out.iterdir())
    learner.distill = lambda train, recipe, **others: made()
    assert stage.make(job)["instances"] == 6


# A random violation of each kind: from a draw of hypothesis to a set that breaks its promise.
Draw = Callable[[st.SearchStrategy], Any]


def _spoiled_part(draw: Draw) -> DistilledSet:
    name = draw(st.sampled_from(["images", "soft"]))
    tensor = GOOD[name]
    place = draw(st.integers(0, tensor.numel() - 1))
    return GOOD.with_tensors({name: put(tensor, draw(st.sampled_from([NAN, INF, -INF])), place)})


def _stray_pixel(draw: Draw) -> DistilledSet:
    value = draw(st.floats(-1e6, -0.01) | st.floats(1.01, 1e6))
    return made(images=put(IMAGES, value, draw(st.integers(0, IMAGES.numel() - 1))))


def _other_labels(draw: Draw) -> DistilledSet:
    labels = torch.tensor(draw(st.lists(st.integers(-2, 4), max_size=8)), dtype=torch.int64)
    regular = (by_index(IPC), torch.arange(CLASSES).repeat_interleave(IPC))
    return made(labels=labels.flip(0) if any(map(labels.equal, regular)) else labels)


def _other_shape(draw: Draw) -> DistilledSet:
    shape = draw(
        st.lists(st.integers(1, 9), min_size=2, max_size=5).filter(
            lambda found: found[1:] != [1, 8, 8] or found[0] < 6
        )
    )
    return made(images=torch.rand(shape))


def _other_soft_shape(draw: Draw) -> DistilledSet:
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 5)).filter(lambda s: s != (6, 3)))
    return made(soft=torch.rand(shape))


def _other_type(draw: Draw) -> DistilledSet:
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool]
    return made(images=IMAGES.to(draw(st.sampled_from(kinds))))


VIOLATIONS = (
    *(_spoiled_part, _stray_pixel, _other_labels),
    *(_other_shape, _other_soft_shape, _other_type),
)


@given(st.data(), st.sampled_from(VIOLATIONS))
def test_any_violation_is_refused(data: st.DataObject, violate: Callable) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _learner(patch)
        with pytest.raises(SetError) as caught:
            check(violate(data.draw))
        assert "\n" not in str(caught.value) and str(caught.value).startswith("method 'learner': ")


@given(st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_any_valid_set_passes(ipc: int, class_by_class: bool, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    images = torch.rand(ipc * CLASSES, *TRAIN.shape, generator=stream)
    soft = 5 * torch.randn(ipc * CLASSES, CLASSES, generator=stream)
    order = torch.arange(CLASSES)
    labels = order.repeat_interleave(ipc) if class_by_class else order.repeat(ipc)
    with pytest.MonkeyPatch.context() as patch:
        _learner(patch)
        found = check(made(images=images, labels=labels, soft=soft, ipc=ipc), ipc=ipc)
        assert found.labels.equal(labels) and found.images.equal(images)
