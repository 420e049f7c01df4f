"""What of a module counts: all that can run, as the interpreter itself says, and little more."""

import functools
import itertools
import random
import shutil

import pytest
import yaml

from distillery.components.contracts import CONTRACTS
from distillery.components.registry import KINDS, index
from distillery.plan.plan import Plan
from distillery.plan.settings import merge, read_yaml
from distillery.store import source_text
from distillery.store.definitions import bindings
from distillery.store.fingerprint import code_digest, counted_names, module_digests
from distillery.store.job import run
from distillery.store.source_text import package_modules
from distillery.store.spec import STAGES
from helpers.components import forget, package_copy
from helpers.planning import at
from helpers.rewording import add_unused, functions, reword
from helpers.traced import traced

ROOTS = ["distillery.store.job", "distillery.store.runtime"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Write a package `toy`, and say what counts where its root asks `use` for `entry`."""
    monkeypatch.setattr(source_text, "ROOT", tmp_path)

    def counted(**files: str) -> set[str]:
        shutil.rmtree(tmp_path / "toy", ignore_errors=True)
        (tmp_path / "toy").mkdir()
        files = {"__init__": "", "root": "from toy.use import entry\n", **files}
        for name, text in files.items():
            (tmp_path / "toy" / f"{name}.py").write_text(text)
        forget()
        return {name.removeprefix("toy.") for name in counted_names(["toy.root"])}

    yield counted
    forget()


LAZY = "from __future__ import annotations\n"
TWO = "def f(): ...\ndef g(): ...\n"
# What is asked for, the other files, and what of module `m` counts.
NAMES = {
    "an imported name": ("from toy.m import f\nf()", {"m": TWO}, {"f"}),
    "an imported module": ("from toy import m\nm.f()", {"m": TWO}, {"f"}),
    "a module under another name": ("import toy.m as n\nn.f()", {"m": TWO}, {"f"}),
    "a dotted module": ("import toy.m\ntoy.m.f()", {"m": TWO}, {"f"}),
    "inside a class": ("class r:\n    from toy import m\n    m.f()", {"m": TWO}, {"f"}),
    "through another module": (
        "from toy.n import f\nf",
        {"n": "from toy.m import f\nf", "m": TWO},
        {"f"},
    ),
    "through the package": (
        "from toy import f\nf",
        {"__init__": "from toy.m import f", "m": TWO},
        {"f"},
    ),
    "through a module of a module": (
        "from toy import n\nn.m.f()",
        {"n": "from toy import m", "m": TWO},
        {"f"},
    ),
    "a module handed on": ("from toy import m\nprint(m)", {"m": TWO}, {"f", "g"}),
    "a computed attribute": ("from toy import m\ngetattr(m, 'f')", {"m": TWO}, {"f", "g"}),
    "a star": ("from toy.m import *", {"m": TWO}, {"f", "g"}),
    "an unknown name": ("from toy.m import h\nh", {"m": TWO}, {"f", "g"}),
    "a module's own dictionary": ("from toy import m\nm.__dict__", {"m": TWO}, {"f", "g"}),
    "an import by text": (
        "import importlib\nimportlib.import_module('toy.' + 'm')",
        {"m": TWO},
        {"f", "g"},
    ),
    "a program by name": ("run('-m', 'toy.m')", {"m": TWO}, {"f", "g"}),
    "all subclasses": ("object.__subclasses__()", {"m": "class f: ...\n"}, {"f"}),
    "its own names": (
        "from toy.m import f\nf",
        {"m": "def f():\n    return globals()['g']()\n" + "def g(): ...\n"},
        {"f", "g"},
    ),
    "eval": (
        "from toy.m import f\nf",
        {"m": "def f():\n    eval('g')\ndef g(): ...\n"},
        {"f", "g"},
    ),
    "a default": ("from toy.m import f\nf", {"m": "g = 1\ndef f(x=g): ...\n"}, {"f", "g"}),
    "a base class": (
        "from toy.m import f\nf",
        {"m": "class g: ...\nclass f(g): ...\n"},
        {"f", "g"},
    ),
    "a decorator": (
        "from toy.m import f\nf",
        {"m": "def g(h): ...\n@g\ndef f(): ...\n"},
        {"f", "g"},
    ),
    "a method": (
        "from toy.m import f\nf",
        {"m": "class f:\n    def a(self):\n        g()\ndef g(): ...\n"},
        {"f", "g"},
    ),
    "a global that a function sets": (
        "from toy.m import f\nf",
        {"m": "g = 1\ndef f():\n    global g\n    g = 2\n"},
        {"f", "g"},
    ),
    "a field's type": (
        "from toy.m import f\nf",
        {"m": LAZY + "class g: ...\nclass f:\n    x: g\n"},
        {"f", "g"},
    ),
    "a field's type as text": (
        "from toy.m import f\nf",
        {"m": LAZY + "class g: ...\nclass f:\n    x: 'list[g]'\n"},
        {"f", "g"},
    ),
    "a type within a type": (
        "from toy.m import f\nf",
        {"m": "class g: ...\nf = list['g']\n"},
        {"f", "g"},
    ),
    "an annotation that runs": (
        "from toy.m import f\nf",
        {"m": "class g: ...\ndef f(x: g): ...\n"},
        {"f", "g"},
    ),
    "an annotation that nothing reads": (
        "from toy.m import f\nf",
        {"m": LAZY + "class g: ...\ndef f(x: g) -> g:\n    y: g = x\n"},
        {"f"},
    ),
    "an annotation under an unknown decorator": (
        "from toy.m import f\nf",
        {"m": LAZY + "from x import d\nclass g: ...\n@d\ndef f(x: g): ...\n"},
        {"f", "g"},
    ),
    "a try": (
        "from toy.n import f\nf",
        {"n": "try:\n    from toy.m import f\nexcept ImportError:\n    f = None\n", "m": TWO},
        {"f"},
    ),
    "below TYPE_CHECKING": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.m import f\n",
        {"m": TWO},
        set(),
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_what_a_use_leads_to(toy, case):
    use, files, expected = NAMES[case]
    names = toy(use=f"{use}\ndef entry(): ...\n", **files)
    assert {name for name in "fg" if f"m.{name}" in names} == expected


# What a statement in a module that is only imported does: whether it counts although nobody asks.
DATACLASS = "from dataclasses import dataclass, field\n@dataclass\nclass P:\n"
EFFECTS = {
    "x = 1": False,
    "x = -1 + (4 << 30)": False,
    "x: int = 1": False,
    "import os\nx = os.sep": False,
    "import re\nx = re.compile('a')": False,
    "from pathlib import Path\nx = Path(__file__).parent": False,
    "x = {1: (2, [3])} | {4: 5}": False,
    "x = lambda: print()": False,
    "x = sorted(i for i in (1, 2))": False,
    "def x(a=1): print()": False,
    "import functools\n@functools.cache\ndef x(): ...": False,
    "class x:\n    y = 1\n    def z(self): print()": False,
    "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass x:\n    y: int = 1": False,
    "from typing import NamedTuple\nclass P(NamedTuple):\n    a: int\nx = P(1)": False,
    "from enum import Enum\nclass x(Enum):\n    A = 1": False,
    "x = print()": True,
    "x = [print()]": True,
    "x = open('f')": True,
    "x = a >> b": True,
    "x += 1": True,
    "a.b = 1": True,
    "a[0] = 1": True,
    "del a": True,
    "for x in (): ...": True,
    "if a: x = 1": True,
    "def x(a=print()): ...": True,
    "@register\ndef x(): ...": True,
    "@register(1)\ndef x(): ...": True,
    "class x:\n    print()": True,
    "class x(metaclass=M): ...": True,
    "class x(Unknown): ...": True,
    "class P:\n    def __init_subclass__(cls): ...\nclass x(P): ...": True,
    "class P:\n    def __init__(self): ...\nx = P()": True,
    "class P:\n    def __set_name__(self, *_): ...\nclass x:\n    y = P()": True,
    "def cache(f): ...\n@cache\ndef x(): ...": True,
    "def len(f): ...\nx = len(1)": True,
    f"{DATACLASS}    def __post_init__(self): ...\nx = P()": True,
    f"{DATACLASS}    a: int = field(default_factory=f)\nx = P()": True,
    f"{DATACLASS}    a: list = field(default_factory=list)\nx = P()": False,
    "def __getattr__(name): ...": True,
}


@pytest.mark.parametrize("statement", EFFECTS)
def test_a_statement_counts_unasked_exactly_when_it_may_have_an_effect(toy, statement):
    def digest(text):
        toy(root="from toy.m import f\n", m=f"def f(): ...\n{text}")
        return code_digest(["toy.root"])

    assert (digest(statement) != digest("")) == EFFECTS[statement]


def test_which_library_is_imported_counts_and_which_part_of_the_standard_one_does_not(toy):
    def digest(text):
        toy(root="from toy.m import f\n", m=f"def f(): ...\n{text}")
        return code_digest(["toy.root"])

    assert digest("import os") == digest("import ast") == digest("") != digest("import torch")


def test_where_a_name_comes_from_counts(toy):
    files = {"a": TWO, "b": TWO}
    text = "from toy.a import f\nfrom toy.b import g\nf(), g()"
    toy(root="from toy.m import h", m=f"def h():\n    {text.splitlines()[-1]}\n{text}", **files)
    before = code_digest(["toy.root"])
    swapped = text.replace("a import f", "b import f").replace("b import g", "a import g")
    toy(root="from toy.m import h", m=f"def h():\n    {text.splitlines()[-1]}\n{swapped}", **files)
    assert code_digest(["toy.root"]) != before


def test_modules_of_which_nothing_counts_have_no_digest(toy):
    toy(root="from toy.m import f", m=TWO + "from toy import n", n=TWO)
    assert set(module_digests(["toy.root"])) == {"toy.root", "toy.m"}


# --- the package itself ---------------------------------------------------------------------------


@functools.cache
def roots_in_use() -> list[tuple[str, ...]]:
    """The roots of all artefacts of the demo, and those of the tables."""
    plan = at("demo")
    list(plan.growing())
    found = {tuple(node.spec.roots) for node in plan.nodes.values()}
    figures = set(index("figure").values())
    pictures = {("distillery.stages.picture", figure) for figure in figures}
    return sorted({*found, ("distillery.stages.table",), *pictures})


def digests() -> dict[tuple[str, ...], str]:
    return {roots: code_digest(roots) for roots in roots_in_use()}


def test_an_unused_definition_in_any_module_changes_no_digest(tmp_path):
    before = digests()
    assert len(before) > 100
    with package_copy(tmp_path) as package:
        for file in package.rglob("*.py"):
            add_unused(file)
        forget()
        assert digests() == before


def test_a_change_of_a_definition_changes_the_digests_that_count_it_and_no_others(tmp_path):
    before = digests()
    names = {roots: counted_names(roots) for roots in before}
    stream = random.Random(0)
    with package_copy(tmp_path) as package:
        files = stream.sample(sorted(package.rglob("*.py")), 20)
        for file in files:
            text = file.read_text()
            if not (found := functions(file)):
                continue
            chosen = stream.choice(found)
            module = ".".join(file.relative_to(tmp_path).with_suffix("").parts)
            reword(file, chosen.name)
            forget()
            moved = {roots for roots, digest in digests().items() if digest != before[roots]}
            assert moved == {r for r in before if f"{module}.{chosen.name}" in names[r]}, module
            file.write_text(text)


SCALE = {
    "networks": {"net-in": {"name": "convnet", "width": 4, "norm": "instance"}},
    "distill": {
        "sre2l": {"teachers": ["net-a"], "iterations": 2, "augment": ["roll:1"]},
        "cda": {"teachers": ["net-a"], "iterations": 2, "augment": ["batch-resized-crop"]},
        "rded": {"teachers": ["net-a"], "pool": 20},
        "herding": {"teachers": ["net-a"]},
        "bptt": {
            "network": "net-in",
            **{"meta_steps": 2, "batch": 50, "window": 2, "inner_steps": 2},
            **{"lr": 0.01, "inner_lr": 0.01, "whitening": "none", "snapshots": 1},
        },
    },
    "teacher": {"net-a": {"training": {"schedule": {"name": "multistep"}}}},
    "evaluate": {
        "static": {"training": {"mix": {"name": "cutmix"}, "optimizer": {"name": "adamw"}}},
        "dynamic": {"training": {"augment": ["dsa"], "optimizer": {"name": "adam"}}},
        "fkd": {"loss": {"name": "mse+ce", "weight": 0.1}, "training": {"epochs": 2, "batch": 32}},
    },
    "label": {"fkd": {"teachers": ["net-a"]}},
}
ROWS = [
    {"row": "Random", "method": "random", "labels": "hard"},
    {"row": "INFER", "method": "infer", "labels": "static"},
    {"row": "SRe2L", "method": "sre2l", "labels": "dynamic"},
    {"row": "CDA", "method": "cda", "labels": "dynamic"},
    {"row": "RDED", "method": "rded", "labels": "dynamic"},
    {"row": "Herding", "method": "herding", "labels": "hard"},
    {"row": "BPTT", "method": "bptt", "labels": "hard"},
    {"row": "stored", "method": "random", "labels": "fkd"},
]


def code(node) -> set[str]:
    """What counts of an artefact, and of its inputs, whose ids are part of its own."""
    return counted_names(node.spec.roots).union(*(code(up) for up in node.upstream()))


@pytest.mark.usefixtures("one_thread")
def test_every_function_that_a_job_runs_counts(project):
    """The interpreter says which functions run; each must be in the code of the artefact."""
    scale = project / "workflow/scales/tiny.yaml"
    scale.write_text(yaml.safe_dump(merge(yaml.safe_load(scale.read_text()), SCALE)))
    table = project / "workflow/tables/infer/table2.yaml"
    table.write_text(yaml.safe_dump(yaml.safe_load(table.read_text()) | {"rows": ROWS}))
    nodes = Plan(project, read_yaml(project / "params.yaml") | {"students": 1}).missing(["table2"])
    assert {node.spec.stage for node in nodes} == {
        *("data", "teacher", "distill", "label", "evaluate")
    }
    for node in nodes:
        with traced(list(STAGES)) as ran:
            run(node.spec, project / "results/store", "cpu")
        assert len(ran) > 10, node.address
        assert ran <= code(node), node.address


def test_all_that_contracts_name_counts_of_a_component():
    members = {
        name
        for contract in CONTRACTS.values()
        for name in {*vars(contract), *contract.__annotations__}
        if not name.startswith("_")
    }
    assert {"distill", "loss", "Recipe", "apply", "draw"} <= members
    for module in set(itertools.chain.from_iterable(index(kind).values() for kind in KINDS)):
        asked = {*members, "expand", "make", "seeds"} & bindings(module).keys()
        assert asked <= {name.removeprefix(f"{module}.") for name in counted_names([module])}


def test_every_module_of_the_package_can_be_read():
    """No construct of the package defeats the reading: each digest exists, and none is of all."""
    everything = set(package_modules("distillery"))
    for roots in roots_in_use():
        assert len(module_digests(roots)) < len(everything) / 3
