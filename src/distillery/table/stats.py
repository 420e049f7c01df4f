"""Mean, spread and interval of repeats, and the test of a difference that a table claims."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Summary:
    """What repeats come to.

    Attributes:
        mean: of the repeats.
        std: sample standard deviation (ddof = 1); None for a single repeat, which has no spread.
        n: number of repeats.
        ci95: half the 95 % t-interval of the mean; None for a single repeat.
    """

    mean: float
    std: float | None
    n: int
    ci95: float | None


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


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one value; it does not depend on their order.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("no values to summarize")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Summary(mean, None, 1, None)
    std = statistics.stdev(values)
    return Summary(mean, std, n, half_width(std, n))


def half_width(std: float, n: int, level: float = 0.95) -> float:
    """Half the width of Student's t-interval of a mean.

    It is t_{(1 + level) / 2, n - 1} std / sqrt(n).

    Args:
        std: sample standard deviation (ddof = 1).
        n: number of values, at least 2.
        level: of confidence, in (0, 1).
    """
    return float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5


def welch(a: Sequence[float], b: Sequence[float]) -> Welch:
    """Welch's t-test, for unequal variances.

    Raises:
        ValueError: a side has fewer than two values, or neither side varies.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Welch's test needs two repeats on each side, not {len(a)} and {len(b)}")
    if len(set(a)) == len(set(b)) == 1:
        raise ValueError("Welch's test needs a side whose repeats differ")
    difference = statistics.fmean(a) - statistics.fmean(b)
    # squared standard errors of the means; one of them may be 0
    error_a, error_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    t = difference / (error_a + error_b) ** 0.5
    df = (error_a + error_b) ** 2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    return Welch(difference, t, df, 2 * float(stats.t.sf(abs(t), df)))
