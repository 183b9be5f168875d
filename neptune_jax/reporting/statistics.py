"""How far a figure can be trusted: intervals of metrics, and comparisons of runs.

Two things vary. The images of a test are a sample of all that one could test on: `wilson`,
`mcnemar_exact`, `paired_difference`, `binomial_error` and resampling.py are about it, for runs as
they are. Trainings with other seeds give other networks: the rest is about it, for groups of runs.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

_EXACT_PAIRS = 20  # of a sign-flip test; with more, signs are drawn

Interval = tuple[float, float]


def wilson(correct: float, count: int, level: float = 0.95) -> Interval:
    """Returns the interval of a proportion by its score test (Wilson, 1927).

    It stays within [0, 1] and holds its level for few examples and for proportions near 0 or 1.

    Args:
        correct: successes, for example images that are classified correctly; a tie may count half.
        count: of all examples; with 0 of them the interval is (0, 1).
        level: of confidence.
    """
    if not count:
        return 0.0, 1.0
    z, share = _normal_quantile(level), correct / count
    center = share + z**2 / (2 * count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    scale = 1 + z**2 / count
    # Rounding must not keep 0 and 1 out of the intervals that end there.
    low = (center - half) / scale if correct else 0.0
    high = (center + half) / scale if correct < count else 1.0
    return low, high


def mcnemar_exact(b: int, c: int) -> float:
    """Returns the two-sided p-value of McNemar's test (1947), exact by the binomial distribution.

    The hypothesis: where exactly one of two runs is right, each of them is so equally often.

    Args:
        b: examples that only the one run classifies correctly.
        c: those that only the other one does.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def paired_difference(b: int, c: int, count: int, level: float = 0.95) -> tuple[float, Interval]:
    """Returns the difference of two accuracies on the same examples, and its interval.

    The interval is that of the score test (Tango, 1998, Statistics in Medicine 17, 891-908), as
    Wilson's is for one accuracy: it holds its level also where few examples differ.

    Args:
        b: examples that only the first run classifies correctly.
        c: those that only the second one does.
        count: of all examples.
        level: of confidence.

    Returns:
        The accuracy of the first run minus that of the second, and (low, high).
    """
    from scipy.optimize import brentq

    z, difference = _normal_quantile(level), (b - c) / count

    def excess(delta, z):
        """How far the observed difference is above `delta`, beyond z standard errors."""
        # The share of examples that only the second run gets right, by maximum likelihood under
        # the hypothesis that the difference is `delta` (Tango, equation 7).
        linear = -b - c + (2 * count - b + c) * delta
        root = max(0.0, linear**2 + 8 * count * c * delta * (1 - delta)) ** 0.5
        share = (root - linear) / (4 * count)
        variance = count * max(0.0, 2 * share + delta * (1 - delta))
        return b - c - count * delta - z * variance**0.5

    # Where no example differs, the difference itself is a second root.
    step = 1e-12
    low = brentq(excess, -1, difference - step, (z,)) if difference > -1 else -1.0
    high = brentq(excess, difference + step, 1, (-z,)) if difference < 1 else 1.0
    return difference, (float(low), float(high))


class Mean(NamedTuple):
    """The mean of some runs. What does not exist is NaN: a deviation needs two values."""

    mean: float
    deviation: float  # of the sample, with n - 1 in the denominator
    n: int
    low: float  # of the interval of the mean
    high: float


class Difference(NamedTuple):
    """The difference of the means of two groups of runs, A minus B."""

    difference: float
    low: float
    high: float
    p_value: float  # of Student's or Welch's t test, two-sided; NaN if no value varies
    sign_flip_p: float = math.nan  # of the sign-flip test, if the runs are paired


class BetweenRuns(NamedTuple):
    """Deviations of an accuracy between runs that differ in their seeds alone."""

    test_set: float  # of the accuracy on these test images
    distribution: float  # estimate for the accuracy on the distribution they are drawn from
    variance: float  # its square before it is cut off at 0: the estimate is unbiased, so it may be


def mean_interval(values: Sequence[float], level: float = 0.95) -> Mean:
    """Returns the mean of runs with its interval by Student's t (1908).

    With few runs the interval holds its level for values that are about normal. That of a
    percentile bootstrap does not: it is too short.

    Args:
        values: of a metric, one a run.
        level: of confidence.
    """
    n = len(values)
    if not n:
        return Mean(math.nan, math.nan, 0, math.nan, math.nan)
    mean = math.fsum(values) / n
    deviation = math.sqrt(_variance(values))
    half = _t_quantile(n - 1, level) * deviation / math.sqrt(n)
    return Mean(mean, deviation, n, mean - half, mean + half)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Returns the difference of runs that belong together by their seeds, by Student's t.

    `sign_flip_p` is that of the sign-flip test (Fisher, 1935, chapter 3), which supposes no more
    than that A and B could change places in each pair. It counts all 2^n signs up to 20 pairs and
    draws 100,000 beyond. With n pairs it is never below 2 / 2^n, so 5 pairs cannot reach 0.05.

    Args:
        a, b: a metric of each run, in the order of the seeds.
        level: of confidence.
    """
    differences = [one - other for one, other in zip(a, b, strict=True)]
    found = mean_interval(differences, level)
    error = found.deviation / math.sqrt(found.n) if found.n else math.nan
    p_value = _t_p_value(found.mean, error, found.n - 1)
    return Difference(found.mean, found.low, found.high, p_value, sign_flip(differences))


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Returns the difference of two independent groups of runs, whose variances may differ.

    (Welch, 1947; the degrees of freedom are those of Welch and Satterthwaite.)

    Args:
        a, b: a metric of each run.
        level: of confidence.
    """
    one, other = mean_interval(a), mean_interval(b)
    difference = one.mean - other.mean
    parts = [(each.deviation**2 / each.n, each.n - 1) for each in (one, other) if each.n > 1]
    if len(parts) < 2:
        return Difference(difference, math.nan, math.nan, math.nan)
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / below if below else sum(freedom for _, freedom in parts)
    error = math.sqrt(variance)
    half = _t_quantile(freedom, level) * error
    p_value = _t_p_value(difference, error, freedom)
    return Difference(difference, difference - half, difference + half, p_value)


def sign_flip(differences: Sequence[float]) -> float:
    """Returns the two-sided p-value of the sign-flip test of a mean of 0, as `paired` describes."""
    values = np.asarray(differences, float)
    if not len(values):
        return math.nan
    if len(values) <= _EXACT_PAIRS:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        rng = np.random.default_rng(0)
        flips = (rng.integers(2, size=(1000, len(values))) * 2 - 1 for _ in range(100))
        sums = np.concatenate([values.sum(keepdims=True), *(each @ values for each in flips)])
    # Sums that are equal but for rounding count as equal.
    limit = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    return float(np.mean(np.abs(sums) >= limit))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values adjusted for their number, in their order (Holm, 1979).

    To call those below 0.05 significant errs in any of them with a probability of at most 0.05.
    NaN belongs to no test and stays NaN.
    """
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__
    )
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def probability_of_superiority(
    a: Sequence[float], b: Sequence[float], paired: bool, level: float = 0.95
) -> tuple[float, Interval]:
    """Returns the probability that a run of A beats a run of B, with its interval.

    A tie counts half. Bouthillier et al. (2021, Accounting for variance in machine learning
    benchmarks) call an improvement meaningful if the interval is above 0.5 and the probability at
    least 0.75. Their interval is a percentile bootstrap. For few runs this one is Wilson's over the
    pairs, or for independent groups that of Newcombe (2006, Statistics in Medicine 25, 559-573,
    method 5).

    Args:
        a, b: a metric of each run, where higher is better.
        paired: whether the runs belong together, in their order.
        level: of confidence.
    """
    if not len(a) or not len(b):
        return math.nan, (math.nan, math.nan)
    one, other = np.asarray(a, float), np.asarray(b, float)
    wins = np.sign(one - other if paired else one[:, None] - other) / 2 + 0.5
    share = float(wins.mean())
    if paired:
        return share, wilson(float(wins.sum()), wins.size, level)
    return share, _newcombe(share, len(one), len(other), level)


def _newcombe(share, m, n, level):
    """Returns the ends of the interval: the values that lie z of their own standard errors away."""
    from scipy.optimize import brentq

    z, more = _normal_quantile(level), (m + n) / 2 - 1

    def excess(theta):
        factor = 1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta)
        return (share - theta) ** 2 - z**2 * theta * (1 - theta) * factor / (m * n)

    low = brentq(excess, 0, share) if 0 < share < 1 else 0.0
    high = brentq(excess, share, 1) if 0 < share < 1 else 1.0
    if share == 1:
        low = brentq(excess, 0, 1 - 1e-12)
    if share == 0:
        high = brentq(excess, 1e-12, 1)
    return float(low), float(high)


def binomial_error(accuracy: float, count: int) -> float:
    """Returns the standard error that an accuracy has because the test images are a sample.

    Args:
        accuracy: from 0 to 1.
        count: of the test images.
    """
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / count) if count else math.nan


def between_runs_deviation(correct: np.ndarray) -> BetweenRuns:
    """Returns how far the accuracies of runs spread, on the test images and on their distribution.

    Most of the variance between runs on a test set is there because the set is finite: other images
    would order the runs otherwise (Jordan, 2023, On the variance of neural network training with
    respect to test sets and distributions). With n images, s^2 the variance of the accuracy between
    runs and s_i^2 that of being right on image i, the unbiased estimate of the variance on the
    distribution is n / (n - 1) * (s^2 - sum(s_i^2) / n^2).

    Args:
        correct: bool[R, n]: whether each of R runs classifies each of the same n images correctly.
    """
    runs, n = correct.shape
    if runs < 2 or n < 2:
        return BetweenRuns(math.nan, math.nan, math.nan)
    test_set = float(np.var(correct.mean(axis=1), ddof=1))
    share = correct.mean(axis=0)
    of_images = float((share * (1 - share)).sum()) * runs / (runs - 1)
    variance = n / (n - 1) * (test_set - of_images / n**2)
    return BetweenRuns(math.sqrt(test_set), math.sqrt(max(0.0, variance)), variance)


def _variance(values):
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _t_quantile(freedom, level):
    # scipy.stats takes half a second to import, this takes none of it.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else math.nan


def _t_p_value(difference, error, freedom):
    """Returns the two-sided p-value of a difference; NaN if nothing varies, which tells nothing."""
    from scipy.special import stdtr

    if not error > 0:
        return math.nan
    return float(2 * stdtr(freedom, -abs(difference) / error))


def _normal_quantile(level):
    return NormalDist().inv_cdf((1 + level) / 2)
