"""The papers' own CIFAR-10 cells, as many as fit: printed beside measured.

The stages and recipes are the project's: the tables infer/table1, podd/table1 and podd/curve at the
scale `paper`, of which only what is stated below is another, to fit the time. Each artefact is a
step; one that was cut off goes on from its checkpoint in the next command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq
import torch
from record import Records, Row, Step, table

from distillery.plan.cell import TableCell
from distillery.plan.nodes import Node
from distillery.plan.origins import merge
from distillery.plan.plan import Plan
from distillery.plan.yaml_files import read_value
from distillery.store.artefact import read_meta
from distillery.store.atomic import write_text
from distillery.store.files import ANALYSIS_VALUES
from distillery.store.job import run

REPOSITORY = Path(__file__).resolve().parents[2]
INFER, PODD, CURVE = "infer/table1", "podd/table1", "podd/curve"
DATA = "data/cifar10"  # below the project's folder
STEPS = "podd-steps.json"  # what the number of meta-steps was fixed at
DEFAULT_STEPS = 200  # where no time of a meta-step is known
LEAST_STEPS, SNAPSHOTS = 20, 5


def steps(options: argparse.Namespace) -> list[Step]:
    """A step for each artefact, and after it the rows of all that is finished."""
    plan = _plan(options)
    return [
        Step(node.address, partial(_make, node, plan, options), resumes=True)
        for node in ordered(plan)
    ]


def _plan(options: argparse.Namespace) -> Plan:
    root = options.out / "cells"
    root.mkdir(parents=True, exist_ok=True)
    link(root / "workflow", REPOSITORY / "workflow")
    if options.data:
        link(root / DATA, options.data)
    if options.vectors:
        link(root / "data/vectors.parquet", options.vectors)
    params = _tiny() if options.tiny and not options.data else _params(options)
    for text in options.set:
        key, _, value = text.partition("=")
        params = merge(params, _nested(key.split("."), read_value(value, f"--set {text}")))
    plan = Plan(root, params)
    for name in plan.settings.params.tables:
        plan.cells(name)
    return plan


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    inner = _nested(keys[1:], value) if keys[1:] else value
    return {keys[0]: inner}


def link(place: Path, target: Path) -> None:
    """Let `place` stand for `target`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    place.symlink_to(target.resolve())


def _params(options: argparse.Namespace) -> dict[str, Any]:
    """What is said in place of params.yaml: the cells, and all that is shorter than the papers'."""
    if not options.data:
        raise FileNotFoundError("the papers' cells need CIFAR-10: give --data FOLDER")
    training = {"training": {"epochs": options.teacher_epochs, "precision": "bf16"}}
    vectors = {"name": "file", "path": str(options.out / "cells/data/vectors.parquet")}
    features = {"name": "features", "teachers": "ensemble:1"}
    podd = {"meta_steps": meta_steps(options), "snapshots": SNAPSHOTS}
    side_by_side = {"parallel_groups": 10}  # the same up to rounding
    cifar10: dict[str, Any] = {
        "source": f"parquet:{options.out / 'cells' / DATA}",
        "teacher": {
            name: training
            for name in ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v1")
        },
        "embed": {"classes": vectors if options.vectors else features},
        "distill": {"podd": podd, "infer": side_by_side},
    }
    one = {"dataset": ["cifar10"], "student": ["convnet-in"], "ipc": [1.0, 0.3], "rows": ["PoDD"]}
    infer = {"dataset": ["cifar10"], "student": ["resnet18"], "ipc": [10]}
    return {
        "paper": "infer",
        "scale": "paper",
        "draws": 1,
        "students": 1,
        "device": options.device,
        "datasets": {"cifar10": cifar10},
        "tables": [INFER, PODD, CURVE],
        "grid": {INFER: infer | {"rows": ["INFER", "INFER+Dyn", "Random"]}, PODD: one, CURVE: one},
    }


def _tiny() -> dict[str, Any]:
    """The same tables of digits at the scale `demo`, a few steps each."""
    training = {"training": {"epochs": 2, "test_every": 2}}
    teacher = {"training": {"epochs": 2, "test_every": 2}}
    networks = ("resnet10-w16", "convnet-w32", "resnet18-w8", "convnet-w16")
    one = {"dataset": ["digits"], "ipc": [1.0, 0.3], "rows": ["PoDD"], "student": ["convnet-in16"]}
    infer = {"dataset": ["digits"], "student": ["convnet-w16"], "ipc": [5]}
    small = {name: {"name": "convnet", "width": 6, "norm": "batch"} for name in networks}
    return {
        "paper": "infer",
        "scale": "demo",
        "draws": 1,
        "students": 1,
        "networks": small,
        "teacher": dict.fromkeys(networks, teacher),
        "distill": {
            "infer": {"iterations": 2},
            "podd": {"meta_steps": 4, "window": 2, "inner_steps": 3, "snapshots": 2},
        },
        "evaluate": dict.fromkeys(("hard", "static", "dynamic", "podd"), training),
        "tables": [INFER, PODD, CURVE],
        "grid": {INFER: infer | {"rows": ["INFER", "INFER+Dyn", "Random"]}, PODD: one, CURVE: one},
    }


def meta_steps(options: argparse.Namespace) -> int:
    """Meta-steps of a poster: as asked, or as fit --podd-minutes by the measured time of one.

    The number is fixed when it is first found, as other numbers are other artefacts.
    """
    file = options.out / "cells" / STEPS
    if options.podd_steps:
        return options.podd_steps
    if file.is_file():
        return int(json.loads(file.read_text())["meta_steps"])
    seconds = _measured(options.out)
    number = round_down(60 * options.podd_minutes / seconds) if seconds else DEFAULT_STEPS
    number = max(number, LEAST_STEPS)
    if not options.list:
        write_text(file, json.dumps({"meta_steps": number, "seconds_of_one": seconds}) + "\n")
    return number


def _measured(out: Path) -> float | None:
    """Seconds of a meta-step of the project's PoDD as part `measure` found them; None: not yet."""
    rows = Records(out, "measure").rows()
    found = [
        row["seconds"]
        for row in rows
        if row.get("side") == "project" and row.get("what", "").startswith("podd,")
    ]
    return next((seconds for seconds in found if seconds and seconds > 0), None)


def round_down(number: float) -> int:
    """To one digit and zeros: 734 becomes 700."""
    whole = int(number)
    size = 10 ** max(len(str(whole)) - 1, 0)
    return whole // size * size


def ordered(plan: Plan) -> list[Node]:
    """All artefacts of the tables, table by table, inputs before what reads them."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for upstream in node.upstream():
            visit(upstream)
        found.setdefault(node)

    for name in plan.settings.params.tables:
        for node in plan.table_inputs(name):
            visit(node)
    return list(found)


def _make(node: Node, plan: Plan, options: argparse.Namespace) -> list[Row]:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    lacking = [up.address for up in node.upstream() if not plan.whole(up)]
    if lacking:
        raise FileNotFoundError(f"is made of {', '.join(lacking)}, which failed or were left out")
    run(node.spec, plan.store, options.device, options.threads)
    _write_cells(plan, options.out)
    meta = read_meta(plan.store / node.address)
    peak = meta["peak_gpu_memory_bytes"] / 2**20 or None
    known = {"stage": node.spec.stage, "seconds_of_last_run": meta["seconds"]}
    return [known | {"peak_device_mib": peak, "accuracy": _last(meta["metadata"])}]


def _last(metadata: Mapping[str, Any]) -> float | None:
    return (metadata.get("accuracy") or {}).get("last")


def _write_cells(plan: Plan, out: Path) -> None:
    """The cells that are measured, printed beside measured, and the curves."""
    names = plan.settings.params.tables
    rows = [row for name in names for cell in plan.cells(name) for row in _rows(name, cell, plan)]
    write_text(out / "report/printed.csv", table(rows))


def _rows(name: str, cell: TableCell, plan: Plan) -> Iterator[Row]:
    if not all(map(plan.have, cell.students)):
        return
    metas = [read_meta(plan.store / node.address)["metadata"] for node in cell.students]
    place = {
        "table": name,
        "row": cell.row.row,
        "data": cell.dataset,
        "ipc": cell.ipc,
        "student": cell.student,
    }
    protocol = {"protocol": "; ".join(_protocol(cell.students[0], plan)), "differs": cell.reason}
    if "steps" not in metas[0]:  # a curve
        path = plan.store / cell.students[0].address / ANALYSIS_VALUES
        for point in pq.read_table(path).to_pylist():
            known = {"meta_step": point["meta_step"], "measured": point["accuracy"]}
            yield place | known | protocol
        return
    printed = cell.published
    yield (
        place
        | {
            "printed": printed.mean if printed else None,
            "printed_std": printed.std if printed else None,
            "measured": mean(meta["accuracy"]["last"] for meta in metas),
            "students": len(metas),
            "steps": metas[0]["steps"],
            "instances": metas[0]["instances"],
        }
        | protocol
    )


def _protocol(node: Node, plan: Plan) -> Iterator[str]:
    """How the number came about: each training, made set and embedding behind it."""
    seen: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for upstream in node.upstream():
            visit(upstream)
        seen.setdefault(node)

    visit(node)
    for one in seen:
        recipe, accuracy = one.spec.recipe, _accuracy(one, plan)
        if one.spec.stage == "teacher":
            training = recipe["training"]
            yield f"{recipe['network']['name']}: {_trained(training)}{accuracy}"
        elif one.spec.stage == "distill":
            method = recipe["method"]
            count = {k: method[k] for k in ("iterations", "meta_steps") if k in method}
            yield " ".join([method["name"], *(f"{n} {key}" for key, n in count.items())])
        elif one.spec.stage == "embed":
            yield f"class order by {recipe['source']['name']}"
        elif one.spec.stage == "evaluate":
            labels, loss = recipe["labels"]["name"], recipe["loss"]["name"]
            yield f"student: {labels} labels, {loss}, {_trained(recipe['training'])}"


def _trained(training: Mapping[str, Any]) -> str:
    return f"{training['epochs']} epochs, batch {training['batch']}, {training['precision']}"


def _accuracy(node: Node, plan: Plan) -> str:
    if not plan.have(node):
        return ""
    last = _last(read_meta(plan.store / node.address)["metadata"])
    return "" if last is None else f", {last:.1f} %"
