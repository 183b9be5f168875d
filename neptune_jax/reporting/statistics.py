"""How far a figure can be trusted: intervals of metrics, and tests of two runs on the same images.

The examples of a test are a sample of all images that one could test on. An interval says which
values of a metric agree with the sample. It says nothing about other seeds of the training.
"""

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from neptune_jax.learning import metrics

DRAWS = 10_000  # of a bootstrap
_CHUNK_BYTES = 2**25  # of the weights of the draws that are computed at once

Interval = tuple[float, float]


def wilson(correct: int, count: int, level: float = 0.95) -> Interval:
    """Returns the interval of a proportion by its score test (Wilson, 1927).

    It stays within [0, 1] and holds its level for few examples and for proportions near 0 or 1.

    Args:
        correct: successes, for example images that are classified correctly.
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


def bootstrap(
    labels: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    level: float = 0.95,
    **options: Any,
) -> dict[str, Interval]:
    """Returns percentile intervals of the metrics of `metrics.summarize`.

    (Efron and Tibshirani, 1993, chapter 13.)

    Args:
        labels, outputs, num_classes, **options: as for `resample`.
        level: of confidence.
    """
    values = resample(labels, outputs, num_classes, **options)
    return {name: _percentiles(own, level) for name, own in values.items()}


def bootstrap_difference(
    labels: np.ndarray,
    one: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    level: float = 0.95,
    **options: Any,
) -> dict[str, tuple[float, Interval]]:
    """Returns the differences of the metrics of two runs, with paired percentile intervals.

    Args:
        labels: int[n].
        one, other: the `outputs` of each run, as for `resample`.
        num_classes, **options: as for `resample`. Both runs get the same draws.
        level: of confidence.

    Returns:
        For each metric that of `one` minus that of `other`, and (low, high).
    """
    values = [resample(labels, run, num_classes, **options) for run in (one, other)]
    once = np.ones((len(labels), 1))
    found = [
        _metrics(_features(labels, run, num_classes) @ once, num_classes, len(labels))
        for run in (one, other)
    ]
    with np.errstate(invalid='ignore'):
        return {
            name: (
                float(found[0][name][0] - found[1][name][0]),
                _percentiles(values[0][name] - values[1][name], level),
            )
            for name in values[0]
            if name in values[1]
        }


def _percentiles(values, level):
    with np.errstate(invalid='ignore'):  # a loss may be infinite
        low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2)).tolist()
    return low, high


def resample(
    labels: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    num_classes: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda draws: None,
) -> dict[str, np.ndarray]:
    """Returns the metrics of `metrics.summarize` of random samples, float64[draws] each.

    A sample is n of the n examples, drawn with replacement. All metrics are computed of the same
    samples.

    Args:
        labels: int[n].
        outputs: `prediction` int[n], `loss` and `confidence` float[n], and maybe `in_top5`
            bool[n], without which there is no `top5_accuracy`.
        num_classes: K.
        draws: how many samples.
        seed: of the samples, which depend on it and on n alone.
        advance: called with the number of samples that are done since the last call.
    """
    count, rng = len(labels), np.random.default_rng(seed)
    features = _features(labels, outputs, num_classes)
    chunk = max(1, min(draws, _CHUNK_BYTES // (8 * count)))
    weights = np.empty((chunk, count))
    found = []
    for start in range(0, draws, chunk):
        part = weights[: min(chunk, draws - start)]
        for row in part:  # how often the sample holds each example
            row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
        found.append(_metrics(features @ part.T, num_classes, count))
        advance(len(part))
    return {
        name: np.concatenate([part[name] for part in found])
        for name in found[0]
        if name != 'top5_accuracy' or 'in_top5' in outputs
    }


def _features(labels, outputs, num_classes):
    """Returns a sparse matrix [3 K + 17, n]: what each example adds to the sums of `_metrics`."""
    from scipy import sparse

    count = len(labels)
    prediction, confidence = outputs['prediction'], outputs['confidence'].astype(float)
    correct = prediction == labels
    rows_and_values = [
        (labels, np.ones(count)),
        (num_classes + prediction, np.ones(count)),
        (2 * num_classes + labels, correct),
        (3 * num_classes + metrics.calibration_bins(outputs['confidence']), correct - confidence),
        (np.full(count, 3 * num_classes + metrics.CALIBRATION_BINS), outputs['loss']),
        (
            np.full(count, 3 * num_classes + metrics.CALIBRATION_BINS + 1),
            outputs.get('in_top5', np.zeros(count)),
        ),
    ]
    rows = np.concatenate([rows for rows, _ in rows_and_values])
    values = np.concatenate([values.astype(float) for _, values in rows_and_values])
    columns = np.tile(np.arange(count), len(rows_and_values))
    shape = 3 * num_classes + metrics.CALIBRATION_BINS + 2, count
    matrix = sparse.csr_array((values, (rows, columns)), shape)
    matrix.eliminate_zeros()
    return matrix


def _metrics(sums, num_classes, count):
    """Returns the metrics of each draw for the sums [3 K + 17, draws] over its examples."""
    support, predicted, correct = sums[: 3 * num_classes].reshape(3, num_classes, -1)
    gaps, (loss, in_top5) = sums[3 * num_classes : -2], sums[-2:]
    present = np.maximum((support + predicted > 0).sum(axis=0), 1)
    return {
        'loss': loss / count,
        'accuracy': correct.sum(axis=0) / count,
        'precision_macro': (correct / np.maximum(predicted, 1)).sum(axis=0) / present,
        'recall_macro': (correct / np.maximum(support, 1)).sum(axis=0) / present,
        'f1_macro': (2 * correct / np.maximum(support + predicted, 1)).sum(axis=0) / present,
        'top5_accuracy': in_top5 / count,
        'ece': np.abs(gaps).sum(axis=0) / count,
    }


def mcnemar_exact(b: int, c: int) -> float:
    """Returns the two-sided p-value of McNemar's test (1947), exact by the binomial distribution.

    The hypothesis: where exactly one of two runs is right, each of them is so equally often.

    Args:
        b: examples that only the one run classifies correctly.
        c: those that only the other one does.
    """
    from scipy.stats import binomtest

    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


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


def _normal_quantile(level):
    return NormalDist().inv_cdf((1 + level) / 2)
