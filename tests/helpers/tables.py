"""A store of meta.json files alone, the plan of a table over it, and the table as written."""

from __future__ import annotations

import csv
import json

from distillery.stages.table import write
from distillery.table.assemble import assemble

DATA = {
    "counts": {"train": 1400, "test": 397},
    "raw_bytes": 89_600,
    "classes": [str(digit) for digit in range(10)],
}


LAST, BEST = (40.0, 42.0, 47.0), (41.0, 42.5, 48.0)


def put(store, address, metadata):
    folder = store / address
    folder.mkdir(parents=True, exist_ok=True)
    stage, _, identity = address.partition("/")
    meta = {
        "stage": stage,
        "id": identity,
        "spec": {},
        "metadata": metadata,
        "files": {},
        "seconds": 1.5,
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def evaluation(last, best):
    return {
        "accuracy": {"last": last, "best": best, "best_epoch": 3},
        "epochs": 20,
        "student": {"name": "convnet"},
    }


def make_store(store):
    put(store, "data/digits-aaa", DATA)
    put(store, "distill/digits-infer-bbb", {"bytes": {"images": 4480, "compensators": 512}})
    put(store, "distill/digits-random-ccc", {"bytes": {"images": 4480}})
    put(store, "label/digits-infer-ddd", {"bytes": {"labels": 1400}})
    for repeat, (last, best) in enumerate(zip(LAST, BEST, strict=True)):
        put(store, f"evaluate/infer-r{repeat}", evaluation(last, best))
    put(store, "evaluate/random-r0", evaluation(31.5, 31.5))
    return store


def position(row, method, labels, **changes):
    return {
        **{
            "row": row,
            "method": method,
            "labels": labels,
            "charged": labels,
            "variant": "",
            "protocol": labels,
        },
        **{"label_epochs": 20, "against": None},
        **{
            "dataset": "digits",
            "student": "convnet-w32",
            "ipc": 7,
            "published": None,
            "evaluations": [],
        },
        **{"paper": {"dataset": "imagenet-1k", "student": "resnet18", "ipc": 10}},
        **{"distilled": None, "label": None, "data": None},
        **changes,
    }


def printed(mean, std, ratio, comparable=False):
    return {
        "mean": mean,
        "std": std,
        "compression_ratio": ratio,
        "table": "2",
        "network_stated": True,
        "comparable": comparable,
    }


def make_plan():
    random = {
        "evaluations": ["evaluate/random-r0"],
        "distilled": "distill/digits-random-ccc",
        "data": "data/digits-aaa",
    }
    infer = {
        "distilled": "distill/digits-infer-bbb",
        "label": "label/digits-infer-ddd",
        "data": "data/digits-aaa",
    }
    infer["evaluations"] = [f"evaluate/infer-r{repeat}" for repeat in range(3)]
    return {
        **{
            "table": "infer/table2",
            "title": "INFER, Table 2: 100 % of_it",
            "paper": "infer",
            "scale": "demo",
        },
        **{
            "quantity": "top-1 accuracy on the test set, percent",
            "digits": 1,
            "analysis": None,
            "figure": None,
            "axes": [],
        },
        "shape": {
            "rows": ["Random", "G-VBSM", "INFER"],
            "columns": ["student", "ipc"],
            "panel": "dataset",
        },
        "positions": [
            position("Random", "random", "hard", published=printed(10.5, 0.4, 0.78), **random),
            position("G-VBSM", "g-vbsm", "dynamic", published=printed(31.4, 0.5, 4.53)),
            position("INFER", "infer", "static", published=printed(28.7, 0.2, 0.81), **infer),
        ],
    }


def made(plan, store, stem):
    write(assemble(plan, store), plan, stem)
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
