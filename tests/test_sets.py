"""A distilled set says what it holds: kinds, layout, what is counted; a method that is new."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distillery.errors import ArtefactError
from distillery.sets import distilled as module
from distillery.sets.distilled import DistilledSet, Instances
from distillery.sets.load import load_set
from distillery.sets.parts import SIDECAR, Kind, Part
from distillery.stages import distill as stage
from distillery.table.assemble import assemble
from helpers.jobs import job_in
from helpers.tables import evaluation, make_plan, make_store, put
from helpers.tiny import data_artefact, tiny_set

TRAIN = tiny_set()
CANVAS = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def opinions_of(size: int) -> Tensor:
    return torch.rand(size, 4, generator=torch.Generator().manual_seed(1)).softmax(1)


def made(**changes: Any) -> DistilledSet:
    parts = {
        "canvas": Part(CANVAS, Kind.IMAGE),
        "opinions": Part(opinions_of(4), Kind.SOFT_LABEL),
        "places": Part(torch.tensor([1, 0, 0, 1], dtype=torch.int16), Kind.INDEX),
        "labels": Part(torch.arange(4), Kind.HARD_LABEL, derived=True),
    }
    fields = {"parts": parts, "layout": {"darker": 0.5, "grid": [2, 2], "mirrored": False}}
    return DistilledSet("toy", 1, TRAIN.classes, (0.5,), (0.25,), **fields | changes)


@dataclass(frozen=True)
class Recipe:
    """No fields."""


def distill(train: Any, recipe: Recipe, **others: Any) -> DistilledSet:
    return made()


def expand(found: DistilledSet) -> Instances:
    images = found["canvas"][found["places"].long()] * found.layout["darker"]
    return Instances(found["labels"], images.__getitem__, found["opinions"].log())


TOY = SimpleNamespace(distill=distill, expand=expand)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method `toy`, whose soft labels are called `opinions`."""
    monkeypatch.setattr(module, "load", lambda kind, name: {"toy": TOY}[name])
    monkeypatch.setattr(stage.registry, "build", lambda kind, reference: (TOY, Recipe()))


def test_kinds_and_layout_come_back_from_the_files(toy: None, tmp_path: Path) -> None:
    made().save(tmp_path)
    loaded = load_set(tmp_path)
    assert loaded.layout == made().layout and loaded.parts.keys() == made().parts.keys()
    for name, part in made().parts.items():
        assert torch.equal(loaded[name], part.tensor) and loaded[name].dtype == part.tensor.dtype
        assert (loaded.parts[name].kind, loaded.parts[name].derived) == (part.kind, part.derived)
    assert replace(loaded, parts={}) == replace(made(), parts={})
    assert torch.equal(loaded.expand().images, CANVAS[[1, 0, 0, 1]] * 0.5)


def test_what_follows_from_the_rest_costs_nothing() -> None:
    assert made().bytes == {"canvas": 4 * 128, "opinions": 4 * 16, "places": 2 * 4}
    assert made().numbers == {"canvas": 128, "opinions": 16, "places": 4}
    assert made().kinds == {"canvas": "image", "opinions": "soft label", "places": "index"}


def test_other_tensors_in_the_same_parts() -> None:
    found = made().with_tensors({"opinions": opinions_of(4).half()})
    assert found.kinds == made().kinds and found.bytes["opinions"] == 2 * 16
    assert made()["opinions"].dtype == torch.float32 and "answers" not in found
    with pytest.raises(KeyError, match="answers"):
        made().with_tensors({"answers": CANVAS})
    assert {part.device.type for part in made().to("meta").tensors.values()} == {"meta"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"kind": "index"', '"kind": "sound"', "'sound' is not a valid Kind"),
        ('"places"', '"where"', r"names \['canvas', 'labels', 'opinions', 'where'\]"),
        ('"parts"', '"tensors"', "KeyError: 'parts'"),
        ('"layout"', '"settings"', "settings"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_named(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    made().save(tmp_path)
    text = (tmp_path / SIDECAR).read_text()
    assert old in text
    (tmp_path / SIDECAR).write_text(text.replace(old, new))
    with pytest.raises(ArtefactError, match=f"not a readable distilled set.*{words}"):
        load_set(tmp_path)


def test_a_layout_is_json(tmp_path: Path) -> None:
    for layout, error in (({"size": CANVAS}, TypeError), ({"size": float("nan")}, ValueError)):
        with pytest.raises(error):
            made(layout=layout).save(tmp_path)


def test_labels_of_a_new_method_are_no_pixels(toy: None, tmp_path: Path) -> None:
    """From the stage to the columns of a table: nothing knows the method's names."""
    data = data_artefact(tmp_path / "data", TRAIN)
    job = job_in(tmp_path, recipe={"method": {"name": "toy"}, "ipc": 1}, inputs={"data": data})
    metadata = stage.make(job)
    assert metadata["instances"] == 4 and metadata["kinds"]["opinions"] == "soft label"
    store = make_store(tmp_path / "store")
    stated = evaluation(31.5, 31.5, distilled=json.loads(json.dumps(metadata)))
    put(store, "evaluate/random-r0", stated)
    stored = assemble(make_plan(), store)[0].stored
    assert (stored.pixels, stored.label_floats, stored.bytes) == (128, 16, 512 + 64 + 8)
    assert stored.bytes_by_part == {"canvas": 512, "opinions": 64, "places": 8}
