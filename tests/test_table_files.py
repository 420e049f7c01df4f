"""What a table file may say: the labels of a row."""

import pytest

from distillery.errors import PlanError
from distillery.plan.models import checked
from distillery.plan.plan import Plan
from distillery.plan.table_files import check_table
from distillery.plan.table_models import Row, Table
from helpers.project import ROOT

TABLE = {"title": "a table", "columns": ["student", "ipc"]}


def row(labels: object, **keys: object) -> Row:
    rows = [{"row": "one", "method": "random", "labels": labels, **keys}]
    return checked(Table, TABLE | {"rows": rows}, "t.yaml").rows[0]


def test_the_short_form_names_kind_recipe_and_protocol_at_once():
    found = row("static")
    assert found == row({"kind": "static", "recipe": "static"}) == row({"kind": "static"})
    assert (found.labels.kind, found.labels.recipe, found.evaluation) == ("static",) * 3


def test_the_long_form_tells_kind_and_recipe_apart():
    found = row({"kind": "dynamic", "recipe": "gift"})
    assert (found.labels.kind, found.labels.recipe) == ("dynamic", "gift")
    assert found.evaluation == "dynamic", "the protocol follows the kind, not the recipe"
    assert row({"kind": "dynamic", "recipe": "gift"}, protocol="gift-kl").evaluation == "gift-kl"


@pytest.mark.parametrize(
    ("labels", "keys", "message"),
    [
        (
            "dynamic",
            {"label": "gift"},
            r"t\.yaml\.rows\.0\.label: is called .labels: \{kind: \.\.\., recipe: ",
        ),
        (
            {"kind": "dynamic", "recipee": "gift"},
            {},
            r"t\.yaml\.rows\.0\.labels\.recipee: unknown key: did you mean 'recipe'",
        ),
        ({"recipe": "gift"}, {}, r"t\.yaml\.rows\.0\.labels\.kind: is required"),
        (4, {}, r"t\.yaml\.rows\.0\.labels = 4: "),
        ({"kind": 4}, {}, r"t\.yaml\.rows\.0\.labels\.kind = 4: "),
        (
            {"kind": "static"},
            {"protocoll": "x"},
            r"protocoll: unknown key: did you mean 'protocol'",
        ),
    ],
)
def test_wrong_rows_are_one_line(labels, keys, message):
    with pytest.raises(PlanError, match=message) as error:
        row(labels, **keys)
    assert "\n" not in str(error.value)


def test_a_recipe_of_another_name_is_the_one_that_is_planned(project, edit):
    edit(
        project / "workflow/scales/tiny.yaml",
        "  static: {teachers: [net-a, net-b]}",
        "  static: {teachers: [net-a, net-b]}\n  alone: {teachers: [net-b]}",
    )
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "labels: static",
        "labels: {kind: static, recipe: alone}",
    )
    position = Plan(project).cells("table2")[1]
    assert position.label[0].spec.recipe["name"] == "static"
    assert [node.spec.label for node in position.label[0].inputs["teachers"]] == ["digits-net-b"]


def test_a_table_without_a_budget_is_one_line(project, edit):
    edit(project / "workflow/tables/infer/table2.yaml", "[student, ipc]", "[student]")
    with pytest.raises(PlanError, match=r"table2\.yaml\.columns: lack the axis 'ipc', on which"):
        Plan(project).document("table2")


@pytest.mark.parametrize("field", ["only", "comparable"])
def test_values_of_an_axis_that_the_table_lacks_are_named(field):
    row = {"row": "one", "method": "random", "labels": "hard", field: {"studnet": ["a"]}}
    rows = [row | ({"because": "another network"} if field == "comparable" else {})]
    table = checked(Table, TABLE | {"rows": rows}, "t.yaml")
    with pytest.raises(PlanError, match=rf"row 'one': {field}\.studnet: no such axis: .*'student'"):
        check_table(table, ROOT, "t.yaml")


def test_a_printed_number_that_is_not_one_alone_names_the_row(project, edit):
    """GIFT's Table 5 prints a number for each optimiser; the row asks for none of them."""
    table = (
        "title: t\npublished: gift_table5.csv\npanel: dataset\ncolumns: [student, ipc, optimizer]\n"
        "axes: {optimizer: {published: true, values: {plain: {}}}}\n"
        "paper: {dataset: [cifar100], student: [convnet], ipc: [10], optimizer: [null]}\n"
        "rows: [{row: Sets, method: datm, labels: static, measured: false}]\n"
    )
    (project / "workflow/tables/gift/table5.yaml").write_text(table)
    axes = "  gift/table5: {dataset: [digits], student: [net-a], ipc: [5], optimizer: [plain]}\n"
    edit(project / "workflow/scales/tiny.yaml", "tables:\n", "tables:\n" + axes)
    with pytest.raises(
        PlanError, match=r"tables/gift/table5.yaml: row 'Sets': gift table 5 prints"
    ):
        Plan(project).cells("gift/table5")
