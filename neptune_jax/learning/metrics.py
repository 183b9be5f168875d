"""Exact classification metrics from sums over examples, such as the confusion matrix.

On the devices `statistics` sums over the examples of a batch. The sums of all batches and devices
are added, so each example counts once. On the host `summarize` turns these totals into metrics, in
float64.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # reports count on the host alone, and start a second sooner without it
    import jax

CALIBRATION_BINS = 15
TOP_K = 5


def zeros(num_classes: int) -> dict[str, np.ndarray]:
    """Returns the statistics before the first batch, as NumPy arrays."""
    return {
        'confusion': np.zeros((num_classes, num_classes), np.int32),
        'loss': np.zeros((), np.float32),
        'top5': np.zeros((), np.int32),
        'bin_correct': np.zeros(CALIBRATION_BINS, np.int32),
        'bin_confidence': np.zeros(CALIBRATION_BINS, np.float32),
    }


def statistics(
    logits: 'jax.Array',
    labels: 'jax.Array',
    mask: 'jax.Array',
    losses: 'jax.Array',
    probabilities: 'jax.Array',
) -> dict[str, 'jax.Array']:
    """Returns the summed statistics of a batch.

    Args:
        logits: float32[B, K].
        labels: int32[B], in [0, K).
        mask: bool[B]; False for padding, which does not count.
        losses: float32[B].
        probabilities: float32[B, K].

    Returns:
        `confusion` int32[K, K]: counts by label (row) and prediction (column).
        `loss` float32[]: the sum.
        `top5` int32[]: examples whose label is among the five largest logits. Of equal logits the
            lower class ranks first, as in argmax. An example with a NaN among its logits is no hit.
        `bin_correct` int32[15] and `bin_confidence` float32[15] (a sum), by calibration bin. Bins
            have equal widths and include their upper edge (Guo et al., 2017, equation 3).
    """
    import jax
    import jax.numpy as jnp

    num_classes = logits.shape[-1]
    predictions = jax.lax.argmax(logits, 1, jnp.int32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    lower_class = jnp.arange(num_classes)[None, :] < labels[:, None]
    rank = ((logits > own) | ((logits == own) & lower_class)).sum(axis=-1)
    # NaN is neither larger nor smaller than anything: such logits rank nothing.
    in_top = (rank < TOP_K) & ~jnp.isnan(logits).any(axis=-1)

    confidence = jnp.where(mask, probabilities.max(axis=-1), 0.0)
    bins = jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1
    bins = bins.clip(0, CALIBRATION_BINS - 1)

    def as_int(condition):
        return (mask & condition).astype(jnp.int32)

    empty = jax.tree.map(jnp.asarray, zeros(num_classes))
    return {
        'confusion': empty['confusion'].at[labels, predictions].add(as_int(True)),
        'loss': jnp.where(mask, losses, 0.0).sum(),
        'top5': as_int(in_top).sum(),
        'bin_correct': empty['bin_correct'].at[bins].add(as_int(predictions == labels)),
        'bin_confidence': empty['bin_confidence'].at[bins].add(confidence),
    }


def summarize(totals: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the metrics of all the examples in `totals`, a dict of floats and integers.

    `loss` (mean, nats), `accuracy`, `precision_macro`, `recall_macro`, `f1_macro`,
    `top5_accuracy` (with more than 5 classes), `ece` (expected calibration error, 15 bins:
    Guo et al., 2017, equation 3), `classes` and `count`. The macro means are over the classes that
    occur as a label or as a prediction, as in scikit-learn; `classes` is how many these are.
    """
    confusion = np.asarray(totals['confusion'], np.int64)
    count = int(confusion.sum())
    classes = per_class(confusion)
    present = classes['present']
    summary = {
        'loss': float(totals['loss']) / count,
        'accuracy': float(np.trace(confusion) / count),
        'precision_macro': float(classes['precision'][present].mean()),
        'recall_macro': float(classes['recall'][present].mean()),
        'f1_macro': float(classes['f1'][present].mean()),
    }
    if len(confusion) > TOP_K:
        summary['top5_accuracy'] = int(totals['top5']) / count
    gap = np.asarray(totals['bin_correct'], float) - np.asarray(totals['bin_confidence'], float)
    summary['ece'] = float(np.abs(gap).sum() / count)
    return summary | {'classes': int(present.sum()), 'count': count}


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Returns precision, recall and F1 of each class.

    Args:
        confusion: int[K, K]; rows: labels; columns: predictions.

    Returns:
        A dict: `precision`, `recall` and `f1`, float64[K]; `support` int64[K], the labels of each
        class; and `present` bool[K], whether the class occurs as a label or as a prediction. A
        ratio whose denominator is 0 is 0, as in scikit-learn with zero_division=0.
    """
    confusion = np.asarray(confusion, np.int64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    correct = np.diag(confusion)
    return {
        'precision': correct / np.maximum(predicted, 1),
        'recall': correct / np.maximum(support, 1),
        'f1': 2 * correct / np.maximum(support + predicted, 1),
        'support': support,
        'present': support + predicted > 0,
    }


def in_top(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns which examples `statistics` counts as `top5`, bool[n].

    Args:
        logits: float32[n, K].
        labels: int[n].
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    is_lower = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & is_lower)).sum(axis=1)
    return (rank < TOP_K) & ~np.isnan(logits).any(axis=1)


def calibration_bins(confidence: np.ndarray) -> np.ndarray:
    """Returns the calibration bin of each example, int64[n], as `statistics` chooses it.

    Args:
        confidence: float32[n], the probability of the predicted class. NaN is in the first bin.
    """
    bins = np.ceil(np.nan_to_num(confidence) * np.float32(CALIBRATION_BINS)).astype(np.int64) - 1
    return bins.clip(0, CALIBRATION_BINS - 1)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the counts and the means of the calibration bins.

    Args:
        confidence: float32[n], the probability of the predicted class.
        correct: bool[n], whether it is the label.

    Returns:
        A dict of arrays [15]: `count` int64, and `accuracy` and `confidence` float64, the means of
        a bin; NaN where it is empty.
    """
    bins = calibration_bins(confidence)
    count, right, sums = (
        np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, correct, confidence)
    )
    size = np.where(count, count, np.nan)
    return {'count': count, 'accuracy': right / size, 'confidence': sums / size}


def confused_pairs(confusion: np.ndarray, limit: int) -> list[tuple[int, int, int, float]]:
    """Returns the most frequent kinds of mistakes, at most `limit` of them.

    Args:
        confusion: int[K, K]; rows: labels; columns: predictions.
        limit: how many pairs.

    Returns:
        (label, prediction, count, share of the label's examples), the highest count first. Of
        equal counts, the higher share is first, then the lower label and the lower prediction.
    """
    labels, predictions = np.nonzero(confusion)  # row by row
    wrong = labels != predictions
    labels, predictions = labels[wrong], predictions[wrong]
    counts = np.asarray(confusion)[labels, predictions]
    shares = counts / np.asarray(confusion).sum(axis=1)[labels]
    order = np.lexsort((-shares, -counts))[:limit]  # stable
    columns = (column[order].tolist() for column in (labels, predictions, counts, shares))
    return list(zip(*columns, strict=True))
