"""The stages' planners: what they remember, inputs and code of an artefact, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.plan.cell import Experiment
from distillery.plan.context import Context
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.stage_plans import teacher
from distillery.plan.stage_plans.analyse import plan_analyses
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.stage_plans.distill import plan_distilled
from distillery.plan.stage_plans.evaluate import plan_evaluations
from distillery.plan.stage_plans.label import plan_labels
from distillery.plan.stage_plans.teacher import plan_teacher
from distillery.plan.table_models import Row
from distillery.table.document import TableDocument
from helpers.components import package_copy
from helpers.planning import planned
from helpers.rewording import add_unused, reword

SMALL = {"small": {"source": "sklearn:digits", "size": 6}}


@pytest.fixture
def context(project: Path) -> Context:
    """Of the small project, with a second data set: the same digits on 6 x 6 pixels."""
    return planned(project, datasets=SMALL).context


def experiment(method: str, labels: str, dataset: str = "digits", **row: object) -> Experiment:
    given = {"row": "x", "method": method, "labels": labels} | row
    return Experiment(dataset, 5, "net-a", Row.model_validate(given))


# --- one setting is one node ----------------------------------------------------------------------


def test_a_teacher_is_of_its_data_set(context):
    digits, small = (plan_teacher("net-a", name, context) for name in ("digits", "small"))
    assert digits.input("data") is plan_data("digits", context)
    assert small.input("data") is plan_data("small", context)
    assert (digits.dataset, small.dataset) == ("digits", "small") and digits.key != small.key
    assert digits.spec.label == "digits-net-a" and small.spec.label == "small-net-a"
    assert plan_teacher("net-b", "digits", context) is not digits
    assert plan_teacher("net-a", "digits", context) is digits


def test_the_teachers_of_a_set_are_of_its_data_set(context):
    for name in ("digits", "small"):
        infer = experiment("infer", "static", name)
        plan_distilled(infer, context), plan_labels(infer, context)
    infer = experiment("infer", "static", "small")
    for node in (plan_distilled(infer, context), plan_labels(infer, context)):
        teachers = [plan_teacher(net, "small", context) for net in ("net-a", "net-b")]
        assert node.inputs_of("teachers") == teachers


def sets_of(context: Context, first: Experiment, **changes: object) -> tuple[Node, Node]:
    return plan_distilled(first, context), plan_distilled(replace(first, **changes), context)


def test_a_set_is_remembered_by_all_that_changes_it(context):
    first = experiment("infer", "static")
    for changes in (
        {"dataset": "small"},
        {"ipc": 10},
        {"row": experiment("random", "hard").row},
        {"row": experiment("infer", "static", override={"distill": {"iterations": 9}}).row},
    ):
        one, other = sets_of(context, first, **changes)
        assert one.key != other.key, changes
    for changes in (
        {"augmented": False},
        {"row": experiment("infer", "dynamic").row},
        {"row": experiment("infer", "static", override={"evaluate": {"training": {}}}).row},
    ):
        one, other = sets_of(context, first, **changes)
        assert one is other, changes


def test_a_set_whose_recipe_reads_the_student_is_of_that_student(project):
    context = planned(project, distill={"infer": {"teachers": "student"}}).context
    one, other = sets_of(context, experiment("infer", "static"), student="net-b")
    assert [teacher.spec.label for teacher in one.inputs_of("teachers")] == ["digits-net-a"]
    assert [teacher.spec.label for teacher in other.inputs_of("teachers")] == ["digits-net-b"]


def test_a_block_of_another_name_is_another_set(project, edit):
    scale = project / "workflow/scales/tiny.yaml"
    edit(scale, "  random: {}\n", "  random: {}\n  longer: {teachers: [net-a], iterations: 9}\n")
    context = planned(project).context
    longer = experiment("infer", "static", distill="longer").row
    one, other = sets_of(context, experiment("infer", "static"), row=longer)
    iterations = [node.spec.recipe["method"]["iterations"] for node in (one, other)]
    assert iterations == [3, 9]
    assert {node.spec.recipe["method"]["name"] for node in (one, other)} == {"infer"}


# --- code and inputs ------------------------------------------------------------------------------


def test_loaded_weights_are_trained_by_nothing(project, monkeypatch):
    # Whether torchvision has such weights for such a network, another test asks.
    monkeypatch.setattr(teacher, "check_weights", lambda *arguments: None)
    weights = {"teacher": {"net-b": {"weights": "torchvision:x"}}}
    context = planned(project, **weights).context
    trained, loaded = (plan_teacher(name, "digits", context) for name in ("net-a", "net-b"))
    assert loaded.spec.recipe["weights"] == "torchvision:x"
    assert loaded.spec.recipe["training"] is loaded.spec.recipe["loss"] is None
    assert trained.spec.recipe["loss"]["name"] == "ce" and trained.spec.recipe["weights"] is None
    ours = {"distillery.losses.cross_entropy", "distillery.training.optimizers.sgd"}
    assert ours <= set(trained.spec.roots) and not ours & set(loaded.spec.roots)


def test_a_student_reads_stored_labels_or_the_teachers_that_give_them(context):
    static, dynamic, hard = (
        plan_evaluations(experiment("infer", kind), 1, context)[0]
        for kind in ("static", "dynamic", "hard")
    )
    assert set(static.inputs) == {"data", "distilled", "label"}
    assert static.input("label") is plan_labels(experiment("infer", "static"), context)
    assert set(dynamic.inputs) == {"data", "distilled", "teachers"}
    assert dynamic.inputs_of("teachers") == [plan_teacher("net-a", "digits", context)]
    assert set(hard.inputs) == {"data", "distilled"}
    assert "distillery.methods.infer" in hard.spec.roots, "a set is read by its method"


def test_a_refinement_is_code_of_its_students(project):
    refine = {"name": "gift", "gamma": 0.2}
    context = planned(project, evaluate={"static": {"refine": refine}}).context
    (static,) = plan_evaluations(experiment("infer", "static"), 1, context)
    (hard,) = plan_evaluations(experiment("infer", "hard"), 1, context)
    module = module_name("refinement", "gift")
    assert static.spec.recipe["refine"]["gamma"] == 0.2 and module in static.spec.roots
    assert "refine" not in hard.spec.recipe and module not in hard.spec.roots


def test_without_augmentation_nothing_else_changes(project):
    static = {"training": {"augment": ["flip"]}}
    context = planned(project, evaluate={"static": static}).context
    one = experiment("infer", "static")
    (augmented,) = plan_evaluations(one, 1, context)
    (plain,) = plan_evaluations(replace(one, augmented=False), 1, context)
    training = augmented.spec.recipe["training"]
    assert training["augment"] == ["flip"]
    assert plain.spec.recipe == augmented.spec.recipe | {"training": training | {"augment": []}}


ANALYSES = {
    "similarity": ({"data", "distilled", "teachers"}, 1),
    "divergence": ({"data", "distilled", "teachers", "label"}, 1),
    "difficulty": ({"data", "distilled", "teachers", "student"}, 2),
    "landscape": ({"data", "distilled", "student"}, 2),
    "convergence": ({"data", "distilled", "label"}, 2),
}


# A method whose states on the way are kept.
SNAPSHOTS = "{network: {name: convnet, width: 4}, whitening: none, snapshots: 2}"


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_reads_what_its_traits_say(project, edit, name):
    scale = project / "workflow/scales/tiny.yaml"
    teachers = "" if name in ("landscape", "convergence") else "teachers: [net-b]"
    edit(scale, "\ntables:", f"\nanalyse: {{{name}: {{{teachers}}}}}\ntables:")
    edit(scale, "  random: {}", f"  random: {{}}\n  rat-bptt: {SNAPSHOTS}")
    context, (inputs, count) = planned(project).context, ANALYSES[name]
    one = experiment("rat-bptt" if name == "convergence" else "infer", "static")
    found = plan_analyses(name, one, 2, context)
    assert [set(node.inputs) for node in found] == [inputs] * count
    students = plan_evaluations(one, 2, context)
    for node, student in zip(found, students, strict=False):
        assert node.input("distilled") is student.input("distilled")
        teachers_of_recipe = [plan_teacher("net-b", "digits", context)]
        assert "teachers" not in inputs or node.inputs_of("teachers") == teachers_of_recipe
        assert "student" not in inputs or node.input("student") is student
        trains = name == "convergence"
        has_network = "distillery.nets.convnet" in node.spec.roots
        assert has_network == ("student" in inputs or trains), "a student is loaded, or trained"
        assert ("training" in node.spec.recipe) == trains


def test_an_input_is_one_or_a_list(context):
    node = plan_distilled(experiment("infer", "static"), context)
    assert [n.spec.label for n in node.upstream()] == ["digits", "digits-net-a", "digits-net-b"]
    assert node.inputs_of("data") == [node.input("data")] and node.inputs_of("whitening") == []
    assert node.find_input("whitening") is None
    with pytest.raises(KeyError, match="whitening"):
        node.input("whitening")
    with pytest.raises(TypeError, match="input 'teachers' is a list"):
        node.input("teachers")


def test_the_environment_and_the_place_of_the_data(project):
    folder = project / "images"
    folder.mkdir()
    source = {"mine": {"source": "folder:images", "digest": "0" * 64}}
    node = plan_data("mine", planned(project, datasets=source, environment=3).context)
    assert node.spec.environment == 3
    assert node.spec.local == {"source": f"folder:{folder}"}
    assert (node.spec.recipe["source"], node.spec.recipe["digest"]) == ("folder", "0" * 64)


# --- refusals -------------------------------------------------------------------------------------


def test_a_setting_without_a_student_is_one_line(context):
    nobody = replace(experiment("random", "hard"), student=None)
    with pytest.raises(PlanError, match="row 'x' on 'digits': no student; give the table"):
        plan_evaluations(nobody, 1, context)


def test_a_mixing_that_the_loss_is_not_defined_for_is_one_line(project):
    wrong = {
        "evaluate": {"static": {"loss": {"name": "dkd"}, "training": {"mix": {"name": "cutmix"}}}}
    }
    with pytest.raises(PlanError) as error:
        plan_evaluations(experiment("infer", "static"), 1, planned(project, **wrong).context)
    assert str(error.value) == (
        "params.yaml.evaluate.static.training.mix.name = 'cutmix': loss 'dkd' is not defined for "
        "mixed images; set mix to 'none'"
    )


# --- what a table is assembled by -----------------------------------------------------------------


def document(project: Path, folder: Path, change: Callable[[Path], None]) -> TableDocument:
    """The plan of the table when `change` was made to a file that lays tables out."""
    with package_copy(folder) as package:
        change(package / "table/layout.py")
        return Plan(project).document("table2")


def test_code_that_assembles_tables_is_in_the_plan_of_a_table(project, tmp_path):
    # Snakemake, DVC and `make` all assemble a table anew when its document is another one.
    before = document(project, tmp_path / "before", lambda file: None)
    assert document(project, tmp_path / "unused", add_unused) == before
    after = document(project, tmp_path / "after", reword)
    assert after.code != before.code and after.digest() != before.digest()
    assert replace(after, code=before.code) == before
