"""Intervals and tests against SciPy, scikit-learn, and the definitions solved in another way."""

import math
import time
import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics

from neptune_jax.learning import metrics
from neptune_jax.reporting import resampling, statistics

PROPORTIONS = [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (9_034, 10_000)]


@pytest.mark.parametrize(('correct', 'count'), PROPORTIONS)
@pytest.mark.parametrize('level', [0.95, 0.9])
def test_the_interval_of_an_accuracy_is_wilsons(correct, count, level):
    expected = scipy.stats.binomtest(correct, count).proportion_ci(level, method='wilson')
    found = statistics.wilson(correct, count, level)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_no_examples_say_nothing_about_an_accuracy():
    assert statistics.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(('b', 'c'), [(0, 0), (0, 1), (5, 0), (3, 9), (9, 3), (10, 10), (120, 81)])
def test_mcnemars_test_sums_the_binomial_distribution(b, c):
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
    expected = min(1.0, 2 * tail / 2 ** (b + c))
    assert statistics.mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-12)


def score(delta, b, c, count):
    """Returns Tango's statistic; the nuisance share by a search for the maximum likelihood."""

    def negative_log_likelihood(share):  # of what the second run alone gets right
        cells = np.array([b, c, count - b - c])
        shares = np.array([share + delta, share, 1 - 2 * share - delta])
        return -scipy.special.xlogy(cells, np.maximum(shares, 1e-300)).sum()

    bounds = max(0.0, -delta), (1 - delta) / 2
    share = scipy.optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method='bounded', options={'xatol': 1e-13}
    ).x
    return (b - c - count * delta) / math.sqrt(count * (2 * share + delta - delta**2))


@pytest.mark.parametrize(('b', 'c', 'count'), [(12, 2, 50), (3, 9, 100), (81, 120, 10_000)])
def test_the_interval_of_a_difference_inverts_the_score_test(b, c, count):
    difference, (low, high) = statistics.paired_difference(b, c, count)
    assert difference == (b - c) / count
    assert score(low, b, c, count) == pytest.approx(1.959964, abs=1e-4)
    assert score(high, b, c, count) == pytest.approx(-1.959964, abs=1e-4)


def test_the_interval_of_a_difference_is_that_of_its_bootstrap_for_many_examples():
    b, c, count = 500, 420, 10_000
    difference, (low, high) = statistics.paired_difference(b, c, count)
    values = np.repeat([1, -1, 0], [b, c, count - b - c])
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method='percentile', rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose((low, high), expected, atol=8e-4)
    assert low < difference < high


@pytest.mark.parametrize(('b', 'c', 'count'), [(0, 0, 20), (0, 20, 20), (20, 0, 20), (1, 0, 1)])
def test_the_interval_of_a_difference_at_its_limits(b, c, count):
    difference, (low, high) = statistics.paired_difference(b, c, count)
    assert -1 <= low <= difference <= high <= 1
    _, (other_low, other_high) = statistics.paired_difference(c, b, count)
    assert (other_low, other_high) == pytest.approx((-high, -low))
    if b == c == 0:  # Tango's formula becomes z**2 / (n + z**2)
        assert high == pytest.approx(1.959964**2 / (20 + 1.959964**2), rel=1e-6)


def outputs_of(rng, count, num_classes):
    logits = rng.normal(size=(count, num_classes)).astype(np.float32)
    labels = rng.integers(num_classes, size=count)
    logits[np.arange(count), labels] += 1.5
    probabilities = scipy.special.softmax(logits, axis=1)
    ranks = (-logits).argsort(axis=1).argsort(axis=1)
    return labels, {
        'prediction': logits.argmax(axis=1),
        'confidence': probabilities.max(axis=1),
        'loss': -np.log(probabilities[np.arange(count), labels]),
        'in_top5': ranks[np.arange(count), labels] < 5,
    }


def by_definition(labels, outputs, chosen):
    """Returns the metrics of some examples by scikit-learn, and by the definition of ECE."""
    labels, own = labels[chosen], {name: values[chosen] for name, values in outputs.items()}
    correct, ece = own['prediction'] == labels, 0.0
    for low in np.arange(15) / 15:
        inside = (own['confidence'] > low) & (own['confidence'] <= low + 1 / 15)
        ece += abs((correct[inside] - own['confidence'][inside]).sum()) / len(labels)
    means = sklearn.metrics.precision_recall_fscore_support(
        labels, own['prediction'], average='macro', zero_division=0
    )
    return dict(zip(('precision_macro', 'recall_macro', 'f1_macro'), means, strict=False)) | {
        'loss': own['loss'].mean(),
        'accuracy': correct.mean(),
        'top5_accuracy': own['in_top5'].mean(),
        'ece': ece,
    }


def test_a_bootstrap_has_the_metrics_of_each_resample():
    """With the same draws, each metric of each draw is that of scikit-learn on its examples."""
    labels, outputs = outputs_of(np.random.default_rng(0), 60, 7)
    found = resampling.bootstrap(labels, outputs, 7, draws=200, seed=3)
    rng = np.random.default_rng(3)
    draws = [by_definition(labels, outputs, rng.integers(60, size=60)) for _ in range(200)]
    assert set(found) == set(draws[0])
    for name, interval in found.items():
        expected = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        np.testing.assert_allclose(interval, expected, rtol=1e-6, err_msg=name)


def test_a_bootstrap_agrees_with_scipys():
    labels, outputs = outputs_of(np.random.default_rng(1), 80, 3)
    found = resampling.bootstrap(labels, outputs, 3)['f1_macro']

    def f1_macro(labels, prediction):
        return sklearn.metrics.f1_score(labels, prediction, average='macro')

    expected = scipy.stats.bootstrap(
        (labels, outputs['prediction']), f1_macro, paired=True, vectorized=False,
        n_resamples=500, method='percentile', rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_a_bootstrap_does_not_depend_on_how_its_draws_are_grouped(monkeypatch):
    labels, outputs = outputs_of(np.random.default_rng(2), 50, 3)
    del outputs['in_top5']
    found = resampling.bootstrap(labels, outputs, 3, draws=30)
    assert 'top5_accuracy' not in found
    monkeypatch.setattr(resampling, '_CHUNK_BYTES', 7 * 8 * 50)
    advanced = []
    again = resampling.bootstrap(labels, outputs, 3, draws=30, advance=advanced.append)
    for name, interval in found.items():
        assert again[name] == pytest.approx(interval, rel=1e-12)
    assert advanced == [7, 7, 7, 7, 2]


def test_ten_thousand_draws_of_ten_thousand_examples_take_seconds_and_little_memory():
    labels, outputs = outputs_of(np.random.default_rng(0), 10_000, 100)
    tracemalloc.start()
    resampling.bootstrap(labels, outputs, 100, draws=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    began = time.process_time()
    resampling.bootstrap(labels, outputs, 100, draws=500)
    assert time.process_time() - began < 3  # 60 s for 10,000; it takes 5


def test_an_infinite_loss_spoils_no_other_interval():
    labels, outputs = outputs_of(np.random.default_rng(0), 40, 3)
    outputs['loss'] = np.where(np.arange(40) == 3, np.inf, outputs['loss'])
    found = resampling.bootstrap(labels, outputs, 3, draws=50)
    assert not np.isfinite(found['loss']).any()
    assert all(np.isfinite(found[name]).all() for name in found if name != 'loss')


def test_the_top_five_on_the_host_are_those_of_the_devices():
    logits = np.random.default_rng(0).integers(0, 4, (200, 8)).astype(np.float32)  # with ties
    logits[7, 3] = np.nan
    labels = np.random.default_rng(1).integers(8, size=200).astype(np.int32)
    found = metrics.in_top(logits, labels)
    for chosen in (slice(0, 10), slice(0, 200)):
        size = len(labels[chosen])
        totals = metrics.statistics(
            logits[chosen], labels[chosen], np.ones(size, bool), np.zeros(size, np.float32),
            np.full((size, 8), 0.125, np.float32),
        )  # fmt: skip
        assert found[chosen].sum() == totals['top5']


def test_bins_on_the_host_are_those_of_the_devices():
    confidence = np.concatenate([np.arange(16) / 15, np.random.default_rng(0).random(500)])
    confidence = confidence.astype(np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    correct = confidence > 0.6
    found = metrics.reliability(confidence, correct)
    one = metrics.statistics(
        probabilities, np.where(correct, 0, 1).astype(np.int32), np.ones(516, bool),
        np.zeros(516, np.float32), confidence[:, None],
    )  # fmt: skip
    np.testing.assert_allclose(
        found['count'] * np.nan_to_num(found['confidence']), one['bin_confidence'], rtol=1e-5
    )
    assert found['count'].sum() == 516
