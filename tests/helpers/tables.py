"""A store of meta.json files alone, the plan of a table over it, and the table as written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillery.sets.sizes import stated_sizes
from distillery.store.artefact import FORMAT, META, meta_writer
from distillery.store.atomic import write_file
from distillery.table.assemble import assemble
from distillery.table.document import DocumentCell, Place, TableDocument, TableShape
from distillery.table.files import write
from distillery.table.published import PrintedNumber

PLACE_KEYS = ("dataset", "student", "ipc", "axes")

DATA = {
    "counts": {"train": 1400, "test": 397},
    "raw_bytes": 89_600,
    "classes": [str(digit) for digit in range(10)],
}


RANDOM = {"bytes": {"images": 4480}}
INFER = {"bytes": {"images": 4480, "compensators": 512}}
LABEL = {"bytes": {"labels": 1400}}

LAST, BEST = (40.0, 42.0, 47.0), (41.0, 42.5, 48.0)


def put(store, address, metadata, **versions):
    """An artefact that states `metadata` and has no files; its name follows from no recipe."""
    stage, _, identity = address.partition("/")
    meta = {
        "format": FORMAT,
        "stage": stage,
        "id": identity,
        "key": "0" * 16,
        "spec": {},
        "metadata": metadata,
        "modules": {},
        "files": {},
        "seconds": 1.5,
        "versions": versions,
    }
    write_file(store / address / META, meta_writer(meta))


def evaluation(last, best, *, half=None, steps=40, **parts):
    """What an evaluation on digits states; `parts`: the metadata of the set and its labels.

    It was tested at the last of 20 epochs and, with `half`, at the tenth.
    """
    curve = [[20, last]] if half is None else [[5, 0.0], [10, half], [20, last]]
    return {
        "accuracy": {"last": last, "best": best, "curve": curve},
        "instances": 70,
        "steps": steps,
        "epochs": 20,
        "student": {"name": "convnet"},
        "sizes": stated_sizes({"data": DATA, **parts}.get),
    }


def put_infer(store, distilled=INFER, label=LABEL):
    """INFER's three students, whose set and labels state these metadata."""
    for repeat, (last, best) in enumerate(zip(LAST, BEST, strict=True)):
        stated = evaluation(last, best, distilled=distilled, label=label)
        put(store, f"evaluate/infer-r{repeat}", stated)


def make_store(store):
    put_infer(store)
    put(store, "evaluate/random-r0", evaluation(31.5, 31.5, distilled=RANDOM))
    return store


PAPER_PLACE = Place("imagenet-1k", "resnet18", 10)


def cell(row: str, method: str, labels: str, **changes: Any) -> DocumentCell:
    """A cell of digits, as in `changes`; published only unless they say more."""
    place = Place("digits", "convnet-w32", 7)
    place = replace(place, **{key: changes.pop(key) for key in PLACE_KEYS if key in changes})
    published = {"paper": PAPER_PLACE, "published": None, "comparable": False, "reason": ""}
    counted = {"counted_as": labels, "label_epochs": 20, "original_bytes": None}
    artefacts = {
        "evaluations": (),
        "distilled": (),
        "label": (),
        "data": None,
        "teachers": (),
        "scores": {},
    }
    named = {"row": row, "method": method, "labels": labels, "variant": "", "protocol": labels}
    rest = {"place": place, "against": None}
    return DocumentCell(**(named | published | counted | artefacts | rest | changes))


def printed(mean: float, std: float, ratio: float) -> PrintedNumber:
    return PrintedNumber(mean, std, ratio, table="2", network_stated=True)


def document(cells: Sequence[DocumentCell], **changes: Any) -> TableDocument:
    """The plan document of cells in a grid of students and ipc."""
    rows = tuple(dict.fromkeys(cell.row for cell in cells))
    values = {
        "table": "infer/table2",
        "title": "INFER, Table 2: 100 % of_it",
        "paper": "infer",
        "paper_name": "INFER",
        "scale": "demo",
        "quantity": "top-1 accuracy on the test set, percent",
        "digits": 1,
        "analysis": None,
        "figure": None,
        "printed": {},
        "scores": False,
        "compression_ratio": True,
        "shape": TableShape(rows, ("student", "ipc"), "dataset"),
        "axes": (),
        "code": "",
        "cells": tuple(cells),
    }
    return TableDocument(**(values | changes))


def make_plan() -> TableDocument:
    """Random and INFER measured, G-VBSM printed only, over the store of `make_store`."""
    random = {
        "evaluations": (("evaluate/random-r0",),),
        "distilled": ("distill/digits-random-ccc",),
        "data": "data/digits-aaa",
    }
    infer = {
        "evaluations": (tuple(f"evaluate/infer-r{repeat}" for repeat in range(3)),),
        "distilled": ("distill/digits-infer-bbb",),
        "label": ("label/digits-infer-ddd",),
        "data": "data/digits-aaa",
    }
    return document(
        [
            cell("Random", "random", "hard", published=printed(10.5, 0.4, 0.78), **random),
            cell("G-VBSM", "g-vbsm", "dynamic", published=printed(31.4, 0.5, 4.53)),
            cell("INFER", "infer", "static", published=printed(28.7, 0.2, 0.81), **infer),
        ]
    )


def changed(plan: TableDocument, index: int, **changes: Any) -> TableDocument:
    """The document with another cell at `index`."""
    cells = list(plan.cells)
    cells[index] = replace(cells[index], **changes)
    return replace(plan, cells=tuple(cells))


def made(plan: TableDocument, store: Path, stem: Path) -> list[dict[str, str]]:
    """The rows of the table as written beside `stem`."""
    write(plan, assemble(plan, store), stem)
    with open(f"{stem}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def grid(text, title):
    """The cells of the Markdown grid under `title`."""
    lines = text.partition(f"**{title}**\n\n")[2].partition("\n\n")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if not line.startswith("| --")
    ]
