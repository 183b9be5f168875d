"""Intervals of the metrics of a test by the bootstrap: what other test images would have given."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neptune_jax.learning import metrics
from neptune_jax.reporting.statistics import Interval

DRAWS = 10_000  # of a bootstrap
_CHUNK_BYTES = 2**25  # of the weights of the draws that are computed at once


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
