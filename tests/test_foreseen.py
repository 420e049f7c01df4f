"""What a job would refuse is said while planning: recipes against budget, data and other parts."""

import pytest
import yaml

from distillery.errors import PlanError
from distillery.plan.plan import Plan
from helpers import wide

POSTER = "podd/table1"
# Changes of params.yaml, and what the one line must hold.
CASES = {
    "more patches across than pixels": (
        "distill: {podd: {patch_grid: [81, 1]}}",
        ["params.yaml.distill.podd.patch_grid = [81, 1]", "at most 80 columns"],
    ),
    "more patches down than pixels": (
        "distill: {podd: {patch_grid: [1, 81]}}",
        ["distill.podd.patch_grid", "80 rows"],
    ),
    "a poster beyond the budget": (
        "distill: {podd: {size: [100, 100]}}",
        ["params.yaml.distill.podd.size = [100, 100]", "640 px in all"],
    ),
    "a poster smaller than a patch": ("distill: {podd: {size: [80, 7]}}", ["sides of 8 px"]),
    "classes without a cell": (
        "distill: {podd: {class_grid: [3, 3]}}",
        ["params.yaml.distill.podd.class_grid = [3, 3]", "each of 10"],
    ),
    "an order that is none": (
        "distill: {podd: {order: poko}}",
        ["params.yaml.distill.podd.order = 'poko'", "poco, given, or random:0"],
    ),
    "an order without its seed": ("distill: {podd: {order: 'random:'}}", ["'random:'"]),
    "an order with a seed too many": ("distill: {podd: {order: 'given:1'}}", ["'given:1'"]),
    "an order without embeddings": (
        "distill: {podd: {embedding: none}}",
        ["distill.podd.order = 'poco': needs embedding"],
    ),
    "labels of the reference on posters of classes": (
        "distill: {podd: {label_shape: reference, posters: per-class}}",
        ["params.yaml.distill.podd.label_shape = 'reference'"],
    ),
    "a network with a state": (
        "networks: {convnet-in16: {norm: batch}}",
        ["distill.rat-bptt.network", "has batch normalisation", "norm 'instance'"],
    ),
    "a network of the method that pools too much": (
        "networks: {convnet-in16: {depth: 4}}",
        ["params.yaml.networks.convnet-in16.depth = 4"],
    ),
}
MATCHED = {
    "sre2l": ["teachers", "'convnet-w32' has no batch normalisation", "'sre2l' matches"],
    "infer": ["teachers", "has no batch normalisation", "'infer' matches"],
}


@pytest.fixture
def root(tmp_path):
    return wide.make_wide(tmp_path)


def refused(root, change: str, *tables: str) -> str:
    file = root / wide.PARAMS
    found = yaml.safe_load(file.read_text()) | yaml.safe_load(change)
    file.write_text(yaml.safe_dump(found))
    with pytest.raises(PlanError) as error:
        Plan(root).missing(tables)
    return str(error.value)


@pytest.mark.parametrize(("change", "words"), CASES.values(), ids=CASES)
def test_what_a_poster_cannot_be(root, change, words):
    message = refused(root, change, POSTER)
    assert all(word in message for word in words), message


BORDERS = ["patch_grid: [80, 80]", "size: [80, 8]", "class_grid: [10, 1]", "order: 'random:7'"]


@pytest.mark.parametrize("fields", BORDERS)
def test_what_a_poster_just_can_be(root, edit, fields):
    grid = f"{{{POSTER}: {{dataset: [digits], student: [convnet-in16], ipc: [1.0]}}}}"
    change = f"{{distill: {{podd: {{{fields}}}}}, grid: {grid}}}"
    (root / wide.PARAMS).write_text(
        yaml.safe_dump(yaml.safe_load((root / wide.PARAMS).read_text()) | yaml.safe_load(change))
    )
    assert Plan(root).missing([POSTER])


@pytest.mark.parametrize(("method", "words"), MATCHED.items())
def test_teachers_without_the_statistics_that_are_matched(root, method, words):
    scale = yaml.safe_load((root / wide.SCALE).read_text())
    for network in ("convnet-w32", "convnet-w16"):
        scale["networks"][network]["norm"] = "instance"
    (root / wide.SCALE).write_text(yaml.safe_dump(scale))
    rows = "[SRe2L]" if method == "sre2l" else "[INFER]"
    message = refused(root, f"grid: {{table2: {{rows: {rows}}}}}", "table2")
    assert all(word in message for word in words) and wide.SCALE in message, message
    weight = {"sre2l": "r_bn", "infer": "alpha"}[method]
    change = {"distill": {method: {weight: 0.0}}, "grid": {"table2": {"rows": [rows.strip("[]")]}}}
    Plan(root, yaml.safe_load((root / wide.PARAMS).read_text()) | change).missing(["table2"])


def test_cda_schedules_its_crop(root, edit):
    edit(
        root / wide.TABLE,
        "method: sre2l, labels: {kind: dynamic",
        "method: cda, labels: {kind: dynamic",
    )
    change = "{distill: {cda: {augment: ['roll:1']}}, grid: {table2: {rows: [SRe2L]}}}"
    message = refused(root, change, "table2")
    assert message.startswith("params.yaml.distill.cda.augment = ['roll:1']: CDA schedules")


ANALYSES = {
    "compensators": ("random", {}, "looks at sets with compensators, method 'random' has none"),
    "poster": ("infer", {}, "looks at sets with poster, method 'infer' has none"),
    "convergence": ("rat-bptt", {"distill": {"rat-bptt": {"snapshots": 1}}}, "one state only"),
    "continual": ("random", {"analyse": {"continual": {"steps": 10}}}, "steps = 10: a step needs"),
    "similarity": ("random", {"ipc": 1}, "needs pairs of instances"),
}


@pytest.mark.parametrize(("name", "case"), ANALYSES.items())
def test_an_analysis_of_a_set_that_it_cannot_look_at(root, name, case):
    """Analyses run last, when everything else has been made."""
    method, change, words = case
    change = dict(change)
    grid = {"dataset": ["digits"], "student": ["convnet-w16"], "ipc": [change.pop("ipc", 5)]}
    row = {"row": "x", "method": method, "labels": "hard", "protocol": "podd-hard"}
    table = {"title": "t", "analysis": name, "columns": ["student", "ipc"], "rows": [row]}
    (root / "workflow/tables/infer/own.yaml").write_text(yaml.safe_dump(table))
    scale = yaml.safe_load((root / wide.SCALE).read_text())
    scale["tables"]["infer/own"] = grid
    (root / wide.SCALE).write_text(yaml.safe_dump(scale))
    message = refused(root, yaml.safe_dump(change), "infer/own")
    start = f"workflow/tables/infer/own.yaml: row 'x': analysis '{name}'"
    assert message.startswith(start) and words in message, message
