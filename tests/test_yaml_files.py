"""YAML files: a key that stands twice is refused with both lines, wherever it stands."""

import re

import pytest

from distillery.errors import PlanError
from distillery.plan.plan import Plan
from distillery.plan.yaml_files import read_yaml

TWICE = {
    "at the top": ("a: 1\nb: 2\na: 3\n", "a", 1, 3),
    "nested": ("a:\n  b: 1\n  c: 2\n  b: 3\n", "b", 2, 4),
    "in braces": ("a: {b: 1,\n  b: 2}\n", "b", 1, 2),
    "in a list": ("a:\n  - {b: 1}\n  - c: 1\n    c: 2\n", "c", 3, 4),
    "quoted once": ('a: 1\n"a": 2\n', "a", 1, 2),
    "numbers": ("a: {1: x, 1: y}\n", "1", 1, 1),
}


@pytest.mark.parametrize(("text", "key", "first", "second"), TWICE.values(), ids=TWICE)
def test_double_keys_are_named_with_their_lines(text, key, first, second, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(PlanError) as error:
        read_yaml(file)
    said = str(error.value)
    assert str(file) in said and f"key '{key}'" in said
    assert re.search(rf"line {first} and again on line {second}\b", said)


def test_a_merged_key_may_be_written_over(tmp_path):
    file = tmp_path / "scale.yaml"
    file.write_text("a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\nc: {<<: *base, <<: *base}\n")
    with pytest.raises(PlanError, match="key '<<'"):
        read_yaml(file)
    file.write_text("a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\n")
    assert read_yaml(file) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


def test_a_project_with_a_double_key_does_not_plan(project, edit):
    edit(project / "params.yaml", "evaluate: {}", "evaluate: {}\nstudents: 1")
    with pytest.raises(PlanError, match="key 'students'"):
        Plan(project)


@pytest.mark.parametrize(
    "text", ["a: [1\n", "\ta: 1\n", "a: !!python/object:os.system {}\n", "{" * 5000]
)
def test_malformed_files_are_one_line(text, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match=r"params\.yaml"):
        read_yaml(file)
