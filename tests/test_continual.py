"""Continual learning: which classes come when, what a step trains on and is asked; its plan."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from distillery.analyses import continual
from distillery.components.registry import module_name
from distillery.errors import DistilleryError, PlanError
from distillery.plan.cost import Estimator
from distillery.plan.plan import Plan
from distillery.sets.distilled import DistilledSet
from distillery.sets.jpeg import image_parts
from distillery.stages import analyse as stage
from distillery.stages import evaluate
from distillery.store.artefact import Artefact
from distillery.store.job import Job
from distillery.training.batches import Mixing
from distillery.training.loop import History, train
from distillery.training.samples import Samples
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.labels import batch, infer_set, logits_artefact
from helpers.tiny import data_artefact, teacher_artefact, tiny_set

TRAIN, TEST = tiny_set(), tiny_set(seed=1)
TRAINING = {
    "epochs": 3,
    "batch": 8,
    "augment": ["crop:1", "flip"],
    "mix": {"name": "mixup", "alpha": 0.8},
    "test_every": 3,
}
KL, CE = {"name": "kl", "temperature": 4.0}, {"name": "ce"}
KINDS = {
    "hard": ({"name": "hard"}, CE),
    "static": ({"name": "static", "teachers": ["a"]}, KL),
    "dynamic": ({"name": "dynamic", "teachers": ["a"]}, KL),
}


def random_set() -> DistilledSet:
    """A set that no teacher has seen."""
    parts = image_parts(TRAIN.pixels(torch.arange(20)), torch.arange(4).repeat(5), None)
    return DistilledSet("random", 5, TRAIN.classes, (0.5,), (0.25,), parts)


def course(
    folder: Path,
    kind: str = "dynamic",
    key: str = "key",
    distilled: DistilledSet | None = None,
    **analysis,
) -> Job:
    """A job of the analysis; as a job of an evaluation it trains a student of the whole set."""
    (folder / "set").mkdir(parents=True)
    (distilled or infer_set()).save(folder / "set")
    labels, loss = KINDS[kind]
    logits = torch.randn(36, 4, generator=torch.Generator().manual_seed(8)).half()
    inputs = {"data": data_artefact(folder / "data", TRAIN, test=TEST)}
    spec = {"recipe": {"method": {"name": "infer"}}}
    meta = {"id": "set", "files": {}, "metadata": {}, "spec": spec}
    inputs["distilled"] = Artefact(folder / "set", meta)
    inputs |= (
        {"teachers": [teacher_artefact(folder / "teacher", TRAIN)]} if kind == "dynamic" else {}
    )
    inputs |= (
        {"label": _static(logits_artefact(folder / "label", logits), labels)}
        if kind == "static"
        else {}
    )
    student = {"name": "convnet", "width": 5, "depth": 2, "norm": "batch"}
    recipe = {"student": student, "labels": labels, "loss": loss, "training": TRAINING}
    return job_in(
        folder, key, recipe=recipe | {"analysis": {"name": "continual", **analysis}}, inputs=inputs
    )


def _static(artefact: Artefact, recipe: dict) -> Artefact:
    return Artefact(artefact.path, artefact.meta | {"spec": {"recipe": recipe}})


def values(job: Job) -> dict[str, list]:
    return pq.read_table(job.out / "values.parquet").to_pydict()


@pytest.fixture
def trained(monkeypatch) -> list[dict]:
    """What every step gave to the training loop, with the history that came out."""
    seen = []

    def record(model, samples, recipe, loss, job, **more) -> History:
        history = train(model, samples, recipe, loss, job, **more)
        seen.append(
            {"model": model, "samples": samples, "streams": job.streams, "history": history, **more}
        )
        return history

    monkeypatch.setattr(continual, "train", record)
    return seen


# --- a step by hand -------------------------------------------------------------------------------


def test_classes_arrive_in_the_order_drawn():
    order = torch.tensor([3, 0, 4, 1, 2])
    assert [seen.tolist() for seen in continual.arrivals(order, 2)] == [[0, 3, 4], [0, 1, 2, 3, 4]]
    assert [seen.tolist() for seen in continual.arrivals(order, 4)] == [
        [0, 3],
        [0, 3, 4],
        [0, 1, 3, 4],
        [0, 1, 2, 3, 4],
    ]


def test_memory_is_the_images_of_the_classes_seen_renumbered():
    labels, images = torch.tensor([2, 0, 1, 2, 3]), torch.arange(5.0).view(5, 1, 1, 1) / 10
    whole = Samples(labels, lambda indices: images[indices], torch.zeros(1), torch.ones(1))
    seen = torch.tensor([1, 2])
    memory, members = continual.restricted(whole, seen, seen)
    assert members.tolist() == [0, 2, 3] and memory.labels.tolist() == [1, 0, 1]
    others, same = continual.restricted(whole, seen, torch.arange(4))
    assert same.tolist() == [0, 2, 3] and others.labels.tolist() == [2, 1, 2]
    assert memory.take(torch.tensor([2, 0, 1])).flatten().tolist() == pytest.approx([0.3, 0.0, 0.2])


def test_logits_lose_the_columns_of_classes_not_seen():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    mixing = Mixing(0.5, torch.tensor([1, 0]))
    members, seen = torch.tensor([0, 2]), torch.tensor([0, 2])
    label = continual.relabelled(lambda b: b.mixing.labels(logits[b.indices]), members, seen)
    # samples 1, 0 of the memory are 2, 0 of the set; half of each: (7, 9) / 2 + (1, 3) / 2
    assert label(batch(torch.tensor([1, 0]), torch.zeros(2), mixing)).tolist() == [
        [4.0, 6.0],
        [4.0, 6.0],
    ]
    assert label(batch(torch.tensor([1]), torch.zeros(1))).tolist() == [[7.0, 9.0]]
    assert (
        continual.relabelled(lambda b: None, members, seen)(
            batch(torch.tensor([1]), torch.zeros(1))
        )
        is None
    )


# --- the analysis ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["seen", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_is_an_evaluation(kind, head, tmp_path, trained):
    job = course(tmp_path / "a", kind, steps=1, head=head)
    metadata = stage.make(job)
    expected = evaluate.make(course(tmp_path / "b", kind, key="key/step 1"))
    history = trained[0]["history"]
    assert asdict(history.accuracies) == expected["accuracy"]
    assert history.loss == expected["loss"]
    assert metadata.pop("sizes")["data"]["train"] == 48
    assert metadata == {
        "value": expected["accuracy"]["last"],
        "analysis": "continual",
        "teacher_scope": "all",
        "head": head,
    }
    last = expected["accuracy"]["last"]
    assert values(job) == {"step": [1], "classes_seen": [4], "memory": [36], "accuracy": [last]}


@pytest.mark.parametrize("head", ["seen", "all"])
def test_every_step_trains_a_fresh_student_on_its_classes_and_asks_about_them_alone(
    head, tmp_path, trained
):
    job = course(tmp_path, steps=3, head=head)
    metadata, distilled = stage.make(job), infer_set().expand()
    order = load_file(job.out / "arrays.safetensors")["order"]
    assert order.tolist() == torch.randperm(4, generator=job.generator("order")).tolist()
    found = []
    for step, (classes, run) in enumerate(zip((2, 3, 4), trained, strict=True), 1):
        seen = sorted(order[:classes].tolist())
        members = [i for i, label in enumerate(distilled.labels.tolist()) if label in seen]
        outputs = seen if head == "seen" else [0, 1, 2, 3]
        labels = [outputs.index(distilled.labels[i]) for i in members]
        assert run["samples"].labels.tolist() == labels
        assert torch.equal(
            run["samples"].take(torch.arange(len(members))), distilled.images[members]
        )
        asked = [i for i, label in enumerate(TEST.labels.tolist()) if label in seen]
        logits = run["model"].eval()((TEST.images[asked].float() / 255 - 0.5) / 0.25)
        assert logits.shape == (12 * classes, len(outputs))
        right = sum(
            outputs[guess] == TEST.labels[i]
            for guess, i in zip(logits.argmax(1).tolist(), asked, strict=True)
        )
        found.append((step, classes, 9 * classes, pytest.approx(100 * right.item() / len(asked))))
    assert [tuple(row) for row in zip(*values(job).values(), strict=True)] == found
    assert metadata["value"] == pytest.approx(sum(values(job)["accuracy"]) / 3)
    assert len({run["streams"] for run in trained}) == 3


def test_with_outputs_for_all_classes_labels_keep_all_columns(tmp_path, trained):
    columns = {}
    for head in ("seen", "all"):
        trained.clear()
        stage.make(course(tmp_path / head, "static", steps=2, head=head))
        first = trained[0]
        some = batch(torch.arange(2), torch.zeros(2))
        columns[head] = first["labeller"](some)
    logits = torch.randn(36, 4, generator=torch.Generator().manual_seed(8)).half()
    assert columns["seen"].shape == (2, 2) and columns["all"].shape == (2, 4)
    assert {tuple(row) for row in columns["all"].tolist()} < {tuple(r) for r in logits.tolist()}


def test_students_have_orders_of_their_own_which_all_rows_share(tmp_path):
    orders = {}
    for row in "ab":
        for student in range(5):
            job = course(tmp_path / f"{row}{student}", "hard", key=str(student), steps=1)
            stage.make(replace(job, key=row))  # another recipe, the same random streams
            order = load_file(job.out / "arrays.safetensors")["order"]
            orders[row, student] = tuple(order.tolist())
    assert len({orders["a", student] for student in range(5)}) > 1
    assert all(orders["a", student] == orders["b", student] for student in range(5))


def test_a_killed_course_goes_on_after_its_last_step(tmp_path, trained, monkeypatch):
    whole = course(tmp_path / "whole", steps=3)
    stage.make(whole)
    recorder, killed = continual.train, course(tmp_path / "killed", steps=3)

    def die(*arguments, **more):
        if len(trained) == 5:
            raise DistilleryError("killed")
        return recorder(*arguments, **more)

    monkeypatch.setattr(continual, "train", die)
    with saving(), pytest.raises(DistilleryError, match="killed"):
        stage.make(killed)
    monkeypatch.setattr(continual, "train", recorder)
    stage.make(killed)
    assert [run["streams"][-1] for run in trained] == ["1", "2", "3", "1", "2", "3"], (
        "steps 1 and 2 are not trained again"
    )
    assert values(killed) == values(whole)


def test_what_the_analysis_refuses(tmp_path):
    with pytest.raises(PlanError, match=r"continual.steps = 4: .* there are 4; ask for less"):
        stage.make(course(tmp_path / "a", "hard", steps=4))
    for place, kind, distilled in (("b", "dynamic", random_set()), ("c", "hard", infer_set())):
        with pytest.raises(PlanError, match=r"continual.teacher_scope = 'seen'"):
            stage.make(
                course(tmp_path / place, kind, distilled=distilled, steps=2, teacher_scope="seen")
            )
    metadata = stage.make(
        course(tmp_path / "d", "hard", distilled=random_set(), steps=2, teacher_scope="seen")
    )
    assert metadata["teacher_scope"] == "seen"
    job = course(tmp_path / "e", steps=2)
    del job.recipe["training"]
    with pytest.raises(PlanError, match="analysis 'continual' needs protocol"):
        stage.make(job)


# --- the plan -------------------------------------------------------------------------------------

FIGURE = """
title: "a small course"
analysis: continual
figure: continual
columns: [student, ipc]
rows:
  - {row: Random, method: random, labels: hard}
  - {row: INFER, method: infer, labels: static}
"""


def course_plan(project: Path, figure: str = FIGURE, **blocks: dict) -> Plan:
    (project / "workflow/tables/infer/figure2.yaml").write_text(figure)
    scale = project / "workflow/scales/tiny.yaml"
    settings = yaml.safe_load(scale.read_text())
    settings["analyse"] = {"continual": {"steps": 3}}
    settings["tables"]["infer/figure2"] = {"dataset": ["digits"], "student": ["net-a"], "ipc": [5]}
    for stage_name, block in blocks.items():
        settings[stage_name] |= block
    scale.write_text(yaml.safe_dump(settings))
    return Plan(project)


def test_a_continual_cell_carries_the_protocol_of_its_row(project):
    plan = course_plan(project)
    students = {p.row.row: p.students for p in plan.cells("table2")}
    for position in plan.cells("figure2"):
        for course, student in zip(position.students, students[position.row.row], strict=True):
            analysis = {"name": "continual", "steps": 3, "teacher_scope": "all", "head": "seen"}
            assert course.spec.recipe == {"analysis": analysis, **student.spec.recipe}
            assert course.inputs == student.inputs
            assert {*student.spec.roots, module_name("analysis", "continual")} <= {
                *course.spec.roots,
                "distillery.stages.evaluate",
            }
    assert not any(node.spec.stage == "evaluate" for node in plan.missing(["figure2"]))
    node, student = plan.cells("figure2")[0].students[0], students["Random"][0]
    estimator = Estimator(plan.settings, plan.store)
    assert estimator.cost(node).seconds == pytest.approx(
        2 * estimator.cost(student).seconds
    )  # thirds 1 + 2 + 3 of it


def test_labels_for_the_batches_of_one_training_do_not_fit(project):
    figure = FIGURE.replace("labels: static", "labels: fkd, protocol: static")
    plan = course_plan(project, figure, label={"fkd": {"teachers": ["net-a"]}})
    with pytest.raises(
        PlanError, match="row 'INFER': labels 'fkd' fit the batches of one training"
    ):
        plan.cells("figure2")
