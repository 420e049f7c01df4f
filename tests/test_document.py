"""The plan document: written, read back as it was, and refused when it is another one."""

import copy
import hashlib
import json
from dataclasses import replace

import pytest

from distillery.errors import PlanError
from distillery.plan.plan import Plan, write_plan
from distillery.table.document import Place, TableDocument, read_document
from distillery.table.identity import picture_identity
from helpers.tables import cell, changed, document, make_plan


@pytest.fixture
def plan() -> TableDocument:
    return make_plan()


def test_a_document_is_read_as_it_was_written(plan, tmp_path):
    place = Place("digits", None, 0.4, {"gamma": 0, "order": "poco", "jpeg": None, "flip": True})
    plan = changed(plan, 1, place=place, scores={"syn_hard": ("evaluate/a", "evaluate/b")})
    plan = replace(plan, printed={"correlation": 0.76}, axes=("gamma", "order", "jpeg", "flip"))
    file = write_plan(tmp_path / "plan.json", plan.json())
    assert read_document(file) == plan and read_document(file).digest() == plan.digest()
    ipc = [type(one.place.ipc) for one in read_document(file).cells]
    assert ipc == [int, float, int], "a whole number stays one, or the digest would change"


def test_its_digest_is_that_of_its_canonical_json(plan, tmp_path):
    written = json.loads(write_plan(tmp_path / "plan.json", plan.json()).read_text())
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plan.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert replace(plan, digits=2).digest() != plan.digest()
    assert changed(plan, 2, against="Random").digest() != plan.digest()


def test_the_planner_writes_one(project, tmp_path):
    plan = Plan(project)
    written = plan.document("table2")
    assert read_document(plan.write_plan_stamp("table2")) == written
    random, infer = written.cells
    assert (written.table, written.paper, written.paper_name) == ("infer/table2", "infer", "INFER")
    assert (random.row, random.labels, random.counted_as) == ("Random", "hard", "hard")
    assert random.place == Place("digits", "net-a", 5) and random.label == ()
    assert infer.label == (plan.cells("table2")[1].label[0].address,)
    assert infer.paper == Place("imagenet-1k", "resnet18", 10)
    assert (infer.published.mean, infer.comparable) == (28.7, False)
    assert [len(draw) for draw in infer.evaluations] == [2] and infer.scores == {}


def broken(plan: TableDocument, *keys: str | int, **change: object) -> dict:
    """The JSON of a document with a change at the place that `keys` name."""
    values = copy.deepcopy(json.loads(json.dumps(plan.json())))
    place = values
    for key in keys:
        place = place[key]
    for key, value in change.items():
        if value is KeyError:
            del place[key]
        else:
            place[key] = value
    return values


@pytest.mark.parametrize(
    ("keys", "change", "message"),
    [
        ((), {"titel": "x"}, r"p\.titel: unknown key: did you mean 'title'"),
        ((), {"title": KeyError}, r"p: lacks 'title'"),
        ((), {"digits": 1.5}, r"p\.digits = 1\.5: expected int"),
        ((), {"digits": True}, r"p\.digits = True: expected int"),
        ((), {"scores": 1}, r"p\.scores = 1: expected bool"),
        ((), {"axes": "gamma"}, r"p\.axes = 'gamma': expected "),
        ((), {"printed": {"r": "much"}}, r"p\.printed\.r = 'much': expected float"),
        ((), {"cells": None}, r"p\.cells = None: expected "),
        (("shape",), {"rows": [1]}, r"p\.shape\.rows\.0 = 1: expected str"),
        (("cells", 1), {"row": None}, r"p\.cells\.1\.row = None: expected str"),
        (("cells", 1), {"student": "a"}, r"p\.cells\.1\.student: unknown key"),
        (("cells", 0, "place"), {"ipc": KeyError}, r"p\.cells\.0\.place: lacks 'ipc'"),
        (("cells", 0, "published"), {"mean": "10"}, r"p\.cells\.0\.published\.mean = '10': expe"),
        (("cells", 2), {"label": [4]}, r"p\.cells\.2\.label\.0 = 4: expected str"),
        (("cells", 2), {"scores": {"a": "b"}}, r"p\.cells\.2\.scores\.a = 'b': expected "),
    ],
)
def test_another_shape_is_one_line_with_its_place(plan, keys, change, message):
    with pytest.raises(PlanError, match=message) as error:
        TableDocument.parse(broken(plan, *keys, **change), "p")
    assert "`distillery plan --write`" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null"])
def test_a_file_that_is_no_document_is_one_line(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=r"plan\.json: (not a readable plan|expected keys)"):
        read_document(tmp_path / "plan.json")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(PlanError, match="not a readable plan"):
        read_document(tmp_path / "none.json")


def test_a_place_knows_the_axes_that_it_stands_on():
    place = Place.on({"dataset": "digits", "ipc": 5, "gamma": 0.1})
    assert place == Place("digits", None, 5, {"gamma": 0.1})
    assert [place.at(axis) for axis in ("dataset", "student", "ipc", "gamma")] == [
        *("digits", None, 5, 0.1)
    ]
    with pytest.raises(PlanError, match="axis 'gama' does not exist: did you mean 'gamma'"):
        place.at("gama")


def test_the_printed_number_stands_in_this_setting_or_in_the_papers():
    ours, papers = Place("digits", "net-a", 5), Place("imagenet-1k", "resnet18", 10)
    assert cell("a", "random", "hard", place=ours, comparable=True).printed_place == ours
    assert cell("a", "random", "hard", place=ours, paper=papers).printed_place == papers
    assert document([cell("a", "random", "hard")]).shape.rows == ("a",)


def test_a_picture_follows_what_is_drawn_and_not_how_the_table_is_assembled(plan, tmp_path):
    stem = tmp_path / "table2"
    (tmp_path / "table2.csv").write_text("a,b\n")
    plan = replace(plan, figure="accuracy")
    identity = picture_identity(plan, stem)
    assert picture_identity(replace(plan, code="another"), stem) == identity
    assert picture_identity(replace(plan, title="another"), stem)["plan"] != identity["plan"]
    other = picture_identity(replace(plan, figure="similarity"), stem)
    assert other["code"] != identity["code"]
    (tmp_path / "table2.csv").write_text("a,c\n")
    assert picture_identity(plan, stem)["table"] != identity["table"]
    with pytest.raises(PlanError, match="table 'infer/table2' has no figure"):
        picture_identity(replace(plan, figure=None), stem)
