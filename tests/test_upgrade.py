"""Artefacts of format 1: their words, their sets, and that adoption keeps all of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distillery.cli import main
from distillery.errors import ArtefactError
from distillery.plan.explain import Explainer
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.upgrade import NOT_LOOKED_FOR, convert, upgraded
from distillery.plan.upkeep import adopt, adoptable
from distillery.sets.distilled import DistilledSet
from distillery.sets.parts import PARTS, SIDECAR, Kind, Part
from distillery.store.artefact import META, open_artefact, read_meta
from distillery.store.canonical import file_sha256
from helpers.planning import planned

# As the code of format 1 wrote them, but for fewer classes, modules and fields.
OLD_SIDECAR = {
    "class_order": "fa1844c2988ad15a",
    "classes": ["a", "b", "c"],
    "ipc": 1,
    "mean": [0.5],
    "method": "rat-bptt",
    "std": [0.25],
    "value_range": [0.0, 1.0],
}
OLD_META: dict[str, Any] = {
    "created": "2026-11-25T03:33:51Z",
    "facts": {"bytes": {"images": 1}, "numbers": {"images": 1}, "method": "rat-bptt", "ipc": 1},
    "id": "digits-rat-bptt-ipc1-0a28b18a9b40",
    "key": "7732e64b49e0b7ad",
    "modules": {"distillery.distill.room": "4b0a4a72218e"},
    "room": "distill",
    "spec": {
        "code": "3848c2f41cae",
        "environment": 1,
        "inputs": {"data": "data/digits-b6d3c71faab0"},
        "label": "digits-rat-bptt-ipc1",
        "local": {},
        "recipe": {
            "ipc": 1,
            "method": {
                "name": "rat-bptt",
                "longest": 15,
                "offset": "step",
                "of_each": 1,
                "chosen": 2,
                "window": 5,
            },
        },
        "room": "distill",
        "roots": ["distillery.distill.room", "distillery.methods.rat_bptt"],
    },
}
IMAGES = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(3)
SOFT = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
ORDER = torch.tensor([[[2, 0, 1]]], dtype=torch.int16)
IMAGE, SOFT_LABEL, INDEX = (
    {"kind": kind, "derived": False} for kind in ("image", "soft label", "index")
)
DERIVED = {"labels": {"kind": "hard label", "derived": True}}


def grid(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int16)


def podd(**reference: bool) -> dict[str, Any]:
    return {"columns": 4, "rows": 3, "side": 8, "cyclic": False, "reference": False} | reference


# Tensors of format 1; what the sidecar says of their parts now, and the layout.
CASES: dict[str, tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]] = {
    "images": ({"images": IMAGES, "labels": LABELS}, {"images": IMAGE, **DERIVED}, {}),
    "files": (
        {"jpeg": grid(1).byte(), "jpeg_ends": LABELS + 1, "labels": LABELS},
        {"jpeg": IMAGE, "jpeg_ends": {"kind": "index", "derived": True}, **DERIVED},
        {},
    ),
    "learned": (
        {"images": IMAGES, "labels": LABELS, "soft": SOFT},
        {"images": IMAGE, "soft": SOFT_LABEL, **DERIVED},
        {},
    ),
    "infer": (
        {"natural": IMAGES, "compensators": IMAGES.half()},
        {"natural": IMAGE, "compensators": IMAGE},
        {"natural_instances": True},
    ),
    "infer, M-fold": (
        {
            "natural": IMAGES,
            "compensators": IMAGES.half(),
            "natural_instances": torch.zeros((), dtype=torch.uint8),
        },
        {"natural": IMAGE, "compensators": IMAGE},
        {"natural_instances": False},
    ),
    "podd": (
        {"poster": IMAGES, "order": ORDER, "patches": grid(4, 3, 8, 0)},
        {"poster": IMAGE, "order": INDEX},
        podd(),
    ),
    "podd, cyclic": (
        {"poster": IMAGES, "order": ORDER, "patches": grid(4, 3, 8, 1)},
        {"poster": IMAGE, "order": INDEX},
        podd(cyclic=True),
    ),
    "podd, reference": (
        {"poster": IMAGES, "order": ORDER, "soft": SOFT, "patches": grid(4, 3, 8, 0, 1)},
        {"poster": IMAGE, "order": INDEX, "soft": SOFT_LABEL},
        podd(reference=True),
    ),
    "of a method of one's own": ({"canvas": IMAGES}, {"canvas": IMAGE}, {}),
}


def put_old_set(folder: Path, tensors: dict[str, Tensor], **meta: Any) -> dict[str, Any]:
    """Write a distilled set of format 1 into `folder`, and return its meta.json."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / PARTS)
    (folder / SIDECAR).write_text(json.dumps(OLD_SIDECAR, indent=1, sort_keys=True) + "\n")
    (folder / "meta.csv").write_text("meta_step,loss,norm,limit,offset\n1,2.5,0.7,1.4,3\n")
    return put_meta(folder, OLD_META | meta)


def put_meta(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for file in folder.iterdir()
    }
    (folder / META).write_text(json.dumps(meta | {"files": files}, indent=1, sort_keys=True) + "\n")
    return meta | {"files": files}


def test_the_words_are_todays_and_the_fields_of_recipes_too() -> None:
    meta = upgraded(OLD_META)
    assert (meta["stage"], meta["spec"]["stage"], meta["format"]) == ("distill", "distill", 1)
    assert meta["metadata"] == OLD_META["facts"] and not {"room", "facts"} & meta.keys()
    assert meta["spec"]["recipe"]["method"] == {
        "name": "rat-bptt",
        "inner_steps": 15,
        "window_start": "step",
        "step_ipc": 1,
        "step_classes": 2,
        "window": 5,
    }
    assert OLD_META["room"] == "distill", "the meta.json that was read is left alone"


def test_labels_say_what_their_parts_are() -> None:
    numbers = {"labels": 40, "order": 4, "seeds": 3}
    meta = upgraded(OLD_META | {"room": "label", "facts": {"numbers": numbers}})
    kinds = {"labels": "soft label", "order": "index", "seeds": "index"}
    assert meta["metadata"] == {"numbers": numbers, "kinds": kinds}


def test_embeddings_say_where_they_come_from() -> None:
    meta = upgraded(OLD_META | {"room": "embed", "facts": {"found": ["file"], "dimension": 4}})
    assert meta["metadata"] == {"provenance": ["file"], "dimension": 4}


def test_the_present_format_stays_as_it_is() -> None:
    meta = {"format": 2, "stage": "data", "spec": {"recipe": {"offset": 1}}}
    assert upgraded(meta) is meta


@pytest.mark.parametrize("case", CASES)
def test_a_set_is_stored_as_a_fresh_run_stores_it(case: str, tmp_path: Path) -> None:
    tensors, stated, layout = CASES[case]
    old, new, fresh = (tmp_path / name for name in ("old", "new", "fresh"))
    meta = upgraded(put_old_set(old, tensors))
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    new.mkdir(), fresh.mkdir()
    found = convert(meta, old, new)
    parts = {
        name: Part(tensors[name], Kind(part["kind"]), part["derived"])
        for name, part in stated.items()
    }
    expected = DistilledSet("rat-bptt", 1, ("a", "b", "c"), (0.5,), (0.25,), parts, layout)
    expected.save(fresh)
    for file in (PARTS, SIDECAR):
        assert (new / file).read_bytes() == (fresh / file).read_bytes()
        assert found["files"][file] == {
            "bytes": (fresh / file).stat().st_size,
            "sha256": file_sha256(fresh / file),
        }
    sidecar = json.loads((new / SIDECAR).read_text())
    assert sidecar == OLD_SIDECAR | {"parts": stated, "layout": layout}
    assert found["format"] == 2 and found["metadata"] == {
        "method": "rat-bptt",
        "ipc": 1,
        "bytes": expected.bytes,
        "numbers": expected.numbers,
        "kinds": expected.kinds,
    }
    assert (new / "meta.csv").read_text() == (
        "meta_step,loss,norm,limit,window_start\n1,2.5,0.7,1.4,3\n"
    )
    assert before == {file.name: file.read_bytes() for file in old.iterdir()}


# What artefacts of some stages said of their size.
STATED = {
    "data": {"raw_bytes": 89_600, "counts": {"train": 1400, "test": 397}, "classes": ["a", "b"]},
    "label": {"bytes": {"labels": 7}, "numbers": {"labels": 4}},
}


def adopt_all(plan: Plan) -> list[tuple[Node, str]]:
    """Adopt what can be: each node and the id that it had."""
    found = adoptable(plan, ["table2"])
    for one in found:
        adopt(plan.store, one)
    return [(one.node, one.meta["id"]) for one in found]


def test_adoption_keeps_every_artefact_of_an_old_store(project: Path) -> None:
    plan = planned(project)
    nodes = plan.missing(["table2"])
    for node in nodes:
        put_old(plan.store / f"{node.spec.stage}/{node.spec.label}-old", node)
    explained = Explainer(planned(project))
    assert all("code changed" in explained.why(node) for node in nodes if not node.spec.inputs)
    adopted = adopt_all(planned(project))
    assert [node.spec.id for node, _ in adopted] == [node.spec.id for node in nodes]
    assert planned(project).missing(["table2"]) == []
    for node, identity in adopted:
        artefact = open_artefact(plan.store / node.address)
        assert artefact.meta["spec"] == asdict(node.spec) and artefact.meta["format"] == 2
        assert artefact.meta["adopted_from"]["id"] == identity == f"{node.spec.label}-old"
        if node.spec.stage == "data":
            assert artefact.metadata["warnings"] == [NOT_LOOKED_FOR]
        if node.spec.stage == "distill":
            loaded = DistilledSet.load(artefact.path)
            assert artefact.metadata["kinds"] == loaded.kinds
        else:
            assert artefact.metadata["kept"] == node.spec.label
            if node.spec.stage == "evaluate":
                check_sizes(plan, node, artefact.metadata["sizes"])
            old = plan.store / f"{node.spec.stage}/{identity}/file.bin"
            assert old.samefile(artefact.file("file.bin")), "linked, not copied"
    assert adopt_all(planned(project)) == []


@pytest.mark.parametrize("format", [1, 2])
def test_data_that_nobody_looked_at_say_so_and_others_keep_their_warnings(format, tmp_path):
    def found(stage: str, **metadata: object) -> dict[str, Any]:
        meta = {"format": format, "stage": stage, "metadata": metadata}
        new = convert(meta, tmp_path, tmp_path)
        assert meta["metadata"] == metadata and new["format"] == 2
        return new["metadata"]

    assert found("data", shape=[1]) == {"shape": [1], "warnings": [NOT_LOOKED_FOR]}
    assert found("data", warnings=[]) == {"warnings": []}
    assert found("data", warnings=["a"]) == {"warnings": ["a"]}
    assert found("teacher") == {}


def check_sizes(plan: Plan, node: Node, sizes: dict[str, Any]) -> None:
    """An evaluation states what a table says of its data, its set and its labels."""
    assert sizes["data"] == {"raw_bytes": 89_600, "train": 1400, "classes": 2}
    stored = read_meta(plan.store / node.input("distilled").address)["metadata"]
    assert sizes["distilled"] == {key: stored[key] for key in ("bytes", "numbers", "kinds")}
    assert ("label" in sizes) == ("infer" in node.spec.label)
    if "label" in sizes:
        kinds = {"labels": Kind.SOFT_LABEL}
        assert sizes["label"] == {"bytes": {"labels": 7}, "numbers": {"labels": 4}, "kinds": kinds}


def test_a_corrupt_source_is_not_adopted(project: Path) -> None:
    plan = planned(project)
    data = plan.missing(["table2"])[0]
    put_old(old := plan.store / f"{data.spec.stage}/{data.spec.label}-old", data)
    (old / "file.bin").write_bytes(b"other")
    with pytest.raises(ArtefactError, match=r"file\.bin: 5 bytes, meta\.json says"):
        adopt_all(planned(project))
    with pytest.raises(ArtefactError, match="not in the store"):
        read_meta(plan.store / data.address)


ODD = {
    "a date that is a number": {"created": 3},
    "no key": {"key": None},
    "modules in a list": {"modules": []},
    "files in a list": {"files": []},
    "a file without its size": {"files": {"file.bin": {"sha256": ""}}},
    "a spec without a label": {"spec": {"room": "data", "recipe": {}}},
    "a room that is a list": {"room": []},
    "no facts": {"facts": None},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_old_meta_json_of_another_shape_stops_nothing(project: Path, change, capsys) -> None:
    """Nothing seals it: it is adopted where its shape is right, and passed over otherwise."""
    plan = planned(project)
    for number, node in enumerate(plan.missing(["table2"])[:2]):
        put_old(folder := plan.store / f"{node.spec.stage}/{node.spec.label}-old", node)
        if not number:
            meta = json.loads((folder / "meta.json").read_text()) | change
            kept = {key: value for key, value in meta.items() if value is not None}
            (folder / "meta.json").write_text(json.dumps(kept))
    assert main(["plan", "table2", "--root", str(project)]) == 0
    assert "never made" in capsys.readouterr().out
    adopted = [node.spec.stage for node, _ in adopt_all(planned(project))]
    assert adopted == (["data", "distill"] if "created" in change else ["distill"])


def put_old(folder: Path, node: Node) -> None:
    """What the code of format 1 would have left for a node: its spec in the old words, its key."""
    spec = asdict(node.spec)
    spec["room"] = spec.pop("stage")
    meta = {
        "room": node.spec.stage,
        "id": folder.name,
        "key": node.key,
        "spec": spec | {"code": "0" * 12},
        "modules": {},
        "created": "2026-11-25T03:33:51Z",
    }
    if node.spec.stage == "distill":
        put_old_set(folder, CASES["learned"][0], **meta)
    else:
        folder.mkdir(parents=True)
        (folder / "file.bin").write_bytes(node.spec.label.encode())
        facts = {"kept": node.spec.label} | STATED.get(node.spec.stage, {})
        put_meta(folder, meta | {"facts": facts})
