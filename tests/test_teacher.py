"""The teacher stage measures first: it refuses teachers near chance and of another class order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from distillery.errors import ClassOrderError, TeacherError
from distillery.nets.network import load_network
from distillery.stages import teacher as stage
from distillery.store.artefact import Artefact
from distillery.store.job import Job
from distillery.teacher.class_order import check_order
from distillery.teacher.load import check_accuracy
from helpers.jobs import job_in
from helpers.tiny import TinySet, data_artefact

NETWORK = {"name": "convnet", "width": 8, "depth": 2, "norm": "batch"}
TRAINING = {"epochs": 4, "batch": 32, "optimizer": {"name": "sgd", "lr": 0.1}}
# The digits as folders of class names, sorted as text: class 1 is '10', class 2 is '2'.
NAMES = tuple(sorted(str(i) for i in range(1, 11)))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Artefact:
    """600 digits to train with and 200 to test."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    images = torch.tensor(digits.images * 15.9375).round().to(torch.uint8)[:, None]
    labels = torch.tensor(digits.target)
    test, train = (TinySet(images[s], labels[s], NAMES) for s in (slice(200), slice(200, 800)))
    found = data_artefact(folder / "train", train)
    shutil.copy(
        data_artefact(folder / "test", test).path / "train.parquet", found.path / "test.parquet"
    )
    return replace(found, meta={**found.meta, "files": {"train.parquet": {}, "test.parquet": {}}})


def job(folder: Path, data: Artefact, key: str = "key", **recipe: object) -> Job:
    known = {"network": NETWORK, "training": TRAINING, "loss": {"name": "ce"}, "weights": None}
    return job_in(folder, key, recipe={**known, **recipe}, inputs={"data": data})


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[dict, Path]:
    made = job(tmp_path_factory.mktemp("trained"), data)
    return stage.make(made), made.out / "weights.safetensors"


def published(monkeypatch, file: Path, order: list[int]) -> None:
    """Let weights come from `file`, their output i standing where order[i] stood."""

    def load(model, name):
        state = load_network(NETWORK, (1, 8, 8), 10, file).state_dict()
        last = list(state)[-2:]
        model.load_state_dict(state | {key: state[key][order] for key in last})

    monkeypatch.setattr(stage, "_load_published", load)


def test_a_good_teacher_is_measured_and_kept(trained):
    metadata, file = trained
    assert metadata["accuracy"]["last"] > 80 and file.is_file()


def test_published_weights_are_measured_as_they_are(monkeypatch, data, trained, tmp_path):
    metadata, file = trained
    published(monkeypatch, file, list(range(10)))
    found = stage.make(job(tmp_path, data, weights="Some_Weights.V1", training=None, loss=None))
    assert found["accuracy"]["last"] == metadata["accuracy"]["last"]


@pytest.mark.parametrize(
    ("order", "named"),
    [
        # the weights count 1, 2, ... 10, the folders stand as 1, 10, 2, ... 9
        ([0, 2, 3, 4, 5, 6, 7, 8, 9, 1], "answer '10' as '9', '2' as '10', '3' as '2' "),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "answer '1' as '9', '10' as '8', '2' as '7' "),
        ([0, 1, 2, 3, 4, 6, 5, 8, 9, 7], "answer '5' as '6', '6' as '5', '7' as '9' "),
    ],
)
def test_weights_in_another_class_order_are_named_as_that(
    order, named, monkeypatch, data, trained, tmp_path
):
    published(monkeypatch, trained[1], order)
    weights = job(tmp_path, data, weights="Some_Weights.V1", training=None, loss=None)
    with pytest.raises(
        ClassOrderError,
        match=f"'Some_Weights.V1' know these classes in another order: they {named}",
    ):
        stage.make(weights)
    assert not list(weights.out.iterdir())


@pytest.mark.parametrize("key", ["a", "b", "c", "d", "e", "f"])
def test_random_weights_are_no_teacher(key, monkeypatch, data, tmp_path):
    monkeypatch.setattr(stage, "_load_published", lambda model, name: None)
    weights = job(tmp_path, data, key, weights="Some_Weights.V1", training=None, loss=None)
    with pytest.raises(
        TeacherError, match=r"'convnet' has \d+\.\d\d % test accuracy, guessing has 10\.00 %"
    ):
        stage.make(weights)
    assert not list(weights.out.iterdir())


def test_a_training_that_taught_nothing_is_no_teacher(data, tmp_path):
    idle = {**TRAINING, "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-12}}
    with pytest.raises(TeacherError, match=r"data train.*train it for more epochs"):
        stage.make(job(tmp_path, data, "a", training=idle))


@pytest.mark.parametrize(
    ("classes", "least"),
    # 1.5 times guessing, or, where that is less, a quarter of the way from guessing to 100 %
    [(2, 62.5), (3, 50.0), (4, 37.5), (10, 15.0), (1000, 0.15)],
)
def test_a_teacher_needs_more_than_guessing(classes, least):
    check_accuracy("net", least + 0.01, classes, "data digits")
    for accuracy in (least - 0.01, 0.0, float("nan")):
        with pytest.raises(TeacherError, match=f"guessing has {100 / classes:.2f} %"):
            check_accuracy("net", accuracy, classes, "data digits")


def test_a_teacher_of_two_classes_needs_no_75_percent():
    check_accuracy("net", 70.0, 2, "data of cats and dogs")


def test_an_order_fitted_to_chance_is_none():
    # 1000 classes, 4 samples each, answers at random: a permutation fits many of one half and none
    # of the other
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(1000).repeat(4)
    names = [str(i) for i in range(1000)]
    assert check_order("w", torch.randint(1000, (4000,), generator=stream), labels, names) is None
    with pytest.raises(ClassOrderError, match="'0' as '1', '1' as '2', '2' as '3'"):
        check_order("w", (labels + 1) % 1000, labels, names)


def test_an_order_that_suits_every_sample_by_chance_is_none():
    # one sample a class: the permutation is fitted to one half of the classes and says nothing of
    # the other half
    stream = torch.Generator().manual_seed(0)
    labels, names = torch.arange(1000), [str(i) for i in range(1000)]
    assert check_order("w", torch.randperm(1000, generator=stream), labels, names) is None


@pytest.mark.parametrize(("shifted", "found"), [(5, False), (8, True)])
def test_an_order_of_few_classes_is_none(shifted, found):
    """Some of ten classes are answered with the next of them, the others all with class 0."""
    labels = torch.arange(10).repeat_interleave(40)
    answers = torch.where(labels < shifted, (labels + 1) % shifted, 0)
    if found:
        with pytest.raises(ClassOrderError, match="'1' as '10', '10' as '2'"):
            check_order("w", answers, labels, NAMES)
    else:
        assert check_order("w", answers, labels, NAMES) is None


def test_two_classes_mistaken_for_each_other_are_no_order():
    # a network that is right on eight classes and mistakes half of the other two for each other is
    # what it is
    labels = torch.arange(10).repeat_interleave(40)
    answers = labels.clone()
    for one, other in ((3, 5), (5, 3)):
        answers[(labels == one).nonzero()[:22, 0]] = other
    assert check_order("w", answers, labels, NAMES) is None
