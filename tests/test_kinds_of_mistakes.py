"""Mistakes in settings by their kind: each is one line, said while planning, and writes nothing.

A row is a file, the keys of a value in it, a wrong value, and what the line must name; the next
case is one row. The tables of other kinds of mistakes are listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from distillery.errors import PlanError
from distillery.plan.cost import Estimator
from distillery.plan.plan import Plan
from helpers import wide
from helpers.wide import AXES, PAPER, PARAMS, SCALE, SWEEP, TABLE

OTHER = {"source": "sklearn:digits"}
EPOCHS = {"training": {"epochs": 3}}
TWICE = ["convnet-w16", "convnet-w16"]

# Kind of mistake: file, keys, wrong value, what the line says.
MISTAKES: dict[str, list[tuple[str, str, Any, str]]] = {
    "a path where a name stands": [
        (PARAMS, "scale", "../scales/wide", "params.yaml.scale = '../scales/wide': "),
        (PARAMS, "scale", "", "params.yaml.scale = '': "),
        (PARAMS, "paper", "../infer", "params.yaml.paper = '../infer': no such paper"),
        (PARAMS, "tables", ["infer/../infer/table2"], "params.yaml.tables: 'infer/../infer/"),
        (TABLE, "published", "../published/infer_table2.csv", "did you mean 'infer_table2.csv'"),
        (PARAMS, "datasets.a/b", OTHER, "params.yaml.datasets.a/b = 'a/b': write up to 60 letters"),
        (PARAMS, "networks...", {"name": "convnet"}, "params.yaml.networks... = '..': write up to"),
        (PARAMS, "networks.a\nb", {"name": "convnet"}, "= 'a\\nb': write up to 60 letters"),
        (PARAMS, "evaluate.a b", EPOCHS, "params.yaml.evaluate.a b = 'a b': write up to 60"),
        (PARAMS, "distill." + "x" * 61, {}, "write up to 60 letters"),
    ],
    "a name that nothing has": [
        (PARAMS, "paper", "infre", "params.yaml.paper = 'infre': no such paper: did you mean 'inf"),
        (SCALE, "tables.infer/table99", {"ipc": [5]}, "wide.yaml.tables.infer/table99: no such"),
        (SCALE, "network_aliases.convnet", "convnet-w61", "network_aliases.convnet: 'convnet-w61'"),
        (SCALE, "network_aliases.convnt", "convnet-w16", "did you mean 'convnet'"),
        (SCALE, "ensemble", ["convnet-w16", "nope"], "wide.yaml.ensemble: 'nope': no such network"),
        (PARAMS, "ensemble", ["resnet10-w61"], "params.yaml.ensemble: 'resnet10-w61': no such net"),
        (SCALE, "datasets.digits.ensemble", ["nope"], "datasets.digits.ensemble: 'nope': no such"),
        (PARAMS, "grid.table2.rows", ["INFERR"], "grid.table2.rows: no row 'INFERR': did you mean"),
        (TABLE, "unmeasured", ["averag"], "table2.yaml.unmeasured: no such dataset 'averag'"),
        (TABLE, "published", "gift_table5.csv", "no such file of 'infer': did you mean 'infer_ta"),
    ],
    "a name of thousands of letters": [
        (PARAMS, "label.static", {"teachers": ["9" * 5000]}, "network '9999"),
        (PARAMS, "evaluate.static.loss", "k" * 5000, "loss 'kkkk"),
        (TABLE, "rows.0." + "k" * 5000, 1, "rows.0.kkkkkkkk"),
        (PARAMS, "distill.infer." + "k" * 5000, 1, "distill.infer.kkkkkkkk"),
        (PARAMS, "datasets.digits.source", "folder:" + "k" * 5000, "source"),
    ],
    "a value of an axis that is none": [
        (
            AXES,
            "paper.optimizer",
            [float("inf"), "adam"],
            "paper.optimizer = [inf, 'adam']: inf is",
        ),
        (AXES, "paper.optimizer", [float("nan"), "adam"], "nan is no value: write a name or"),
        (AXES, "paper.optimizer", [{}, "adam"], "{} is no value: write a name or a number"),
        (TABLE, "drop_from", {"ipc": float("inf")}, "inf is no value: write a name or a number"),
        (SCALE, "tables.infer/table2.ipc", [float("-inf")], "-inf is no value: write a name or"),
    ],
    "an override that matches nothing": [
        (
            PARAMS,
            "distill.infer.per_student",
            {"convnet-w64": {}},
            "per_student.convnet-w64: mat",
        ),
        (SCALE, "evaluate.hard.per_student", {"resnet18": EPOCHS}, "hard.per_student.resnet18: ma"),
        (SCALE, "datasets.digits.evaluate.hard", {"per_student": {"no": EPOCHS}}, "per_student.no"),
        (TABLE, "rows.0.override", {"evaluate": {"per_student": {"no": EPOCHS}}}, "per_student.no"),
        (PARAMS, "grid.table2.ipc", {"digits": [5], "cifar": [5]}, "ipc.cifar: no such dataset"),
        (TABLE, "rows.0.override", {"evaluat": EPOCHS}, "override.evaluat: no such stage: did you"),
        (SWEEP, "axes.gamma.sets", "evaluat.refine.gamma", "gamma.sets = 'evaluat.refine.gamma': "),
        (SWEEP, "axes.gamma.sets", "evaluate", "write stage.key"),
        (SWEEP, "axes.gamma.sets", "evaluate..gamma", "write stage.key"),
        (SWEEP, "axes.gamma.values", {"0": {}}, "gamma.values: the axis has `sets` too"),
        (AXES, "axes.optimizer.values.sgd", {"evaluat": {}}, "values.sgd.evaluat: no such stage"),
    ],
    "nothing, or twice": [
        (PARAMS, "grid.table2.rows", [], "params.yaml.grid.table2.rows = []: needs at least one"),
        (PARAMS, "grid.table2.rows", ["INFER", "INFER"], "at least one row, and each only once"),
        (PARAMS, "grid.table2.ipc", {"digits": []}, "params.yaml.grid.table2.ipc.digits = []: "),
        (PARAMS, "tables", ["infer/table2", "infer/table2"], "has 'infer/table2' twice"),
        (PARAMS, "ensemble", TWICE, "params.yaml.ensemble = ['convnet-w16', 'convnet-w16']: has"),
        (SCALE, "datasets.digits.ensemble", TWICE, "has 'convnet-w16' twice"),
        (PARAMS, "label.static.teachers", TWICE, "label.static.teachers = ['convnet-w16', 'convne"),
        (PARAMS, "label.static.teachers", ["convnet", "convnet-w16"], "has 'convnet-w16' twice"),
        (TABLE, "rows.0.only", {"ipc": []}, "rows.0.only.ipc = []: "),
        (TABLE, "rows.0.row", "", "rows.0.row = '': "),
        (TABLE, "rows.3.distill", "", "rows.3.distill = '': "),
        (TABLE, "title", "", "table2.yaml.title = '': "),
    ],
    "two settings that contradict each other": [
        (PARAMS, "datasets.digits.mean", [0.1] * 3, "params.yaml.datasets.digits.mean = [0.1, 0.1"),
        (PARAMS, "datasets.digits.std", [0.1] * 3, "expected 1, one for each channel"),
        (PARAMS, "datasets.digits.mean", [], "params.yaml.datasets.digits.mean = []: "),
        (PARAMS, "datasets.digits.channels", 3, "digits.channels = 3: workflow/scales/wide.yaml.d"),
        (PARAMS, "datasets.digits.size", 16, "datasets.digits.size = 16: workflow/scales/wide.yam"),
        (
            SCALE,
            "tables.podd/table1.dataset",
            {"a": ["digits"]},
            "dataset: is the panel of its tab",
        ),
        (SCALE, "tables.infer/table2.dataset", {"digits": ["digits"]}, "values are one list"),
        (PARAMS, "grid.table2.dataset", {"digits": ["digits"]}, "dataset: is the panel of its tab"),
        (TABLE, "paper.dataset", {"imagenet-1k": ["imagenet-1k"]}, "dataset: is the panel of its"),
        (SCALE, "datasets.digits.expected.shape", [8, 8, 1], "write channels, 1 or 3, before"),
        (SCALE, "datasets.digits.expected.shape", [1, 8, 9], "images are square here"),
        (
            PARAMS,
            "networks.student",
            {"name": "convnet"},
            "params.yaml.networks.student: `teacher",
        ),
        (PARAMS, "evaluate.hard.training.schedule.warmup", 80, "warmup = 80: leaves nothing of 80"),
        (
            PARAMS,
            "teacher.convnet-w32.training.schedule",
            {"warmup": 3},
            "leaves nothing of 3 epo",
        ),
        (PARAMS, "evaluate.hard.training.batch_up_to", [[9, 1], [9, 2]], "two batches up to 9"),
        (PARAMS, "datasets.digits.source", "folder:.", "digits.source: 'folder:.': holds this pro"),
    ],
    "beyond every sense": [
        (PARAMS, "environment", 10**400, "params.yaml.environment = 1000000000000...00000"),
        (PARAMS, "device", "cuda:٣", "params.yaml.device = 'cuda:٣': has characters that"),
        (PARAMS, "evaluate.hard.training.optimizer", {"name": "sgd", "lr": 1e10}, "lr = 100000000"),
        (PARAMS, "distill.infer.betas", [0.5, 1.0], "distill.infer.betas.1 = 1.0: "),
        (PARAMS, "evaluate.hard.training.augment", ["crop: 1"], "write a whole number from 0"),
        (PARAMS, "evaluate.hard.training.augment", ["crop:1_0"], "write a whole number from 0"),
        (SCALE, "datasets.digits.expected.original_bytes", 0, "original_bytes = 0: "),
        (PAPER, "printed", {"table2": {"x": float("nan")}}, "printed.table2.x = nan: "),
        (TABLE, "digits", 400, "table2.yaml.digits = 400: "),
    ],
    "words that no paper prints": [
        (TABLE, "rows.1.published", {"methd": "x"}, "row 'SRe2L*': published.methd: no such colu"),
        (TABLE, "rows.1.published", {"ipc": "10"}, "published.ipc: no such column"),
        (TABLE, "rows.1.published", {"student": "x"}, "published.student: no such column"),
        (TABLE, "rows.6.published", {"method": "infer+din"}, "did you mean 'infer+dyn'"),
        (TABLE, "rows.1.published", {"labels": "hrd"}, "published.labels = 'hrd': printed nowhere"),
        (AXES, "axes.optimizer.variants", {"sdg": "gift"}, "optimizer.variants.sdg: no such value"),
        (AXES, "axes.optimizer.variants", {"sgd": "gfit"}, "variants.sgd = 'gfit': printed nowher"),
        (PAPER, "words.same.methd", {"a": "b"}, "paper.yaml.words.same.methd: no such column"),
        (PAPER, "words.same.method", {"infer+dyn": {"methd": "x"}}, "method.infer+dyn.methd: no s"),
        (PAPER, "words.hard_labels_where_blank", ["rnadom"], "did you mean 'random'"),
        (PAPER, "words.variants_of_one_table", ["ensmble="], "no variant begins 'ensmble='"),
    ],
}
CASES = [(kind, *case) for kind, cases in MISTAKES.items() for case in cases]


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A project that plans, and the content of its files."""
    root = wide.make_wide(tmp_path_factory.mktemp("kinds"))
    plan(root)
    return root, wide.read(root)


def plan(root: Path) -> None:
    made = Plan(root)
    made.missing(made.settings.params.tables)
    for table in made.settings.params.tables:
        made.document(table)


def changed(content: Any, keys: str, value: Any) -> Any:
    """A copy of a file's content with another value at `keys`."""
    path = [".."] if keys.endswith("...") else []
    path = [*keys.removesuffix("...").split("."), *path]
    whole = at = copy.deepcopy(content)
    for key in path[:-1]:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    assert at.get(path[-1]) != value, "this changes nothing"
    at[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("kind", "file", "keys", "value", "said"),
    CASES,
    ids=[f"{kind}-{keys}-{number}" for number, (kind, _, keys, _, _) in enumerate(CASES)],
)
def test_a_mistake_is_one_line_that_names_it(planned, kind, file, keys, value, said):
    root, content = planned
    before = {path for path in root.rglob("*") if path.is_file()}
    wide.write(root, {file: changed(content[file], keys, value)})
    try:
        with pytest.raises(PlanError) as error:
            plan(root)
    finally:
        wide.write(root, {file: content[file]})
    message = str(error.value)
    assert said in message and "\n" not in message and len(message) < 3000, message
    # The file at fault is the first one that the line names; a row of a table stands in its file.
    named = [name for name in wide.FILES if name in message]
    assert min(named, key=message.index) == file and message.startswith(file), message
    assert {path for path in root.rglob("*") if path.is_file()} == before


def test_the_project_without_a_mistake_is_planned(planned):
    plan(planned[0])


def test_a_table_whose_axes_params_alone_give_is_planned(planned):
    root, content = planned
    scale = copy.deepcopy(content[SCALE])
    axes = scale["tables"]["gift/figure3"]
    scale["tables"]["gift/figure3"] = {"student": axes.pop("student")}
    params = changed(content[PARAMS], "grid.gift/figure3", axes)
    wide.write(root, {SCALE: scale, PARAMS: params})
    try:
        plan(root)
    finally:
        wide.write(root, {name: content[name] for name in (SCALE, PARAMS)})


COSTS = "workflow/costs.yaml"


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ([], "costs.yaml: holds list, expected keys and values"),
        ({"networks": {}}, "costs.yaml.multiply_adds_per_second: is required"),
        ({"multiply_adds_per_second": {"demo": 0.0}, "networks": {}}, "per_second.demo = 0.0: "),
        (
            {"multiply_adds_per_second": {}, "networks": {"convnet": {8: {"multiply_add": 1.0}}}},
            "costs.yaml.networks.convnet.8.multiply_add: unknown key: did you mean 'multiply_adds'",
        ),
        ({"multiply_adds_per_second": {}, "networks": {"convnet": {}}}, "networks.convnet = {}: "),
    ],
)
def test_a_mistake_in_the_costs_is_one_line(planned, costs, said):
    root, _ = planned
    good = (root / COSTS).read_text()
    wide.write(root, {COSTS: costs})
    try:
        with pytest.raises(PlanError) as error:
            Estimator(Plan(root).settings, root / "results/store")
    finally:
        (root / COSTS).write_text(good)
    assert str(error.value).startswith(COSTS) and said in str(error.value), error.value


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.timeout(20)
def test_settings_that_are_no_file_are_not_waited_for(make, tmp_path):
    make(tmp_path / "params.yaml")
    with pytest.raises(PlanError, match=r"params\.yaml: is no regular file"):
        Plan(tmp_path)
