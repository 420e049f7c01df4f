"""Names that libraries give their networks, weights and optimisers, read off their source text.

The planner must not import torch, and importing timm takes seconds. So the names are found in the
text of the installed files; a test holds them against what the libraries themselves list. Where a
library is not installed on the planning machine, or its files look otherwise, nothing is known and
nothing is refused: the job then says it.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distillery.components.fields import InLibrary
from distillery.errors import PlanError, nearest

MOST_LISTED = 25


def _near(name: str, known: Iterable[str]) -> str:
    """A hint as of `nearest`; of long lists it names a few alike in place of the first ones."""
    names = sorted(known)
    if len(names) <= MOST_LISTED:
        return nearest(name, names)
    alike = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, alike))}?" if alike else f"{len(names)} are known"


@functools.cache
def _folder(library: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


@functools.cache
def _text(library: str, pattern: str) -> str:
    """The files of a library that match `pattern`, one after the other; empty where none do."""
    folder = _folder(library)
    try:
        files = sorted(folder.glob(pattern)) if folder else []
        return "\n".join(file.read_text(encoding="utf-8") for file in files)
    except (OSError, UnicodeDecodeError):
        return ""


# --- networks

_REGISTERED = r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)\("


@functools.cache
def timm_networks() -> dict[str, str | None]:
    """Every architecture of timm; an older name with the present one, or None where it is gone."""
    text = _text("timm", "models/*.py")
    found: dict[str, str | None] = {name: name for name in re.findall(_REGISTERED, text, re.M)}
    for block in re.findall(r"register_model_deprecations\(__name__, \{(.*?)\}\)", text, re.S):
        for old, gone, new in re.findall(r"'(\w+)'\s*:\s*(?:(None)|'([^']+)')", block):
            found.setdefault(old, None if gone else new)
    return found


@functools.cache
def torchvision_networks() -> dict[str, str]:
    """Every classifier of torchvision, and the class of its weights."""
    text = _text("torchvision", "models/*.py")
    whole = _REGISTERED + r".*?weights: Optional\[(\w+)\]"
    return dict(re.findall(whole, text, re.M | re.S))


# --- weights


@functools.cache
def torchvision_weights() -> list[str]:
    """Every published set of weights of a classifier, as `ResNet18_Weights.IMAGENET1K_V1`.

    Those of features alone, whose last layer is none, are left out.
    """
    found = []
    for part in re.split(r"^(?=class )", _text("torchvision", "models/*.py"), flags=re.M):
        if name := re.match(r"class (\w+)\(WeightsEnum\):", part):
            body = re.split(r"^\S", part.partition("\n")[2], maxsplit=1, flags=re.M)[0]
            members = re.split(r"^    (\w+) = ", body, flags=re.M)[1:]
            found += [
                f"{name[1]}.{one}"
                for one, value in zip(members[::2], members[1::2], strict=True)
                if '"categories": None' not in value
            ]
    return found


IMAGENET_CLASSES = 1000  # of all weights of torchvision's classifiers


def check_weights(weights: str, network: str, classes: int | None) -> None:
    """Refuse published weights that do not exist or cannot fit.

    Args:
        weights: as `ResNet18_Weights.IMAGENET1K_V1`.
        network: the component that shall have them.
        classes: of the data set; None: not known.

    Raises:
        PlanError: it is so.
    """
    known = torchvision_weights()
    if not known:
        return
    if weights not in known:
        raise PlanError(f"torchvision has no such weights of a classifier: {_near(weights, known)}")
    library, _, model = network.partition(":")
    wanted = torchvision_networks().get(model) if library == "torchvision" else None
    if wanted and weights.partition(".")[0] != wanted:
        own = [name for name in known if name.startswith(f"{wanted}.")]
        raise PlanError(f"are not of network '{network}': {_near(weights, own)}")
    if library == "timm":
        raise PlanError(f"are torchvision's and do not fit network '{network}'; train it")
    if classes not in (None, IMAGENET_CLASSES):
        raise PlanError(
            f"know ImageNet's {IMAGENET_CLASSES} classes, the data set has {classes}: "
            "leave `weights` out, so that the teacher is trained"
        )


# --- optimisers


@functools.cache
def timm_optimizers() -> dict[str, tuple[bool, str]]:
    """Every optimiser of timm: whether it needs second derivatives, and the package it lies in."""
    text = _text("timm", "optim/_optim_factory.py")
    found = {}
    for part in text.split("OptimInfo(")[1:]:
        if name := re.match(r"\s*(?:name=)?'(\w+)'", part):
            package = re.match(r"[^,]*,\s*(?:opt_class=)?'(\w+)\.", part)
            found[name[1]] = ("second_order=True" in part, package[1] if package else "")
    for alias, name in re.findall(r"register_alias\('(\w+)', '(\w+)'\)", text):
        if name in found:
            found[alias] = found[name]
    return found


def _check_timm_optimizer(name: str) -> None:
    known, base = timm_optimizers(), name.removeprefix("lookahead_")
    if not known:
        return
    if base not in known:
        raise PlanError(f"timm has no optimizer '{name}': {_near(name, known)}")
    second_order, package = known[base]
    if second_order:
        raise PlanError(f"optimizer 'timm:{name}' needs second derivatives; choose another")
    if package and _folder("timm") and _folder(package) is None:
        raise PlanError(f"optimizer 'timm:{name}' needs the package '{package}'; choose another")


# --- names of components that belong to a library


def _check_timm_network(name: str) -> None:
    known, (base, _, _) = timm_networks(), name.partition(".")
    if known and base not in known:
        raise PlanError(f"timm has no network '{name}': {_near(name, known)}")
    if known and known[base] is None:
        raise PlanError(f"timm has no network '{name}' any more: {_near(name, known)}")


def _check_torchvision_network(name: str) -> None:
    known = torchvision_networks()
    if known and name not in known:
        raise PlanError(f"torchvision has no classifier '{name}': {_near(name, known)}")


@functools.cache
def torchvision_datasets() -> tuple[str, ...]:
    """Every data set of torchvision."""
    text = _text("torchvision", "datasets/__init__.py")
    found = re.search(r"^__all__ = \((.*?)^\)", text, re.M | re.S)
    return tuple(re.findall(r'"(\w+)"', found[1])) if found else ()


def _check_torchvision_dataset(name: str) -> None:
    known = torchvision_datasets()
    if known and name not in known:
        raise PlanError(f"torchvision has no data set '{name}': {_near(name, known)}")


_CHECKS: dict[tuple[str, str], Callable[[str], None]] = {
    ("network", "timm"): _check_timm_network,
    ("network", "torchvision"): _check_torchvision_network,
    ("optimizer", "timm"): _check_timm_optimizer,
    ("source", "torchvision"): _check_torchvision_dataset,
}


def check_library_name(kind: str, name: str) -> None:
    """Refuse `library:name` where the library is installed and has no such name.

    Args:
        kind: one of `registry.KINDS`.
        name: of a component; of another form than `library:name`, nothing is looked up.

    Raises:
        PlanError: it is so, with the nearest name that there is.
    """
    library, _, own = name.partition(":")
    if check := _CHECKS.get((kind, library)):
        check(own)


# --- open_clip


@functools.cache
def open_clip_models() -> dict[str, bool]:
    """Every model of open_clip, and whether it is of the quickgelu kind."""
    folder, found = _folder("open_clip"), {}
    for file in sorted((folder / "model_configs").glob("*.json")) if folder else []:
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
            found[file.stem] = bool(config.get("quick_gelu", False))
    return found


@functools.cache
def open_clip_weights() -> dict[str, dict[str, bool]]:
    """By model the names of its published weights, and whether each is of the quickgelu kind."""
    text = _text("open_clip", "pretrained.py")
    try:
        assigned = {
            node.targets[0].id: node.value
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        listed = assigned["_PRETRAINED"]
        pairs = zip(listed.keys, listed.values, strict=True) if isinstance(listed, ast.Dict) else ()
        found = {
            ast.literal_eval(model): _tags(assigned[one.id] if isinstance(one, ast.Name) else one)
            for model, one in pairs
            if model is not None
        }
    except (SyntaxError, KeyError, ValueError, AttributeError):
        return {}
    # As open_clip does below its table.
    quick = {
        model: {tag: True for tag, is_quick in tags.items() if is_quick}
        for model, tags in found.items()
    }
    return found | {f"{model}-quickgelu": tags for model, tags in quick.items() if tags}


def _tags(call: Any) -> dict[str, bool]:
    """Of `dict(openai=_pcfg(..., quick_gelu=True), ...)`."""
    return {
        one.arg: any(
            option.arg == "quick_gelu" and ast.literal_eval(option.value)
            for option in one.value.keywords
        )
        for one in call.keywords
    }


def _check_clip_model(values: Mapping[str, Any], field: str) -> None:
    known, name = open_clip_models(), values[field]
    if known and name not in known:
        raise PlanError(f"open_clip has no such model: {_near(name, known)}")


def _check_clip_weights(values: Mapping[str, Any], field: str) -> None:
    """Weights of another kind of activation than the model's give wrong numbers."""
    models, tables, model = open_clip_models(), open_clip_weights(), values["model"]
    if not tables or model not in models:
        return
    tag = str(values[field]).lower().replace("-", "_")  # as open_clip reads it
    known = tables.get(model, {})
    fitting = [name for name, quick in known.items() if quick == models[model]]
    if tag not in known:
        raise PlanError(f"open_clip has no such weights for model '{model}': {_near(tag, fitting)}")
    if tag not in fitting:
        kind = model.removesuffix("-quickgelu") if models[model] else f"{model}-quickgelu"
        other = f"use model '{kind}'" if kind in models else f"use others {_near('', fitting)}"
        raise PlanError(f"were trained with another activation than model '{model}' has: {other}")


_CATALOGUES: dict[str, Callable[[Mapping[str, Any], str], None]] = {
    "open_clip models": _check_clip_model,
    "open_clip weights": _check_clip_weights,
}


def check_in_library(mark: InLibrary, values: Mapping[str, Any], field: str) -> None:
    """Refuse the value of a field that is marked as a name of a library's.

    Raises:
        PlanError: the library is installed and has no such name; the message lacks the place.
    """
    if not (mark.unless and values.get(mark.unless)):
        _CATALOGUES[mark.catalogue](values, field)
