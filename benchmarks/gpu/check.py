"""Every method, loss, kind of labels and the like on the device against the CPU, in float32.

A job is made on the CPU, then on the device from the same inputs, which are the CPU's, and the
results are compared. All random draws of the project are made on the CPU, so that they are the
same on both. Rounding grows over the steps of a training, by an amount that differs between
methods; where the difference is above `LEAST`, the job is made a third time, on the CPU with other
convolutions (without oneDNN), and its difference, from rounding alone, is the measure.

The jobs are those of a scale made here of workflow/scales/demo.yaml, a few steps each, for one
table whose rows are all names in the project's registry. With the CPU as the device that third job
stands for the device's.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from record import Row, Step
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from distillery.components import registry
from distillery.data.images import load_images
from distillery.nets.network import build_network, load_network
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.yaml_files import read_yaml
from distillery.store.artefact import open_artefact, read_meta
from distillery.store.atomic import write_text
from distillery.store.files import STUDENT_WEIGHTS
from distillery.store.job import run
from distillery.training.loop import initialise

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE, STUDENT = "check/all", "convnet-w16"
# Steps of a method, in place of the demo's.
SHORT = {"iterations": 5, "meta_steps": 2, "window": 3, "inner_steps": 5, "pool": 20}
SHORT |= {"parallel_groups": 2, "snapshots": 2, "reference_images": 200}
TEACHING = {"epochs": 1, "test_every": 1}
# By SGD, as Adam scales up a gradient of rounding alone: that of a bias before a batch norm.
SGD = {"name": "sgd", "lr": 0.05}
STUDYING = {"epochs": 2, "batch": 10, "test_every": 2, "optimizer": SGD}
WHOLE = STUDYING | {"epochs": 1, "batch": 128, "augment": []}  # of students of all images
TRAINED = ("teacher", "evaluate")
LEAST = 1e-5  # relative differences up to here are well, whatever rounding alone does
OF_NETWORKS = 1e-4  # up to here, networks are: no step amplifies rounding
FACTOR = 30.0  # differences of up to so many times that of rounding alone are well
PROBE = 8  # images that networks are compared on


def steps(options: argparse.Namespace) -> list[Step]:
    """A step for each artefact, inputs before what reads them, and one for each network."""
    plan = _plan(options.out / "check", options.tiny)
    names = dict(_names(plan))
    compared = [node for node in _ordered(plan) if node.spec.stage != "data"]
    found = [
        Step(names[node.address], partial(_compare_job, node, plan, options)) for node in compared
    ]
    networks = [name for name in registry.index("network") if "*" not in name]
    found += [
        Step(f"network {name}", partial(_compare_network, name, options)) for name in networks
    ]
    lacking = registry.index("method").keys() - plan.settings.scale.distill
    return found + [Step(f"set {name}", partial(_no_recipe, name)) for name in sorted(lacking)]


def _no_recipe(name: str) -> list[Row]:
    raise LookupError(f"method {name}: workflow/scales/demo.yaml has no distill.{name} to check")


def _plan(root: Path, tiny: bool) -> Plan:
    """The plan of the project in `root`, whose scale and table are written first."""
    demo = read_yaml(REPOSITORY / "workflow/scales/demo.yaml")
    files = {
        "workflow/scales/check.yaml": _scale(demo) | (_small(demo) if tiny else {}),
        "workflow/tables/check/paper.yaml": {"name": "check", "title": "all components"},
        f"workflow/tables/{TABLE}.yaml": {
            "title": "all components",
            "panel": "dataset",
            "columns": ["student", "ipc"],
            "rows": list(_rows()),
        },
    }
    for name, content in files.items():
        write_text(root / name, yaml.safe_dump(content, sort_keys=False))
    (root / "workflow/published").mkdir(exist_ok=True)
    (root / "results/store").mkdir(parents=True, exist_ok=True)
    plan = Plan(root, {"paper": "check", "scale": "check", "students": 1, "tables": [TABLE]})
    plan.cells(TABLE)
    return plan


def _scale(demo: dict[str, Any]) -> dict[str, Any]:
    kept = ("about", "networks", "ensemble", "network_aliases", "datasets", "whiten", "embed")
    training = {"training": STUDYING | {"augment": []}}
    teachers = {
        name: {"training": block["training"] | TEACHING} for name, block in demo["teacher"].items()
    }
    return {key: demo[key] for key in kept} | {
        "teacher": teachers,
        "distill": {
            name: _short(demo["distill"][name])
            for name in registry.index("method")
            if name in demo["distill"]
        },
        "label": {name: _label_block(name, demo) for name in _labels()},
        "evaluate": {
            "plain": {"loss": {"name": "ce"}} | training,
            "whole": {"loss": {"name": "ce"}, "training": WHOLE},
            **{_block("loss", name): {"loss": {"name": name}} | training for name in _losses()},
            **{
                _block(kind, name): {"loss": {"name": "ce"}, "training": STUDYING | changes}
                for kind, name, changes in _trainings()
            },
            **{
                _block("refinement", name): {"loss": {"name": "cosine"}, "refine": {"name": name}}
                | training
                for name in registry.index("refinement")
            },
        },
        "tables": {TABLE: {"dataset": ["digits"], "student": [STUDENT], "ipc": [2]}},
    }


def _small(demo: dict[str, Any]) -> dict[str, Any]:
    """The networks of the demo, all ConvNets of a few filters."""
    norms = {name: recipe.get("norm", "batch") for name, recipe in demo["networks"].items()}
    small = {name: {"name": "convnet", "width": 6, "norm": norm} for name, norm in norms.items()}
    return {"networks": small}


def _label_block(name: str, demo: dict[str, Any]) -> dict[str, Any]:
    taught = "teachers" in registry.load("label", name).Recipe.__dataclass_fields__
    return demo["label"].get(name) or (demo["label"]["dynamic"] if taught else {})


def _block(kind: str, name: str) -> str:
    """The name of an evaluation's block in the scale."""
    return f"{kind}-{name.replace(':', '-')}"


def _short(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {key: value for key, value in SHORT.items() if key in recipe}


def _labels() -> list[str]:
    return list(registry.index("label"))


def _losses() -> list[str]:
    return list(registry.index("loss"))


def _trainings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What a student's training names: the kind of component, its name, and the recipe's change."""
    for name in dict.fromkeys(_augmentations(read_yaml(REPOSITORY / "workflow/scales/paper.yaml"))):
        yield "augmentation", name, {"augment": [name]}
    for name in _present("optimizer"):
        yield "optimizer", name, {"augment": [], "optimizer": {"name": name, "lr": 1.0e-3}}
    for name in registry.index("schedule"):
        yield "schedule", name, {"augment": [], "schedule": {"name": name}}
    for name in registry.index("mixing"):
        yield "mixing", name, {"augment": [], "mix": {"name": name}}


def _present(kind: str) -> list[str]:
    return [name for name in registry.index(kind) if "*" not in name]


def _augmentations(tree: Any) -> Iterator[str]:
    """All that a scale augments with; those that need more than 8 pixels are made to fit."""
    if isinstance(tree, list):
        for value in tree:
            yield from _augmentations(value)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "augment":
                yield from (_fitting(name) for name in value)
            else:
                yield from _augmentations(value)


def _fitting(name: str) -> str:
    stem, colon, parameter = name.partition(":")
    large = parameter.isdecimal() and int(parameter) > 4
    return f"{stem}{colon}{4 if large else parameter}"


def _rows() -> Iterator[dict[str, Any]]:
    row = {"method": "random", "labels": "hard", "protocol": "plain"}
    for name in registry.index("method"):
        whole = registry.trait(registry.load("method", name), "whole_data", False)
        protocol = "whole" if whole else "plain"
        yield row | {"row": f"method {name}", "method": name, "protocol": protocol}
    for name in _labels():
        soft = registry.trait(registry.load("label", name), "logits", False)
        learned = {"method": "rat-bptt"} if name == "learned" else {}
        protocol = _block("loss", "kl") if soft else "plain"
        yield row | {"row": f"labels {name}", "labels": name, "protocol": protocol} | learned
    for name in _losses():
        yield row | {"row": f"loss {name}", "labels": "static", "protocol": _block("loss", name)}
    for kind, name, _ in _trainings():
        yield row | {"row": f"{kind} {name}", "protocol": _block(kind, name)}
    for name in registry.index("refinement"):
        protocol = _block("refinement", name)
        yield row | {"row": f"refinement {name}", "labels": "static", "protocol": protocol}


def _names(plan: Plan) -> Iterator[tuple[str, str]]:
    """The name of the step of each artefact, by its address; the last of several counts."""
    for node in plan.nodes.values():
        method = node.spec.recipe.get("method", {}).get("name", "")
        kind = node.spec.recipe.get("labels", {}).get("name", "")
        yield node.address, f"{node.spec.stage} {node.spec.label}"
        if node.spec.stage == "distill":
            yield node.address, f"set {method}"
        if node.spec.stage == "label":
            yield node.address, f"stored labels {kind or node.spec.label}"
    for cell in reversed(plan.cells(TABLE)):
        for node in cell.students:
            yield node.address, f"student, {cell.row.row}"


def _ordered(plan: Plan) -> list[Node]:
    """All artefacts of the table, inputs before what reads them."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for upstream in node.upstream():
            visit(upstream)
        found.setdefault(node)

    for node in plan.table_inputs(TABLE):
        visit(node)
    return list(found)


def _compare_job(node: Node, plan: Plan, options: argparse.Namespace) -> list[Row]:
    _made(node, plan, options.threads)
    cpu = options.device == "cpu"
    error, result = _difference(node, plan, _again(node, plan, options, other=cpu))
    said = error if math.isfinite(error) else None
    row = {"what": node.spec.stage, "result": result, "relative_error": said}
    rounding = None
    if error > LEAST and not cpu:
        rounding, _ = _difference(node, plan, _again(node, plan, options, other=True))
    well = math.isfinite(error) if cpu else error <= max(LEAST, FACTOR * (rounding or 0.0))
    return [row | {"rounding_alone": rounding, "ok": well}]


def _made(node: Node, plan: Plan, threads: int) -> Path:
    for upstream in node.upstream():
        _made(upstream, plan, threads)
    return run(node.spec, plan.store, "cpu", threads)


def _again(node: Node, plan: Plan, options: argparse.Namespace, *, other: bool) -> Path:
    """The artefact once more, from the CPU's inputs; `other`: on the CPU by other convolutions."""
    twin = plan.root / "twin"
    shutil.rmtree(twin, ignore_errors=True)
    for upstream in node.upstream():
        link = twin / "results/store" / upstream.address
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(plan.store / upstream.address)
    store = twin / "results/store"
    store.mkdir(parents=True, exist_ok=True)
    if not other:
        return run(node.spec, store, options.device, options.threads)
    with torch.backends.mkldnn.flags(enabled=False):
        return run(node.spec, store, "cpu", options.threads)


def _difference(node: Node, plan: Plan, found: Path) -> tuple[float, str]:
    """The largest relative difference of the results of two artefacts, and which one has it."""
    expected, others = (_result(node, plan, path) for path in (_folder(node, plan), found))
    return max((relative_error(expected[name], others[name]), name) for name in expected)


def _folder(node: Node, plan: Plan) -> Path:
    return plan.store / node.address


def _result(node: Node, plan: Plan, path: Path) -> dict[str, Tensor]:
    """What an artefact says: its tensors, or of a network what it answers.

    The weights of a network are not compared one by one: a bias before a batch norm has no effect,
    and a gradient of rounding alone, which Adam scales up. Of a teacher, whose training has more
    than a few steps, the mean loss of the first epoch counts.
    """
    stage, metadata = node.spec.stage, read_meta(path)["metadata"]
    if stage in TRAINED:
        result = {"loss": torch.tensor(metadata["loss"][:1])}
        if stage == "evaluate" and node.spec.recipe["training"]["epochs"] > 1:
            result["logits"] = _answers(node, plan, path)
        return result
    tensors = ((file.stem, load_file(file)) for file in sorted(path.glob("*.safetensors")))
    found = {f"{stem}/{name}": t for stem, parts in tensors for name, t in parts.items()}
    return found or {"nothing of its own": torch.zeros(1)}  # a set that refers to the whole data


def _answers(node: Node, plan: Plan, path: Path) -> Tensor:
    """Logits of a student for the first images of the test set, by the CPU."""
    data = open_artefact(plan.store / node.input("data").address)
    test, shape = load_images(data, "test"), data.metadata["shape"]
    network, weights = node.spec.recipe["student"], path / STUDENT_WEIGHTS
    student = load_network(network, shape, len(test.classes), weights, "cpu")
    with torch.no_grad():
        return student(torch.as_tensor(test.pixels(torch.arange(PROBE))).float() / 255)


def relative_error(expected: Tensor, found: Tensor) -> float:
    """|found - expected| / |expected| in Euclidean norm; what is not finite differs infinitely."""
    expected, found = expected.double().cpu(), found.double().cpu()
    difference = (found - expected).norm() / expected.norm().clamp(min=1e-12)
    return float(difference) if bool(difference.isfinite()) else float("inf")


def _compare_network(name: str, options: argparse.Namespace) -> list[Row]:
    """Logits and the gradient by images and weights of a fresh network, in eval mode."""
    size = 16 if options.tiny else 32
    reference = {"name": name}
    network = initialise(lambda: build_network(reference, (3, size, size), 10), 0).eval()
    images = torch.rand(PROBE, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = _probed(network, images)
    if options.device == "cpu":
        with torch.backends.mkldnn.flags(enabled=False):
            found = _probed(network, images)
    else:
        found = _probed(deepcopy(network).to(options.device), images.to(options.device))
    errors = (relative_error(a, b) for a, b in zip(expected, found, strict=True))
    error, result = max(zip(errors, ("logits", "by images", "by weights"), strict=True))
    row = {"what": "network", "result": result, "relative_error": error}
    return [row | {"rounding_alone": None, "ok": error <= OF_NETWORKS}]


def _probed(network: torch.nn.Module, images: Tensor) -> list[Tensor]:
    leaf = images.clone().requires_grad_()
    logits = network(leaf)
    loss = cross_entropy(logits, torch.arange(len(images), device=images.device) % 10)
    by_images, *by_weights = torch.autograd.grad(loss, [leaf, *network.parameters()])
    weights = torch.cat([gradient.flatten() for gradient in by_weights])
    return [logits.detach(), by_images, weights]
