"""Mean, spread and interval of repeats, and the test of a difference that a table claims."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Summary:
    """Of n repeats: mean; std, the sample standard deviation (ddof = 1); ci95, half the 95% t-interval of the mean.

    std and ci95 are None for a single repeat, which has no spread.
    """

    mean: float
    std: float | None
    n: int
    ci95: float | None


@dataclass(frozen=True)
class Welch:
    """Welch's t-test of mean(a) - mean(b): the difference, t, the (fractional) degrees of freedom and the two-sided p."""

    difference: float
    t: float
    df: float
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one value; it does not depend on their order. Raises ValueError when there is none."""
    if not values:
        raise ValueError("no values to summarize")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Summary(mean, None, 1, None)
    std = statistics.stdev(values)
    return Summary(mean, std, n, half_width(std, n))


def half_width(std: float, n: int, level: float = 0.95) -> float:
    """Half the width of Student's t-interval of a mean: t_{(1 + level) / 2, n - 1} std / sqrt(n), for n >= 2."""
    return float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5


def welch(a: Sequence[float], b: Sequence[float]) -> Welch:
    """Welch's unequal-variances t-test. Raises ValueError unless both sides have two values and one of them varies."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Welch's test needs two repeats on each side, not {len(a)} and {len(b)}")
    if len(set(a)) == len(set(b)) == 1:
        raise ValueError("Welch's test needs a side whose repeats differ")
    found = stats.ttest_ind(a, b, equal_var=False)
    difference = statistics.fmean(a) - statistics.fmean(b)
    return Welch(difference, float(found.statistic), float(found.df), float(found.pvalue))
