"""Keys of older files are refused with the name that they have now, as CHANGELOG.md lists them."""

import re

import pytest

from distillery.errors import PlanError
from distillery.store.spec import Spec
from helpers.planning import planned
from helpers.project import ROOT

LISTED = dict(
    pair
    for old, new in re.findall(
        r"^  \| (`[a-z_`, ]+`)[^|]* \| (`[a-z_`, ]+`) \|$",
        (ROOT / "CHANGELOG.md").read_text(),
        re.M,
    )
    for pair in zip(*(re.findall(r"`(\w+)`", cell) for cell in (old, new)), strict=True)
)
RENAMED = {
    "facts": "expected",
    "at_ipc": "per_ipc",
    "at_student": "per_student",
    "stand_ins": "network_aliases",
    "together": "parallel_groups",
    "longest": "inner_steps",
    "offset": "window_start",
    "of_each": "step_ipc",
    "chosen": "step_classes",
    "repeats": "students",
}


def test_the_changelog_lists_them():
    assert LISTED == RENAMED


@pytest.mark.parametrize("old", ["at_ipc", "at_student", "together"])
def test_keys_of_recipes(project, edit, old):
    edit(project / "workflow/scales/tiny.yaml", "alpha: 1.0,", f"alpha: 1.0, {old}: {{}},")
    with pytest.raises(PlanError, match=rf"infer\.{old}: is called '{RENAMED[old]}' now"):
        planned(project).cells("infer/table2")


def test_keys_of_a_data_set(project, edit):
    edit(project / "workflow/scales/tiny.yaml", "    expected: {", "    facts: {")
    with pytest.raises(PlanError, match=r"digits\.facts: is called 'expected' now"):
        planned(project)


def test_a_key_of_a_data_set_in_params(project):
    with pytest.raises(PlanError, match=r"digits\.facts: is called 'expected' now"):
        planned(project, datasets={"digits": {"facts": {}}}).cells("infer/table2")


def test_a_key_of_params(project):
    with pytest.raises(PlanError, match=r"^params\.yaml\.repeats: is called 'students' now"):
        planned(project, repeats=3)


def test_a_key_of_a_scales_block_in_params(project):
    with pytest.raises(PlanError, match=r"scales\.tiny\.repeats: is called 'students' now"):
        planned(project, scales={"tiny": {"repeats": 3}})


def test_a_key_of_a_scale(project, edit):
    edit(project / "workflow/scales/tiny.yaml", "networks:\n", "stand_ins: {}\nnetworks:\n")
    with pytest.raises(PlanError, match=r"tiny\.yaml\.stand_ins: is called 'network_aliases' now"):
        planned(project)


@pytest.mark.parametrize("old", ["longest", "offset", "of_each", "chosen"])
def test_keys_of_the_unrolled_methods(project, edit, old):
    block = f"  rat-bptt: {{network: net-a, meta_steps: 2, window: 2, {old}: 3}}\n"
    edit(project / "workflow/scales/tiny.yaml", "  random: {}\n", f"  random: {{}}\n{block}")
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "method: random, labels: hard",
        "method: rat-bptt, labels: hard",
    )
    with pytest.raises(PlanError, match=rf"rat-bptt\.{old}: is called '{RENAMED[old]}' now"):
        planned(project).cells("infer/table2")


@pytest.mark.parametrize(
    ("field", "before", "other"),
    [("precision", "fp32", "bf16"), ("layers", "torch", "explicit"), ("graph_gb", 0.0, 0.5)],
)
def test_a_field_that_came_later_leaves_the_key_of_what_was_done_before(field, before, other):
    def key(stage="distill", **method):
        recipe = {"method": {"name": "m", **method}}
        return Spec(stage, "label", recipe, {}, [], "code").key({})

    assert key(**{field: before}) == key() != key(**{field: other})
    assert key(other=None) != key()
    assert key("label", **{field: before}) != key("label")
