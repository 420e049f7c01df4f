"""The code digest: blind to wording, awake to behaviour, and as small as the imports allow."""

import importlib

import pytest

from distillery.components.registry import KINDS, index
from distillery.plan.types import torch_free_part
from distillery.store import fingerprint as code
from distillery.store import source_text
from helpers.components import forget
from helpers.recipes import RECIPES


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `toy` with a -> b, and c below TYPE_CHECKING."""
    toy = tmp_path / "toy"
    toy.mkdir()
    (toy / "__init__.py").write_text("")
    (toy / "a.py").write_text(
        "from typing import TYPE_CHECKING\nfrom . import b\n"
        "if TYPE_CHECKING:\n    from . import c\n"
    )
    (toy / "b.py").write_text('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    (toy / "c.py").write_text("y = 2\n")
    monkeypatch.setattr(source_text, "ROOT", tmp_path)

    def digest():
        forget()
        return code.code_digest(["toy.a"])

    yield toy, digest
    forget()


def test_comment_docstring_and_layout_do_not_count(package):
    toy, digest = package
    before = digest()
    (toy / "b.py").write_text(
        '"""Other words."""\n\n# why\n'
        "def f( x ):\n    # a comment\n    return (x\n            + 1)\n"
    )
    assert digest() == before


@pytest.mark.parametrize(
    "body",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x - 1\n",
        "def f(y):\n    return y + 1\n",
    ],
)
def test_behaviour_counts_through_imports(package, body):
    toy, digest = package
    before = digest()
    (toy / "b.py").write_text(body)
    assert digest() != before


@pytest.mark.parametrize("form", ["x = {}", "def f(a={}):\n    return a", "f(1, {})"])
def test_constants_of_different_type_differ(package, form):
    """1 == True and 0 == False in Python, and str(1) == "1"; none may stand for another."""
    toy, digest = package
    digests = {}
    for constant in ("1", '"1"', "1.0", "True", "0", "0.0", "False", '""', 'b""', "None", "()"):
        (toy / "b.py").write_text(form.format(constant) + "\n")
        digests[constant] = digest()
    assert len(set(digests.values())) == len(digests)


def test_type_checking_imports_do_not_count(package):
    toy, digest = package
    before = digest()
    assert code.closure(["toy.a"]) == ["toy", "toy.a", "toy.b"]
    (toy / "c.py").write_text("y = 3\n")
    assert digest() == before


def test_packages_on_the_way_to_a_module_count(package):
    toy, digest = package
    (toy / "sub").mkdir()
    (toy / "sub/__init__.py").write_text("")
    (toy / "sub/deep.py").write_text("z = 1\n")
    (toy / "a.py").write_text("from toy.b import f\n")
    (toy / "b.py").write_text("import toy.sub.deep\ndef f(): ...\n")
    before = digest()
    assert code.closure(["toy.a"]) == ["toy", "toy.a", "toy.b", "toy.sub", "toy.sub.deep"]
    (toy / "sub/__init__.py").write_text("print()\n")
    assert digest() != before


def test_import_inside_a_function_counts(package):
    toy, digest = package
    before = digest()
    (toy / "b.py").write_text("def f(x):\n    from toy.c import y\n    return x + 1\n")
    assert digest() != before
    assert "toy.c" in code.closure(["toy.a"])


@pytest.mark.parametrize(
    "stage",
    ["data", "whiten", "embed", "teacher", "distill", "label", "evaluate", "analyse", "table"],
)
def test_stages_do_not_reach_the_planner_the_runner_or_components(stage):
    reached = code.closure([f"distillery.stages.{stage}"])
    kinds = {module for kind in KINDS for module in index(kind).values()}
    assert not [
        m
        for m in reached
        if m.startswith("distillery.plan")
        or m in ("distillery.store.job", "distillery.cli", "distillery.store.fingerprint")
    ]
    # Components come into a closure by the recipe that names them, never by the stage.
    assert not (kinds & set(reached))


@pytest.mark.parametrize(("module", "recipe"), RECIPES)
def test_recipe_read_without_torch_is_the_imported_one(module, recipe):
    real = getattr(importlib.import_module(module), recipe)
    read = getattr(torch_free_part(module), recipe)
    assert {f: str(v.type) for f, v in read.__dataclass_fields__.items()} == {
        f: str(v.type) for f, v in real.__dataclass_fields__.items()
    }
    assert repr(list(read.__dataclass_fields__.values())).replace(read.__module__, "") == repr(
        list(real.__dataclass_fields__.values())
    ).replace(real.__module__, "")
