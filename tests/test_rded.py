"""RDED against a slow loop over images and crops, and its stitching by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from distillery.errors import BudgetError
from distillery.methods import rded
from distillery.store.job import Job
from distillery.teacher.load import Teacher
from distillery.training.boxes import draw_boxes
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.methods import distil
from helpers.tiny import TinySet, tiny_set, tiny_teacher

RDED = {"name": "rded", "teachers": ["net"], "pool": 10, "crops": 3}


def slow_class(
    train: TinySet, label: int, count: int, factor: int, together: int, teacher: Teacher, job: Job
) -> list[Tensor]:
    """The best crops (uint8) of a class, one by one, cut by torchvision, scored in float64."""
    stream, members = job.generator(f"class/{label}"), train.of_class(label)
    pool = members[torch.randperm(len(members), generator=stream)[:10]]
    drawn = [
        draw_boxes(3 * len(part), (8, 8), stream, 0.08, (1, 1)) for part in pool.split(together)
    ]
    starts, sizes = (torch.cat(found, 1) for found in zip(*drawn, strict=True))
    best, side = [], 8 // factor
    for i, member in enumerate(pool):
        image, found = train.images[member].float() / 255, []
        for box in range(3 * i, 3 * i + 3):
            place = [int(v) for v in (*starts[:, box], *sizes[:, box])]
            assert place[2] == place[3], "crops are square"
            crop = tv.resized_crop(image, *place, size=[side, side], antialias=True)
            canvas = torch.zeros_like(image)
            edge = (8 - side) // 2
            canvas[:, edge : edge + side, edge : edge + side] = (crop - 0.5) / 0.25
            probability = teacher.model(canvas[None])[0].double().softmax(0)[label]
            found.append((-probability.log().item(), crop))
        best.append(min(found, key=lambda pair: pair[0]))
    return [
        (crop * 255).round().to(torch.uint8)
        for _, crop in sorted(best, key=lambda pair: pair[0])[:count]
    ]


@pytest.mark.parametrize(("factor", "ipc", "together"), [(1, 4, 100), (2, 2, 100), (2, 2, 4)])
def test_selection_is_the_slow_loop(factor, ipc, together, tmp_path, monkeypatch):
    monkeypatch.setattr(rded, "BATCH", 3 * together)
    train = tiny_set(per_class=14, channels=3)
    teacher, job = tiny_teacher(train), job_in(tmp_path)
    distilled = distil({**RDED, "factor": factor}, train, ipc, job, [teacher])
    images, side = distilled.expand().images.unflatten(0, (ipc, 4)), 8 // factor
    for label in range(4):
        crops = slow_class(train, label, ipc * factor**2, factor, together, teacher, job)
        for rank, crop in enumerate(crops):
            row, column = divmod(rank // ipc, factor)
            cell = images[
                rank % ipc,
                label,
                :,
                row * side : (row + 1) * side,
                column * side : (column + 1) * side,
            ]
            assert (cell - crop.float() / 255).abs().max() < 1.1 / 255, (label, rank)
    assert distilled["labels"].tolist() == [0, 1, 2, 3] * ipc
    assert distilled.bytes == {"images": 4 * ipc * 192}


def test_stitching_by_hand_for_two_images_of_four_crops():
    crops = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    first, second = rded.stitch(crops, (4, 4), 2)[:, 0]
    assert first.tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6], [4, 4, 6, 6]]
    assert second.tolist() == [[1, 1, 3, 3], [1, 1, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]]


def test_cells_of_unequal_size_are_filled_with_the_nearest_pixels():
    # 5 pixels are cells of 3 and 2; a crop of 2 pixels resized to 3 repeats its first
    crops = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(4, 1, 2, 2)
    line = [1, 1, 2, 1, 2]
    low = [3, 3, 4, 3, 4]
    assert rded.stitch(crops, (5, 5), 2)[0, 0].tolist() == [line, line, low, line, low]


def test_padding_is_centred():
    found = rded.centred(torch.ones(1, 1, 2, 1), (5, 4))[0, 0]
    assert found.nonzero().tolist() == [[1, 1], [2, 1]]


def test_factor_one_with_the_whole_area_keeps_the_images_the_teacher_knows_best(tmp_path):
    train = tiny_set()
    teacher = tiny_teacher(train)
    images = distil({**RDED, "pool": 300, "smallest": 1.0}, train, 3, job_in(tmp_path), [teacher])[
        "images"
    ]
    for label in range(4):
        own = train.images[train.of_class(label)]
        losses = -teacher.model((own.float() / 255 - 0.5) / 0.25).log_softmax(1)[:, label]
        assert torch.equal(images[label::4], own[losses.argsort()[:3]])


@pytest.mark.parametrize(
    ("fields", "ipc", "message"),
    [
        ({}, 0, "ipc = 0"),
        (
            {"pool": 300},
            8,
            "needs 8 images of each class, 7 of the 7 images of class 'class 2'.* lower ipc to 7",
        ),
        ({"factor": 2}, 2, "factor 2 needs 8 images of each class, 7 of the 7 .* lower ipc to 1"),
        ({"pool": 3}, 4, r"3 of the 7 images of class 'class 2' are in the pool \(pool = 3\)"),
    ],
)
def test_a_budget_that_the_pool_cannot_fill(fields, ipc, message, tmp_path):
    train = tiny_set(per_class=9)
    keep = torch.cat([train.of_class(c)[: 7 if c == 2 else 9] for c in range(4)])
    train = TinySet(train.images[keep], train.labels[keep], train.classes)
    with pytest.raises(BudgetError, match=message):
        distil({**RDED, **fields}, train, ipc, job_in(tmp_path), [tiny_teacher(train)])
    assert (
        len(
            distil(
                {**RDED, "pool": 300}, train, 7, job_in(tmp_path / "all"), [tiny_teacher(train)]
            ).expand()
        )
        == 28
    )


def test_the_first_teacher_scores_and_comes_out_as_it_went_in(tmp_path):
    train = tiny_set()
    teachers = [tiny_teacher(train), tiny_teacher(train, 6, 1)]
    before = {k: v.clone() for k, v in teachers[0].model.state_dict().items()}
    one = distil(RDED, train, 3, job_in(tmp_path / "a"), teachers)
    assert all(torch.equal(v, before[k]) for k, v in teachers[0].model.state_dict().items())
    assert not teachers[0].model.training
    alone, other = (
        distil(RDED, train, 3, job_in(tmp_path / name), [teacher])
        for name, teacher in zip("bc", teachers, strict=True)
    )
    assert torch.equal(one["images"], alone["images"])
    assert not torch.equal(one["images"], other["images"])


def test_same_cell_same_bytes_also_after_a_kill(tmp_path, monkeypatch):
    train, calls, whole = tiny_set(), [], rded.class_images
    teachers = [tiny_teacher(train)]
    expected, other = (
        distil(RDED, train, 3, job_in(tmp_path / key, key), teachers)["images"]
        for key in ("one", "two")
    )
    assert not torch.equal(expected, other)

    def killed(*arguments: object) -> Tensor:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return whole(*arguments)

    monkeypatch.setattr(rded, "class_images", killed)
    job = job_in(tmp_path / "killed", "one")
    with saving(), pytest.raises(KeyboardInterrupt):
        distil(RDED, train, 3, job, teachers)
    calls[:] = [1] * 3
    assert torch.equal(distil(RDED, train, 3, job, teachers)["images"], expected)
    assert len(calls) == 5, "only the two classes that were missing are made"


@pytest.mark.parametrize(
    ("ipc", "images", "refused"),
    [(75, 1281.2, False), (76, 1281.2, True), (50, 200.0, False), (51, 203.9, True)],
)
def test_the_plan_knows_whether_the_pool_has_an_image_for_each_crop(ipc, images, refused):
    recipe = rded.Recipe(teachers=("a",), factor=2, pool=300)  # 4 crops of an image
    said = recipe.misfit(ipc, 1000, 224, images)
    assert (said is not None) == refused
    if said:
        assert said[0] == "pool" and f"needs {4 * ipc} images of each class" in said[1]
