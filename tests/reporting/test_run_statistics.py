"""Statistics of groups of runs against SciPy, brute force, and simulations."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from neptune_jax.reporting import statistics

A = [0.912, 0.917, 0.909, 0.915, 0.914]
B = [0.908, 0.915, 0.911, 0.907, 0.910, 0.913, 0.906]


@pytest.mark.parametrize('values', [A, B, A[:2], [3.0, -1.0, 2.5]])
@pytest.mark.parametrize('level', [0.95, 0.8])
def test_the_interval_of_a_mean_is_students(values, level):
    found = statistics.mean_interval(values, level)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert found.n == len(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize('n', [3, 5])
def test_the_interval_of_few_runs_holds_its_level(n):
    rng = np.random.default_rng(n)
    samples = rng.normal(0.9, 0.01, (4000, n))
    intervals = [statistics.mean_interval(sample.tolist()) for sample in samples]
    held = np.mean([found.low <= 0.9 <= found.high for found in intervals])
    assert held == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))
    # What the docstring says of the percentile bootstrap.
    draws = rng.integers(n, size=(400, n))
    low, high = np.quantile(samples[:1000, draws].mean(axis=2), (0.025, 0.975), axis=1)
    assert np.mean((low <= 0.9) & (high >= 0.9)) < 0.88


def test_one_run_has_no_deviation_and_none_has_no_mean():
    one = statistics.mean_interval([0.9])
    assert one.mean == 0.9
    assert one.n == 1
    assert all(map(math.isnan, (one.deviation, one.low, one.high)))
    assert math.isnan(statistics.mean_interval([]).mean)


def test_runs_with_the_same_seeds_are_compared_in_pairs():
    a, b = A, B[:5]
    found = statistics.paired(a, b, 0.9)
    expected = scipy.stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b), rel=1e-9)
    interval = expected.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
    with pytest.raises(ValueError):
        statistics.paired(A, B)


def test_independent_groups_are_compared_by_welchs_test():
    for a, b in [(A, B), (B, A), (A[:2], B[:3])]:
        found = statistics.welch(a, b, 0.9)
        expected = scipy.stats.ttest_ind(a, b, equal_var=False)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        interval = expected.confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
        assert found.difference == pytest.approx(np.mean(a) - np.mean(b), rel=1e-9)
    single = statistics.welch([0.9], B)
    assert math.isnan(single.p_value)
    assert single.difference == pytest.approx(0.9 - np.mean(B))


def test_where_nothing_varies_there_is_no_p_value_of_students():
    found = statistics.paired([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert math.isnan(found.p_value)
    assert found.difference == 0.5
    assert math.isnan(statistics.welch([1.0, 1.0], [2.0, 2.0]).p_value)


@pytest.mark.parametrize(
    'differences',
    [
        [0.1, 0.2, -0.05, 0.3, 0.15, 0.02],
        [0.1, 0.2, 0.3],
        [0.1, 0.1, 0.1, -0.1],  # many sums are equal but for rounding
        [0.0, 0.0],
        [-0.3, -0.1, -0.2, -0.4, -0.25],
    ],
)
def test_the_sign_flip_test_counts_all_signs(differences):
    sums = [
        sum(sign * round(1000 * value) for sign, value in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = np.mean(np.abs(sums) >= abs(sum(round(1000 * value) for value in differences)))
    assert statistics.sign_flip(differences) == pytest.approx(expected, rel=1e-12)
    zeros = [0.0] * len(differences)
    assert statistics.paired(differences, zeros).sign_flip_p == pytest.approx(expected)


def test_five_pairs_cannot_reach_the_usual_level():
    assert statistics.sign_flip([5.0, 6.0, 7.0, 8.0, 9.0]) == 2 / 2**5


def test_with_many_pairs_signs_are_drawn():
    differences = np.random.default_rng(0).normal(0.4, 1, 21).tolist()
    expected = scipy.stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type='samples',
        n_resamples=50_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    found = statistics.sign_flip(differences)
    assert found == pytest.approx(expected.pvalue, abs=0.01)
    assert found == statistics.sign_flip(differences)


def test_holm_multiplies_by_the_number_of_hypotheses_that_are_left():
    # Smallest first: 3 * 0.01, then max(2 * 0.04, that), then max(1 * 0.03, ...).
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    found = statistics.holm([math.nan, 0.02])
    assert math.isnan(found[0])
    assert found[1] == 0.02
    assert statistics.holm([]) == []


def test_holm_keeps_the_rate_of_errors_of_a_table():
    rng = np.random.default_rng(0)
    tables = rng.uniform(size=(2000, 5))  # all hypotheses are true
    wrong = np.mean([min(statistics.holm(table.tolist())) < 0.05 for table in tables])
    assert wrong == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


def test_the_probability_that_a_beats_b_counts_pairs():
    share, interval = statistics.probability_of_superiority([3, 2, 5, 1], [1, 2, 4, 2], True)
    assert share == (1 + 0.5 + 1 + 0) / 4
    assert interval == statistics.wilson(2.5, 4)
    share, _ = statistics.probability_of_superiority(A, B, False)
    assert share == scipy.stats.mannwhitneyu(A, B).statistic / (len(A) * len(B))
    assert share == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in A for b in B]))
    assert math.isnan(statistics.probability_of_superiority([], B, False)[0])


@pytest.mark.parametrize('shift', [0.0, 1.0, 3.0])
def test_the_interval_of_the_probability_of_independent_runs_holds_its_level(shift):
    rng = np.random.default_rng(0)
    truth = scipy.stats.norm.cdf(shift / math.sqrt(2))
    held = []
    for _ in range(400):
        a, b = rng.normal(shift, 1, 5), rng.normal(0, 1, 6)
        share, (low, high) = statistics.probability_of_superiority(a, b, False)
        assert low <= share <= high
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.92


def test_an_accuracy_has_the_error_of_its_test_images():
    correct = np.array([True] * 9 + [False])
    expected = scipy.stats.sem(np.tile(correct, 1000), ddof=0)
    assert statistics.binomial_error(0.9, 10_000) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(statistics.binomial_error(0.9, 0))


@pytest.mark.parametrize('skill', [0.0, 0.02])
def test_the_deviation_on_the_distribution_is_found_by_a_simulation(skill):
    """Runs of a known deviation on the distribution: each has a skill of its own."""
    rng = np.random.default_rng(1)
    runs, images, found, naive = 40, 500, [], []
    for _ in range(60):
        easy = rng.beta(4, 1, images)  # how often an average run gets each image right
        own = rng.choice([-skill, skill], runs)
        chance = np.clip(easy[None] * (1 + own[:, None]), 0, 1)
        correct = rng.uniform(size=(runs, images)) < chance
        between = statistics.between_runs_deviation(correct)
        found.append(between.variance)
        naive.append(between.test_set**2)
        assert between.distribution == math.sqrt(max(0.0, between.variance))
        assert between.test_set == pytest.approx(np.std(correct.mean(axis=1), ddof=1))
    # Each run's accuracy on the distribution, from many images.
    easy = rng.beta(4, 1, 1_000_000)
    accuracies = [np.clip(easy * (1 + own), 0, 1).mean() for own in (-skill, skill)]
    truth = np.var(accuracies)  # the two are equally probable
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(truth, abs=4 * error)
    assert np.mean(naive) > truth + 10 * error


def test_the_deviation_between_a_few_runs_follows_the_formula():
    correct = np.random.default_rng(0).uniform(size=(3, 50)) < 0.8
    accuracies = correct.mean(axis=1)
    of_images = correct.var(axis=0, ddof=1).sum()
    expected = 50 / 49 * (accuracies.var(ddof=1) - of_images / 50**2)
    assert statistics.between_runs_deviation(correct).variance == pytest.approx(expected, rel=1e-9)
    # The same is the mean covariance between being right on two different images.
    covariances = np.cov(correct.astype(float), rowvar=False)
    others = covariances[~np.eye(50, dtype=bool)]
    assert others.mean() == pytest.approx(expected, rel=1e-9)


def test_a_single_run_has_no_deviation_between_runs():
    assert math.isnan(statistics.between_runs_deviation(np.ones((1, 9), bool)).distribution)
