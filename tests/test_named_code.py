"""The code of an artefact holds the components that its recipe names, and no others."""

import functools
import re

import pytest
import yaml

from distillery.components import parameters, registry
from distillery.plan.plan import Plan
from distillery.plan.settings import merge, read_yaml
from distillery.store.fingerprint import closure
from distillery.store.job import run
from helpers.planning import at

PART = re.compile(r"distillery\.training\.((?:augmentation|optimizer|schedule|mixing)s\.\w+)$")
FILES = {
    **{"crop": "crop", "batch-crop": "crop", "flip": "flip", "batch-flip": "flip"},
    **{"resized-crop": "resized_crop", "batch-resized-crop": "resized_crop"},
    "patch-crop": "patch_crop",
    **{"roll": "roll", "centred-roll": "roll", "patch-shuffle": "patch_shuffle", "dsa": "dsa"},
}
MIXINGS = {"none": {"none"}, "mixup": {"mixup"}, "cutmix": {"cutmix", "mixup"}}  # imports mixup


def augmentations(recipe):
    """The files of the augmentations in the fields of a recipe."""
    fields = [value for key, value in recipe.items() if key.endswith("augment")]
    return {f"augmentations.{FILES[text.split(':')[0]]}" for field in fields for text in field}


def of_training(recipe):
    """The files that a training, or the part of one in a label store, names."""
    found = augmentations(recipe) | {f"mixings.{name}" for name in MIXINGS[recipe["mix"]["name"]]}
    for part in ("optimizer", "schedule"):
        if part in recipe:
            found |= {f"{part}s.{recipe[part]['name']}"}
    return found


def named(recipe):
    """The files that the recipe of an artefact of any stage names."""
    found = set()
    if recipe.get("training"):
        found |= of_training(recipe["training"])
    for part in ("method", "analysis"):
        found |= augmentations(recipe.get(part) or {})
    for labels in (recipe.get("labels") or {}, recipe):
        found |= of_training(labels) if labels.get("name") == "fkd" else set()
    return found


@functools.cache
def held_by(roots):
    return {m[1] for module in closure(roots) if (m := PART.match(module))}


def held(node):
    """The files of augmentations, optimisers, schedules and mixings in the code of an artefact."""
    return held_by(tuple(node.spec.roots))


def code(node):
    """The modules of an artefact, and those of its inputs, whose ids are part of its own."""
    return set(closure(node.spec.roots)).union(*(code(up) for up in node.upstream()))


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_an_artefact_holds_the_training_components_that_it_names_and_no_others(scale):
    plan = at(scale)
    list(plan.growing())
    nodes = plan.nodes.values()
    wrong = [node.address for node in nodes if held(node) != named(node.spec.recipe)]
    assert wrong == []
    used = set().union(*(held(node) for node in nodes))
    assert {"optimizers.sgd", "optimizers.adamw", "mixings.cutmix", "augmentations.dsa"} <= used
    assert {"schedules.cosine", "schedules.multistep", "augmentations.crop"} <= used


SCALE = {
    "distill": {"sre2l": {"teachers": ["net-a"], "iterations": 2, "augment": ["roll:1"]}},
    "teacher": {
        "net-a": {"training": {"augment": ["crop:1"], "schedule": {"name": "multistep"}}},
    },
    "evaluate": {
        "static": {"training": {"mix": {"name": "cutmix"}, "optimizer": {"name": "timm:lion"}}},
        "fkd": {"loss": {"name": "kl"}, "training": {"epochs": 2, "batch": 32}},
        "dynamic": {
            "training": {
                "augment": ["flip", "dsa"],
                "optimizer": {"name": "adam"},
                "schedule": {"name": "constant"},
            }
        },
    },
    "label": {"fkd": {"teachers": ["net-a"]}},
}
ROWS = [
    {"row": "Random", "method": "random", "labels": "hard"},
    {"row": "INFER", "method": "infer", "labels": "static"},
    {"row": "SRe2L", "method": "sre2l", "labels": "dynamic"},
    {"row": "stored", "method": "random", "labels": "fkd"},
]


@pytest.mark.usefixtures("one_thread")
def test_a_job_loads_no_component_outside_its_code(project, monkeypatch):
    scale = project / "workflow/scales/tiny.yaml"
    changed = merge(yaml.safe_load(scale.read_text()), SCALE)
    changed["evaluate"]["fkd"]["training"] |= {"augment": ["patch-shuffle:2"]}
    scale.write_text(yaml.safe_dump(changed))
    table = project / "workflow/tables/infer/table2.yaml"
    table.write_text(yaml.safe_dump(yaml.safe_load(table.read_text()) | {"rows": ROWS}))
    nodes = Plan(project, read_yaml(project / "params.yaml") | {"students": 1}).missing(["table2"])

    loaded, find = [], registry.module_name
    monkeypatch.setattr(
        registry, "module_name", lambda *names: loaded.append(find(*names)) or loaded[-1]
    )
    seen = {}
    for node in nodes:
        for cached in (parameters.component_name, parameters.parse):
            cached.cache_clear()
        loaded.clear()
        run(node.spec, project / "results/store", "cpu")
        assert set(loaded) <= code(node), node.address
        seen.setdefault(node.spec.stage, set()).update(loaded)
    assert "distillery.training.optimizers.timm" in seen["evaluate"]
    assert "distillery.training.augmentations.dsa" in seen["evaluate"]
    assert "distillery.training.augmentations.patch_shuffle" in seen["label"] & seen["evaluate"]
    assert "distillery.training.augmentations.roll" in seen["distill"]
    assert "distillery.training.schedules.multistep" in seen["teacher"]
