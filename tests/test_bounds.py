"""Settings that can only be mistakes are said while planning: what stands where, and what to do."""

import pytest
import yaml

from distillery.errors import PlanError
from distillery.plan.plan import Plan

PARAMS = {
    "more students than anyone trains": ("students: 10000000", ["params.yaml.students", "1000"]),
    "students that are yes": ("students: true", ["params.yaml.students", "integer"]),
    "a size": ("datasets: {digits: {size: 1000000}}", ["datasets.digits.size", "8192"]),
    "a mean of 0 to 255": ("datasets: {digits: {mean: [33.3]}}", ["digits.mean", "33.3", "1"]),
    "a std of 0 to 255": ("datasets: {digits: {std: [64.0]}}", ["digits.std", "64.0", "1"]),
    "a std of nothing": ("datasets: {digits: {std: [0.0]}}", ["digits.std", "0.0"]),
    "ipc that is yes": ("grid: {table2: {ipc: [true]}}", ["grid.table2.ipc", "True is no number"]),
    "endless ipc": ("grid: {table2: {ipc: [.inf]}}", ["grid.table2.ipc", "inf"]),
    "ipc beyond numbers": ("grid: {table2: {ipc: [1.0e+400]}}", ["grid.table2.ipc", "inf"]),
    "ipc that is none": ("grid: {table2: {ipc: [.nan]}}", ["grid.table2.ipc", "nan"]),
    "ipc below nothing": ("grid: {table2: {ipc: [-1]}}", ["grid.table2.ipc", "-1"]),
    "epochs": (
        "evaluate: {static: {training: {epochs: 10000000000000}}}",
        ["params.yaml.evaluate.static.training.epochs", "1000000000"],
    ),
    "a crop of more than the image": (
        'evaluate: {static: {training: {augment: ["crop:8"]}}}',
        ["params.yaml.evaluate.static.training.augment", "'crop:8'", "8 px"],
    ),
    "a batch's crop of more than the image": (
        'teacher: {net-a: {training: {augment: ["batch-crop:99"]}}}',
        ["params.yaml.teacher.net-a.training.augment", "'batch-crop:99'", "8 px"],
    ),
    "pools below a pixel": (
        "networks: {net-a: {depth: 4}}",
        ["params.yaml.networks.net-a.depth = 4", "8 px", "3 or less"],
    ),
    "a table": ("tables: [tabel2]", ["params.yaml.tables", "did you mean 'infer/table2'"]),
}


def planned(project):
    return Plan(project).missing(["table2"])


@pytest.mark.parametrize(("line", "words"), PARAMS.values(), ids=PARAMS)
def test_impossible_settings_are_said_while_planning(line, words, project):
    file = project / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | yaml.safe_load(line)))
    with pytest.raises(PlanError) as error:
        planned(project)
    message = str(error.value)
    assert message.startswith("params.yaml.") and all(word in message for word in words), message


BORDERS = {
    "the largest crop": 'evaluate: {static: {training: {augment: ["crop:7"]}}}',
    "the deepest network": "networks: {net-a: {depth: 3}}",
    "a mean and std of white": "datasets: {digits: {mean: [1.0], std: [1.0]}}",
    "a thousand students": "students: 1000",
}


@pytest.mark.parametrize("line", BORDERS.values(), ids=BORDERS)
def test_settings_at_the_border_are_planned(line, project):
    file = project / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | yaml.safe_load(line)))
    assert planned(project)


@pytest.mark.parametrize("method", ["podd", "rat-bptt", "bptt"])
def test_a_window_longer_than_the_training_is_said_while_planning(method, project, edit):
    """Of every method that differentiates through a training, by the recipe that they share."""
    tiny = project / "workflow/scales/tiny.yaml"
    window = "{network: net-i, window: 9, inner_steps: 8, whitening: none, ORDER}"
    window = window.replace("ORDER", "order: given" if method == "podd" else "lr: 0.1")
    edit(tiny, "  random: {}", f"  random: {{}}\n  {method}: {window}")
    edit(tiny, "  net-b:", "  net-i: {name: convnet, width: 4}\n  net-b:")
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "{row: INFER, method: infer, labels: static}",
        f"{{row: learned, method: {method}, labels: hard}}",
    )
    with pytest.raises(PlanError, match=rf"{method}\.window = 9: is longer than inner_steps = 8"):
        planned(project)
    edit(tiny, "window: 9", "window: 8")
    assert planned(project)
