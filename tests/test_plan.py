"""The plan: counts by hand, identities that move exactly when they must, and one-line errors."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.settings import read_yaml
from distillery.table.assemble import AssembledCell
from distillery.table.files import write
from distillery.table.identity import picture_identity
from distillery.table.seal import write_sealed
from helpers.planning import ids, moved, planned, stages
from helpers.project import ROOT


def test_counts_of_the_tiny_table(project):
    # 1 data set; 2 teachers; random and infer; static labels for infer alone; 2 rows x 1 network x
    # 1 ipc x 2 students.
    assert stages(planned(project)) == {
        "data": 1,
        "teacher": 2,
        "distill": 2,
        "label": 1,
        "evaluate": 4,
    }


def test_counts_of_the_papers_table2():
    # INFER's 3 teachers and a fourth of G-VBSM's; random, sre2l, g-vbsm, infer at 2 ipc; static
    # labels for the last three; 7 rows x 3 networks x 2 ipc x 3 students.
    plan = Plan(ROOT, read_yaml(ROOT / "params.yaml") | {"scale": "paper"})
    assert stages(plan) == {"data": 1, "teacher": 4, "distill": 8, "label": 6, "evaluate": 126}
    assert len(plan.cells("table2")) == 42


def test_published_numbers_stand_in_their_cells():
    plan = Plan(ROOT, read_yaml(ROOT / "params.yaml") | {"scale": "paper"})
    cell = next(
        p
        for p in plan.cells("table2")
        if p.row.row == "INFER" and p.student == "resnet18" and p.ipc == 10
    )
    assert (cell.published.mean, cell.published.std, cell.comparable) == (
        28.7,
        0.2,
        True,
    )
    demo = Plan(ROOT, read_yaml(ROOT / "params.yaml") | {"scale": "demo"})
    assert all(p.published and not p.comparable for p in demo.cells("table2"))


def test_cifar_cells_find_the_numbers_of_table1():
    plan = Plan(ROOT, read_yaml(ROOT / "params.yaml") | {"scale": "mini"})
    found = {
        p.row.row: p
        for p in plan.cells("table1")
        if (p.dataset, p.student, p.ipc) == ("cifar10", "convnet128", 10)
    }
    assert (found["Random"].published.mean, found["INFER"].published.mean) == (31.0, 34.0)
    assert found["INFER"].reason.startswith("another ")  # by its recipe: names are the paper's
    # The table file says that this row's network is not the printed one's.
    assert found["G-VBSM"].published and not found["G-VBSM"].comparable


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"evaluate": {"static": {"training": {"epochs": 3}}}},
            {
                "evaluate/digits-infer-ipc5-static-net-a-d0-s0",
                "evaluate/digits-infer-ipc5-static-net-a-d0-s1",
            },
        ),
        (
            {"students": 3},
            {
                "evaluate/digits-infer-ipc5-static-net-a-d0-s2",
                "evaluate/digits-random-ipc5-hard-net-a-d0-s2",
            },
        ),
        ({"distill": {"random": {}}}, set()),
        ({"device": "cpu"}, set()),
    ],
)
def test_a_setting_moves_only_what_reads_it(project, change, expected):
    assert moved(planned(project), planned(project, **change)) == expected


def test_a_method_setting_moves_that_method_and_what_follows(project):
    changed = moved(planned(project), planned(project, distill={"infer": {"iterations": 4}}))
    assert {label.split("/")[0] for label in changed} == {"distill", "label", "evaluate"}
    assert all("infer" in label for label in changed)


def test_values_swapped_between_settings_are_seen(project):
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    first = planned(project, evaluate={"hard": {"training": {"optimizer": optimizer}}})
    swapped = planned(
        project,
        evaluate={"hard": {"training": {"optimizer": optimizer | {"lr": 0.9, "momentum": 0.1}}}},
    )
    assert len(moved(first, swapped)) == 2


def test_ids_do_not_depend_on_the_folder(project, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    project.rename(elsewhere)
    before = ids(planned(elsewhere))
    elsewhere.rename(project)
    assert ids(planned(project)) == before


def test_every_component_a_recipe_names_is_in_the_code_of_its_artefact(project):
    kinds = {
        "network": "network",
        "student": "network",
        "loss": "loss",
        "method": "method",
        "labels": "label",
    }
    for node in planned(project).missing(["table2"]):
        named = {
            kinds[key]: value["name"] for key, value in node.spec.recipe.items() if key in kinds
        }
        assert {module_name(kind, name) for kind, name in named.items()} <= set(node.spec.roots)
        reads_a_set = node.spec.stage in ("label", "evaluate")
        assert not reads_a_set or any(
            root.startswith("distillery.methods.") for root in node.spec.roots
        )


def test_seeds_do_not_depend_on_code(project):
    node = planned(project).evaluations("table2")[0]
    recoded = Node(dataclasses.replace(node.spec, code="0" * 12), node.inputs, node.dataset)
    assert recoded.spec.id != node.spec.id
    assert recoded.key == node.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scal": "demo"}, "params.yaml.scal: unknown key: did you mean 'scale'?"),
        ({"scale": "tny"}, "params.yaml.scale = 'tny': did you mean 'tiny'?"),
        ({"students": 0}, "params.yaml.students = 0:"),
        ({"students": "3"}, "params.yaml.students = '3':"),
        (
            {"distill": {"infer": {"alpa": 1}}},
            "params.yaml.distill.infer.alpa: unknown key: did you mean 'alpha'?",
        ),
        ({"distill": {"infer": {"iterations": -1}}}, "params.yaml.distill.infer.iterations = -1:"),
        ({"distill": {"infer": {"teachers": []}}}, "params.yaml.distill.infer.teachers: is empty"),
        (
            {"distill": {"infer": {"teachers": ["resnet19"]}}},
            "network 'resnet19' does not exist: did you mean 'resnet18'?",
        ),
        (
            {"teacher": {"net-a": {"trainin": {}}}},
            "params.yaml.teacher.net-a.trainin: unknown key: did you mean 'training'?",
        ),
        (
            {"evaluate": {"static": {"los": {}}}},
            "params.yaml.evaluate.static.los: unknown key: did you mean 'loss'?",
        ),
        (
            {"evaluate": {"static": {"loss": {"name": "lk"}}}},
            "loss 'lk' does not exist: did you mean 'kl'?",
        ),
        (
            {"evaluate": {"static": {"training": {"optimizer": {"name": "sgdd"}}}}},
            "training.optimizer.name = 'sgdd':",
        ),
        ({"evaluate": {"static": {"training": {"epochs": 1.5}}}}, "training.epochs = 1.5:"),
        ({"datasets": {"digits": {"source": "sklern:digits"}}}, "no such kind as 'sklern'"),
        (
            {"evaluate": {"statc": {}}},
            "params.yaml.evaluate.statc: no such block: did you mean 'static'?",
        ),
        (
            {"distill": {"infr": {}}},
            "params.yaml.distill.infr: no such block: did you mean 'infer'?",
        ),
        ({"grid": {"table7": {}}}, "params.yaml.grid.table7: no such table at this scale:"),
        ({"grid": {"table2": {"ipc": ["a"]}}}, "ipc: 'a' is no number"),
        ({"grid": {"table2": {"student": [{"name": "convnet"}]}}}, "write a name or a number"),
        ({"grid": {"table2": {"student": ["net-a", "net-a"]}}}, "each only once"),
        ({"tables": []}, "params.yaml.tables = []:"),
        ({"device": "cda"}, "params.yaml.device = 'cda':"),
        (
            {"evaluate": {"static": {"training": 5}}},
            "params.yaml.evaluate.static.training = 5: expected keys and values",
        ),
        (
            {"evaluate": {"static": {"training": {"augment": ["cropp:4"]}}}},
            "training.augment = 'cropp:4': augmentation 'cropp' does not exist: "
            "did you mean 'crop'?",
        ),
        (
            {"evaluate": {"hard": {"loss": {"name": "kl"}}}},
            "needs soft labels, row 'Random' has hard ones",
        ),
        ({"label": {"static": {"teachers": []}}}, "params.yaml.label.static.teachers: is empty"),
    ],
)
def test_a_wrong_setting_is_one_line_with_file_key_and_value(project, change, message):
    with pytest.raises(PlanError) as error:
        planned(project, **change).missing(["table2"])
    assert message in str(error.value)
    assert str(error.value).startswith("params.yaml.")  # where it stands, not the scale
    assert "\n" not in str(error.value)


def test_a_smaller_grid_plans_only_its_rows(project):
    plan = planned(project, grid={"table2": {"rows": ["Random"]}})
    assert stages(plan) == {"data": 1, "distill": 1, "evaluate": 2}
    assert [p.row.row for p in plan.cells("table2")] == ["Random"]
    with pytest.raises(PlanError, match="no row 'Randm': did you mean 'Random'"):
        planned(project, grid={"table2": {"rows": ["Randm"]}}).cells("table2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ipc: [5]", "ipc: [0]", "ipc 0 on 'digits': must be a number above 0"),
        ("ipc: [5]", "ipc: [1.5]", "ipc 1.5 on 'digits': method 'random' needs a whole number"),
        ("ipc: [5]", "ipc: [500]", "ipc 500 on 'digits': a class has about 143 training images"),
        ("student: [net-a]", "student: [net-z]", "network 'net-z' does not exist"),
        (
            "dataset: [digits]",
            "dataset: [digit]",
            "dataset 'digit' does not exist: did you mean 'digits'?",
        ),
        (
            "ipc: [5]}",
            "ipc: [5], width: [1]}",
            "infer/table2.width: is no axis of workflow/tables/infer/table2.yaml",
        ),
    ],
)
def test_a_wrong_axis_is_one_line(project, edit, old, new, message):
    edit(project / "workflow/scales/tiny.yaml", old, new)
    with pytest.raises(PlanError, match=message.replace("[", r"\[").replace("?", r"\?")):
        planned(project).missing(["table2"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "method: infer",
            "method: infr",
            "row 'INFER': method 'infr' does not exist: did you mean 'infer'?",
        ),
        ("row: INFER", "row: Random", "two rows are called 'Random'"),
        (
            "labels: static",
            "labels: static, override: {evalute: {}}",
            "override.evalute: no such stage: did you mean 'evaluate'?",
        ),
        (
            "labels: static",
            "labels: static, protcol: x",
            "rows.1.protcol: unknown key: did you mean 'protocol'?",
        ),
        ("infer_table2.csv", "nope.csv", "published = 'nope.csv': no such file"),
    ],
)
def test_a_wrong_table_file_is_one_line(project, edit, old, new, message):
    edit(project / "workflow/tables/infer/table2.yaml", old, new)
    with pytest.raises(PlanError) as error:
        planned(project).missing(["table2"])
    assert str(error.value).startswith("workflow/tables/infer/table2.yaml") and message in str(
        error.value
    )


def test_a_budget_too_small_for_the_method_is_seen_before_any_work(project, edit):
    edit(project / "workflow/scales/tiny.yaml", "ipc: [5]", "ipc: [1]")
    with pytest.raises(PlanError, match="ipc 1 on 'digits': too little for method 'infer'"):
        planned(project).missing(["table2"])


def test_ten_and_ten_point_nought_are_one_budget(project):
    same = {"grid": {"table2": {"ipc": [5.0]}}}
    assert ids(planned(project, **same)) == ids(planned(project))


def test_the_runtime_is_part_of_every_artefacts_code(project):
    assert all(
        "distillery.store.runtime" in node.spec.roots
        for node in planned(project).missing(["table2"])
    )


def test_what_is_missing_is_listed_after_what_it_reads(project):
    missing = planned(project).missing(["table2"])
    place = {node: index for index, node in enumerate(missing)}
    assert len(place) == len(missing) == 10
    for node in missing:
        assert all(place[upstream] < place[node] for upstream in node.upstream())


def test_raising_the_environment_makes_everything_anew(project):
    assert len(moved(planned(project), planned(project, environment=2))) == 10


def test_a_stamp_never_touches_what_dvc_tracks(project):
    planned(project).write_plan_stamp("table2")
    assert not (project / "results/plan").exists()


def test_planning_imports_no_torch(project):
    script = (
        "import sys; from distillery.cli import main; main(['plan', 'table2']);"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(project / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert "1 data, 2 teacher, 2 distill, 1 label, 4 evaluate to be made" in done.stdout


def test_a_fresh_table_needs_nothing(project):
    plan = planned(project)
    assert [node.spec.stage for node in plan.missing(["table2"])].count("evaluate") == 4
    write_table(plan)
    assert plan.fresh("table2")
    assert plan.missing(["table2"]) == []
    (project / "results/table2.md").write_text("edited by hand")
    assert not plan.fresh("table2")
    assert len(plan.missing(["table2"])) == 10


def write_table(plan: Plan) -> None:
    """The files of table2 as if its evaluations had been read."""
    document = plan.document("table2")
    write(document, [AssembledCell(cell) for cell in document.cells], plan.stem("table2"))


def test_a_drawn_picture_needs_all_its_files_its_plan_and_its_table(project, edit):
    edit(project / "workflow/tables/infer/table2.yaml", "panel:", "figure: accuracy\npanel:")
    plan, results = planned(project), project / "results"
    assert not plan.drawn("table2")
    write_table(plan)
    assert not plan.drawn("table2")
    sealed = dict.fromkeys((".png", ".pdf", ".values.csv"), b"x")
    drawn = picture_identity(plan.document("table2"), plan.stem("table2"))
    write_sealed(plan.stem("table2"), sealed, ".picture.json", drawn, {})
    assert plan.drawn("table2")
    assert not planned(project, students=3).drawn("table2")
    for name in ("table2.png", "table2.values.csv", "table2.csv", "table2.picture.json"):
        kept = (results / name).read_bytes()
        (results / name).write_bytes(kept + b" ,")
        assert not plan.drawn("table2"), name
        (results / name).write_bytes(kept)
        assert plan.drawn("table2")
    (results / "table2.pdf").unlink()
    assert not plan.drawn("table2")


def test_a_mark_is_newer_than_what_it_condemns_and_never_the_same(project):
    plan = planned(project)
    write_table(plan)
    table = project / "results/table2.csv"
    ahead = time.time() + 86400
    os.utime(table, (ahead, ahead))  # by another machine's clock
    first = plan.mark_table("table2")
    content = first.read_text()
    assert first.stat().st_mtime_ns > table.stat().st_mtime_ns
    assert plan.mark_table("table2") == first and first.read_text() != content
    assert "results/scratch" in str(first)


def test_a_table_reads_meta_json_alone_and_jobs_need_whole_artefacts(project):
    plan = planned(project)
    evaluation = plan.evaluations("table2")[-1]  # of INFER: it reads data, a set and labels
    for node in plan.evaluations("table2"):
        stored(plan, node, "student.safetensors")
    assert plan.missing(["table2"]) == []
    assert plan.have(evaluation) and not plan.whole(evaluation)
    distilled, label = evaluation.input("distilled"), evaluation.input("label")
    (plan.store / evaluation.address / "meta.json").unlink()
    stored(plan, distilled, "set.safetensors")
    stored(plan, label)
    data = evaluation.input("data")
    stored(plan, data)
    # The set lacks its file, so it is made again, and so are the teachers that it reads.
    assert {node.spec.stage for node in plan.missing(["table2"])} == {
        "teacher",
        "distill",
        "evaluate",
    }
    (plan.store / distilled.address / "set.safetensors").write_bytes(b"")
    assert plan.missing(["table2"]) == [evaluation]


def stored(plan: Plan, node: Node, *files: str) -> None:
    """The meta.json of an artefact that lists these files, which are not there."""
    meta = plan.store / node.address / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"files": {file: {} for file in files}}))
