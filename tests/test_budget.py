"""Budgets and statistics, against the papers' printed ratios, values worked by hand and scipy."""

import itertools
import math

import pytest
from scipy import stats as scipy_stats

from distillery.errors import BudgetError
from distillery.table.budget import IMAGENET_BYTES, IMAGENET_IMAGES, cr_paper, cr_stored
from distillery.table.stats import half_width, summarize, welch
from helpers.tables import evaluation, grid, made, make_plan, make_store, put, put_infer

PRINTED = {  # INFER Table 2, percent
    ("hard", 10): 0.78,
    ("hard", 50): 3.90,
    ("static", 10): 0.81,
    ("static", 50): 4.04,
    ("dynamic", 10): 4.53,
    ("dynamic", 50): 22.67,
}


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


@pytest.fixture
def plan():
    return make_plan()


@pytest.mark.parametrize(("labels", "ipc"), PRINTED)
def test_ratios_of_infer_table_2_to_the_last_digit(labels, ipc):
    found = cr_paper(ipc, 1000, IMAGENET_IMAGES, IMAGENET_BYTES, labels)
    assert found == pytest.approx(PRINTED[labels, ipc], abs=0.005)


def test_label_saving_of_the_abstract():
    images, static, dynamic = (
        cr_paper(50, 1000, IMAGENET_IMAGES, IMAGENET_BYTES, k)
        for k in ("hard", "static", "dynamic")
    )
    assert 100 * (1 - (static - images) / (dynamic - images)) == pytest.approx(99.3, abs=0.05)


def test_another_dataset_by_hand():
    # 10 classes, ipc 7: 70 of 1400 images are 5 %; 70 x 10 float32 values are 2800 bytes of 89 600,
    # 3.125 %.
    assert cr_paper(7, 10, 1400, 89_600, "hard") == pytest.approx(5.0)
    assert cr_paper(7, 10, 1400, 89_600, "static") == pytest.approx(8.125)
    # Dynamic: 700 values x 20 epochs of the 1.5e10 values that take 25.9 GiB.
    assert cr_paper(7, 10, 1400, 89_600, "dynamic", epochs=20) == pytest.approx(
        5 + 100 * 14_000 * 25.9 * 2**30 / 1.5e10 / 89_600
    )


@pytest.mark.parametrize("labels", ["hard", "static", "dynamic"])
@pytest.mark.parametrize("ipc", [0.3, 1, 50])
def test_ratio_is_linear_in_the_budget(ipc, labels):
    one, three = (cr_paper(k * ipc, 100, 50_000, 153_600_000, labels, epochs=400) for k in (1, 3))
    assert three == pytest.approx(3 * one)


def test_impossible_budgets_are_named():
    with pytest.raises(BudgetError, match=r"labels 'statik'.*did you mean 'static'"):
        cr_paper(10, 10, 100, 1000, "statik")
    with pytest.raises(BudgetError, match="ipc = 0"):
        cr_paper(0, 10, 100, 1000, "hard")
    with pytest.raises(BudgetError, match="raw bytes"):
        cr_stored(10, 0)


def test_stored_bytes_over_raw_bytes():
    assert cr_stored(150, 1000) == 15.0
    assert cr_stored(2600, 1000) == 260.0  # dynamic labels of CIFAR-100 at ipc 50 outgrow the data


def test_interval_by_hand():
    # 2, 4, 9: mean 5, deviations -3, -1, 4, variance 26 / 2; t_{0.975, 2} = 4.302653 in every t
    # table.
    found = summarize([[2.0, 4.0, 9.0]])
    assert (found.mean, found.n) == (5.0, 3)
    assert (found.over, found.draws, found.students) == ("students", 1, 3)
    assert found.std == pytest.approx(math.sqrt(13))
    assert found.ci95 == pytest.approx(4.302653 * math.sqrt(13 / 3), rel=1e-6)
    assert half_width(1.0, 4, 0.9) == pytest.approx(2.353363 / 2, rel=1e-6)


def test_draws_are_counted_once_each_with_the_mean_of_their_students():
    # Means of the draws 3, 5, 10: mean 6, deviations -3, -1, 4, variance 26 / 2. Six values as one
    # heap have the same mean but other deviations: -5, -1, -2, 0, 3, 5.
    nested = [[1.0, 5.0], [4.0, 6.0], [9.0, 11.0]]
    found = summarize(nested)
    assert (found.mean, found.n) == (6.0, 3)
    assert (found.over, found.draws, found.students) == ("draws", 3, 2)
    assert found.std == pytest.approx(math.sqrt(13))
    assert found.ci95 == pytest.approx(4.302653 * math.sqrt(13 / 3), rel=1e-6)
    heap = summarize([[value for draw in nested for value in draw]])
    assert heap.std == pytest.approx(math.sqrt(64 / 5)), "which is not what the draws spread by"


def test_a_draw_counts_once_however_many_students_it_has():
    found = summarize([[0.0, 0.0, 3.0], [5.0]])  # means 1 and 5
    assert (found.mean, found.n, found.students) == (3.0, 2, 1)
    assert found.std == pytest.approx(math.sqrt(8))


def test_one_value_has_no_spread():
    found = summarize([[41.2]])
    assert (found.mean, found.std, found.n, found.ci95) == (41.2, None, 1, None)
    for nothing in ([], [[]], [[1.0], []]):
        with pytest.raises(ValueError, match="no values"):
            summarize(nothing)


def test_summary_ignores_order():
    values = [61.13, 0.1, 98.7, 33.3, 33.3, 7.0001]
    assert {summarize([order]) for order in itertools.permutations(values)} == {summarize([values])}
    draws = [values[:2], values[2:4], values[4:]]
    assert {summarize(order) for order in itertools.permutations(draws)} == {summarize(draws)}


def test_welch_by_hand_and_by_scipy():
    a, b = [60.2, 61.0, 60.6], [58.1, 60.3, 59.5, 57.7]
    va, vb = (
        0.16 / 3,
        (0.8**2 + 1.4**2 + 0.6**2 + 1.2**2) / 3 / 4,
    )  # squared standard errors; means 60.6 and 58.9
    df = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)
    found = welch(a, b)
    assert found.difference == pytest.approx(1.7)
    assert found.t == pytest.approx(1.7 / math.sqrt(va + vb))
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(found.t, df))
    by_moments = scipy_stats.ttest_ind_from_stats(
        60.6, 0.4, 3, 58.9, math.sqrt(4 * vb), 4, equal_var=False
    )
    assert (found.t, found.p) == pytest.approx(tuple(by_moments))


def test_welch_refuses_what_has_no_spread():
    with pytest.raises(ValueError, match="two values on each side, not 1 and 2"):
        welch([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="differ"):
        welch([1.0, 1.0], [2.0, 2.0])


def test_numbers_stored_for_images_and_for_labels_stand_apart(plan, store, tmp_path):
    numbers = {"canvas": 3 * 320 * 320, "opinions": 10000, "order": 100}
    kinds = {"canvas": "image", "opinions": "soft label", "order": "index"}
    canvas = {"bytes": {"canvas": 1}, "numbers": numbers, "kinds": kinds}
    put_infer(store, canvas, {"bytes": {"labels": 1400}})
    images = {"numbers": {"images": 4480}, "kinds": {"images": "image"}}
    random = evaluation(31.5, 31.5, distilled={"bytes": {"images": 4480}, **images})
    put(store, "evaluate/random-r0", random)
    random, _, infer = made(plan, store, tmp_path / "table2")
    assert (random["pixels"], random["label_floats"]) == ("4480", "0")
    # Its stored labels do not say what they are.
    assert (infer["pixels"], infer["label_floats"]) == ("", "")
    stored = {"numbers": {"labels": 700, "seeds": 3}}
    stored |= {"kinds": {"labels": "soft label", "seeds": "index"}}
    put_infer(store, canvas, {"bytes": {"labels": 1400}, **stored})
    *_, infer = made(plan, store, tmp_path / "table2")
    assert (infer["pixels"], infer["label_floats"]) == ("307200", "10700")
    stored = grid((tmp_path / "table2.md").read_text(), "Stored")
    assert stored[-1][-3:-1] == ["307200", "10700"]
