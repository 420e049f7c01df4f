"""Mean, spread and interval of a number that was measured several times, and tests of differences.

A number is measured on students of distilled sets. Several students of one set tell how much
students differ; only several draws of the set tell how much the method does. So where there are
several draws, a draw counts once, with the mean of its students.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

DRAWS, STUDENTS = "draws", "students"


@dataclass(frozen=True)
class Summary:
    """What the values of a cell come to.

    Attributes:
        mean: of the draws' means.
        std: sample standard deviation (ddof = 1) of what `over` says; None for a single value,
            which has no spread.
        n: number of values that the spread is over.
        ci95: half the 95 % t-interval of the mean; None for a single value.
        over: "draws" where there are several, each by the mean of its students; else "students".
        draws: sets.
        students: measured on each set; the least number, should they differ.
    """

    mean: float
    std: float | None
    n: int
    ci95: float | None
    over: str = STUDENTS
    draws: int = 1
    students: int = 1


@dataclass(frozen=True)
class Welch:
    """Welch's t-test of mean(a) - mean(b).

    Attributes:
        difference: mean(a) - mean(b).
        t: the statistic.
        df: degrees of freedom, a fraction.
        p: two-sided.
    """

    difference: float
    t: float
    df: float
    p: float


def summarize(draws: Sequence[Sequence[float]]) -> Summary:
    """The summary of the values of a cell; it does not depend on their order.

    Args:
        draws: for each draw of the set the values of its students.

    Raises:
        ValueError: there is no draw, or one without a value.
    """
    if not draws or not all(draws):
        raise ValueError("no values to summarize")
    over = DRAWS if len(draws) > 1 else STUDENTS
    values = draw_means(draws) if over == DRAWS else draws[0]
    n, students = len(values), min(map(len, draws))
    std = statistics.stdev(values) if n > 1 else None
    ci95 = None if std is None else half_width(std, n)
    return Summary(statistics.fmean(values), std, n, ci95, over, len(draws), students)


def draw_means(draws: Sequence[Sequence[float]]) -> list[float]:
    """The mean of the students of each draw."""
    return [statistics.fmean(values) for values in draws]


def half_width(std: float, n: int, level: float = 0.95) -> float:
    """Half the width of Student's t-interval of a mean.

    It is t_{(1 + level) / 2, n - 1} std / sqrt(n).

    Args:
        std: sample standard deviation (ddof = 1).
        n: number of values, at least 2.
        level: of confidence, in (0, 1).
    """
    from scipy import stats  # half a second, which a plan does without

    return float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5


def welch(a: Sequence[float], b: Sequence[float]) -> Welch:
    """Welch's t-test, for unequal variances.

    Raises:
        ValueError: a side has fewer than two values, or neither side varies.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Welch's test needs two values on each side, not {len(a)} and {len(b)}")
    if len(set(a)) == len(set(b)) == 1:
        raise ValueError("Welch's test needs a side whose values differ")
    difference = statistics.fmean(a) - statistics.fmean(b)
    # squared standard errors of the means; one of them may be 0
    error_a, error_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    t = difference / (error_a + error_b) ** 0.5
    df = (error_a + error_b) ** 2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    from scipy import stats

    return Welch(difference, t, df, 2 * float(stats.t.sf(abs(t), df)))


def paired(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test of mean(a) - mean(b); None where no difference varies.

    Raises:
        ValueError: there are fewer than two pairs, or one side has more values.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a paired test needs two pairs or more, not {len(a)} and {len(b)} values")
    if len({round(x - y, 9) for x, y in zip(a, b, strict=True)}) == 1:  # but for rounding
        return None
    from scipy import stats

    return float(stats.ttest_rel(a, b).pvalue)


def corrected(p_values: Sequence[float]) -> list[float]:
    """The p-values of tests that are read together, corrected for their number.

    Benjamini and Hochberg's step-up: of the differences below a level, the expected share of those
    that are none is below it.
    """
    from scipy import stats

    return [float(q) for q in stats.false_discovery_control(p_values)] if p_values else []
