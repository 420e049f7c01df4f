"""CDA: its curriculum by hand, and SRe2L where there is none."""

from __future__ import annotations

import pytest
import torch

from distillery.errors import PlanError
from distillery.methods import cda
from distillery.training.augmentations import resized_crop
from helpers.jobs import job_in
from helpers.methods import SRE2L, distil
from helpers.tiny import tiny_set, tiny_teacher

CROPS = {**SRE2L, "augment": ["batch-resized-crop", "batch-flip", "roll:4"]}


@pytest.mark.parametrize(
    ("step", "milestone", "bound"),
    [
        # 0.08 + 0.92 (1 + cos(pi t / (gamma 1000))) / 2: cosine 1 at the start, 0 at half, -1 at
        # the end of the fall
        *((0, 1.0, 1.0), (500, 1.0, 0.54), (999, 1.0, 0.08)),
        # a third of the way the cosine is 1/2, hence 3/4 of the fall is left
        *((200, 0.6, 0.08 + 0.92 * 0.75), (300, 0.6, 0.54), (600, 0.6, 0.08), (999, 0.6, 0.08)),
        *((0, 0.0, 0.08), (500, 0.0, 0.08)),
    ],
)
def test_bound_by_hand(step, milestone, bound):
    assert cda.smallest_crop(step, 1000, milestone) == pytest.approx(bound, abs=3e-6)


def test_bound_falls_and_stays_a_share():
    bounds = [cda.smallest_crop(step, 333, 0.7) for step in range(333)]
    assert bounds[0] == 1.0 and bounds[-1] == 0.08 and bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("together", [1, 2])
def test_without_a_curriculum_it_is_sre2l_bit_for_bit(together, tmp_path):
    train = tiny_set()
    teachers = [tiny_teacher(train)]
    plain = distil(
        {**CROPS, "parallel_groups": together}, train, 3, job_in(tmp_path / "a"), teachers
    )
    fields = {**CROPS, "parallel_groups": together, "name": "cda"}
    same, other = (
        distil({**fields, "milestone": gamma}, train, 3, job_in(tmp_path / str(gamma)), teachers)
        for gamma in (0.0, 1.0)
    )
    assert torch.equal(plain["images"], same["images"])
    assert not torch.equal(plain["images"], other["images"])
    assert same.method == "cda" and same["labels"].tolist() == [0, 1, 2, 3] * 3


def test_each_step_crops_the_whole_batch_once_within_its_bound(tmp_path, monkeypatch):
    train, drawn, draw = tiny_set(), [], resized_crop.draw_boxes

    def record(count: int, shape: tuple, stream: torch.Generator, smallest: float) -> tuple:
        drawn.append((count, smallest))
        return draw(count, shape, stream, smallest)

    monkeypatch.setattr(resized_crop, "draw_boxes", record)
    distil(
        {**CROPS, "name": "cda", "iterations": 6}, train, 2, job_in(tmp_path), [tiny_teacher(train)]
    )
    assert drawn == [(1, cda.smallest_crop(step, 6, 1.0)) for step in range(6)] * 2


def test_same_bytes_again(tmp_path):
    train = tiny_set()
    one, again, other = (
        distil(
            {**CROPS, "name": "cda"}, train, 2, job_in(tmp_path / name, key), [tiny_teacher(train)]
        )["images"]
        for name, key in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("names", [[], ["roll:4"], ["batch-resized-crop:0.08"]])
def test_a_recipe_without_the_crop_to_schedule_is_refused(names, tmp_path):
    train = tiny_set()
    with pytest.raises(PlanError, match="add 'batch-resized-crop', without a number"):
        distil(
            {**CROPS, "name": "cda", "augment": names},
            train,
            1,
            job_in(tmp_path),
            [tiny_teacher(train)],
        )
