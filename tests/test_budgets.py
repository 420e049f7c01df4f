"""Budgets that are not those of a place and a protocol: all images, equal bytes, equal steps."""

from dataclasses import replace

import pytest
import torch

from distillery.errors import ArtefactError, PlanError
from distillery.sets.load import load_set
from distillery.stages import distill, evaluate
from distillery.store.artefact import Artefact
from helpers.jobs import job_in
from helpers.planning import at, ids, planned
from helpers.tiny import data_artefact, tiny_set

FULL = {"method": {"name": "full"}, "ipc": 8.5}
DIGITS = 64  # pixels of a digit


@pytest.fixture
def uneven():
    """34 images of four classes in no order, seven of the third class."""
    train = tiny_set(per_class=9)
    keep = torch.cat([train.of_class(c)[: 7 if c == 2 else 9] for c in range(4)])
    keep = keep[torch.randperm(len(keep), generator=torch.Generator().manual_seed(0))]
    return replace(train, images=train.images[keep], labels=train.labels[keep])


def full_set(folder, train):
    """The artefact of the whole data, and the data."""
    data = data_artefact(folder / "data", train, test=train)
    job = job_in(folder, recipe=FULL, inputs={"data": data})
    return Artefact(job.out, {"id": "full", "metadata": distill.make(job)}), data


def test_the_whole_data_are_its_images_in_their_order(tmp_path, uneven):
    stored, data = full_set(tmp_path, uneven)
    instances = load_set(stored.path, data).expand()
    assert torch.equal(instances.labels, uneven.labels)
    assert torch.equal(instances.images, uneven.images.float() / 255)
    picked = torch.tensor([5, 0, 33])
    assert torch.equal(instances.take(picked), uneven.images[picked].float() / 255)


def test_the_whole_data_store_nothing_and_count_a_byte_per_pixel(tmp_path, uneven):
    stored, _ = full_set(tmp_path, uneven)
    assert sum(file.stat().st_size for file in stored.path.iterdir()) < 2000
    metadata = stored.metadata
    assert metadata["bytes"] == metadata["numbers"] == {"training images": 34 * 8 * 8}
    assert metadata["kinds"] == {"training images": "image"}
    assert metadata["instances"] == 34


def test_the_whole_data_cannot_be_read_without_them(tmp_path, uneven):
    stored, _ = full_set(tmp_path, uneven)
    with pytest.raises(ArtefactError, match="read it with the data artefact"):
        load_set(stored.path)


def test_a_student_learns_from_the_whole_data(tmp_path, uneven):
    stored, data = full_set(tmp_path, uneven)
    training = {"epochs": 2, "batch": 10, "optimizer": {"name": "sgd", "lr": 0.1}, "augment": []}
    recipe = {
        "student": {"name": "convnet", "width": 4, "depth": 2, "norm": "batch"},
        "labels": {"name": "hard"},
        "loss": {"name": "ce"},
        "training": training | {"test_every": 2},
    }
    inputs = {"data": data, "distilled": stored}
    made = evaluate.make(job_in(tmp_path, "student", recipe=recipe, inputs=inputs))
    assert made["instances"] == 34
    assert made["steps"] == 2 * 4  # of 10, 10, 10 and 4


def ipc_of(plan, table, row):
    """The images per class of each set of a row, by the ipc of its place."""
    cells = [cell for cell in plan.cells(table) if cell.row.row == row and cell.distilled]
    return {cell.ipc: cell.distilled[0].spec.recipe["ipc"] for cell in cells}


def test_the_whole_data_are_one_artefact_at_every_ipc():
    plan = at("paper")
    assert ipc_of(plan, "cross/hard", "Full data") == {10: 500, 50: 500}  # of CIFAR-100, the last
    made = {
        cell.distilled[0]
        for cell in plan.cells("cross/hard")
        if cell.row.row == "Full data" and cell.dataset == "cifar10"
    }
    assert [node.spec.recipe["ipc"] for node in made] == [5000]
    assert ipc_of(at("demo"), "cross/hard", "Full data") == {5: 143.7}


def test_labels_cannot_be_stored_for_the_whole_data(project, edit):
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "method: random, labels: hard",
        "method: full, labels: static",
    )
    edit(project / "workflow/scales/tiny.yaml", "  random: {}", "  full: {}")
    with pytest.raises(PlanError, match="labels 'static' are stored for each image, method 'full'"):
        planned(project).missing(["table2"])


# Bytes of ten classes of digits at n images per class, worked out by hand: images of one byte per
# number (float32 where they are learned freely), compensators of two; soft labels of ten float16.
def static(images):
    return 2 * 10 * images


def infer_subsets(n):
    return n * 10 // (10 + 4)  # four teachers


STORED = {
    "Random, hard labels": lambda n: 10 * n * DIGITS,
    "Random, static labels": lambda n: 10 * n * DIGITS + static(10 * n),
    "INFER, static labels": lambda n: (
        infer_subsets(n) * (10 + 2 * 4) * DIGITS + static(infer_subsets(n) * 10 * (4 + 1))
    ),
    "RDED, labels at training": lambda n: 10 * n * DIGITS,
    "INFER, labels at training": lambda n: infer_subsets(n) * (10 + 2 * 4) * DIGITS,
    "RaT-BPTT, own labels": lambda n: 4 * 10 * n * DIGITS + 4 * 10 * n * 10 + 2 * 10,
}


@pytest.mark.parametrize("row", STORED)
def test_a_budget_of_bytes_takes_the_most_images_that_fit(row):
    fits = [n for n in range(1, 11) if STORED[row](n) <= 10 * 10 * DIGITS]
    assert ipc_of(at("demo"), "cross/equal-bytes", row) == {10: max(fits)}


def test_a_poster_takes_a_fraction_of_an_image():
    (found,) = ipc_of(at("demo"), "cross/equal-bytes", "PoDD, own labels").values()
    numbers = [4 * n * DIGITS + 4 * 10 * max(10, n) + 2 * 10 for n in range(1, 101)]
    assert round(10 * found) == max(n for n in range(1, 101) if numbers[n - 1] <= 6400)


def test_bytes_that_hold_no_image_are_said_while_planning(project, edit):
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "method: infer, labels: static",
        "method: random, labels: static, budget: bytes",
    )
    edit(project / "workflow/scales/tiny.yaml", "ipc: [5]", "ipc: [1]")
    with pytest.raises(
        PlanError, match="budget: bytes: takes 840 bytes at ipc 1, more than the 640"
    ):
        planned(project).missing(["table2"])


def test_labels_that_do_not_say_their_bytes_cannot_be_within_a_budget(project, edit):
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "method: infer, labels: static",
        "method: infer, labels: {kind: fkd, recipe: dynamic}, protocol: dynamic, budget: bytes",
    )
    with pytest.raises(PlanError, match="labels 'fkd' do not say how many bytes they take"):
        planned(project).missing(["table2"])


def trained(plan, table, row, ipc):
    """Training and instances of a row's students at digits' first student."""
    cells = [c for c in plan.cells(table) if c.row.row == row and c.ipc == ipc and c.evaluations]
    node = cells[0].students[0]
    return node.spec.recipe["training"], node.input("distilled").spec.recipe["ipc"]


def test_equal_steps_by_hand():
    plan = at("demo")
    infer, _ = trained(plan, "infer/ablation", "INFER", 10)
    # 10 classes at ipc 10 and four teachers: 7 subsets of 10, each with and without compensators
    steps = infer["epochs"] * (7 * 10 * (4 + 1) // infer["batch"])
    training, ipc = trained(plan, "infer/ablation", "without compensators, INFER's steps", 10)
    assert (ipc, training["batch"], infer["batch"]) == (10, 25, 25)
    assert training["epochs"] * (10 * 10 // 25) == pytest.approx(steps, abs=4)
    as_ever, _ = trained(plan, "infer/ablation", "without compensators", 10)
    assert as_ever["epochs"] == infer["epochs"] < training["epochs"]
    assert (
        training["epochs"] // training["test_every"] == as_ever["epochs"] // as_ever["test_every"]
    )
    assert {k: v for k, v in training.items() if k not in ("epochs", "test_every")} == {
        k: v for k, v in as_ever.items() if k not in ("epochs", "test_every")
    }


def test_equal_steps_of_the_row_itself_change_nothing(project, edit):
    file = project / "workflow/tables/infer/table2.yaml"
    before = ids(planned(project))
    edit(file, "method: infer, labels: static", "method: infer, labels: static, steps_as: INFER")
    assert ids(planned(project)) == before


def test_a_row_whose_steps_are_asked_for_must_exist(project, edit):
    edit(
        project / "workflow/tables/infer/table2.yaml",
        "method: infer, labels: static",
        "method: infer, labels: static, steps_as: Rando",
    )
    with pytest.raises(PlanError, match="steps_as 'Rando': no such row: did you mean 'Random'"):
        planned(project).missing(["table2"])
