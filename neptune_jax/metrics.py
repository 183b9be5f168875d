"""Exact classification metrics from statistics that add up: the confusion matrix first.

On the devices a batch becomes `statistics`, which are sums over examples: adding those of all
batches and all devices counts each example once. On the host `summarize` turns the totals into
metrics, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

CALIBRATION_BINS = 15
TOP_K = 5


def zeros(num_classes):
    """Returns the statistics of no example, as NumPy arrays."""
    return {
        'confusion': np.zeros((num_classes, num_classes), np.int32),
        'loss': np.zeros((), np.float32),
        'top5': np.zeros((), np.int32),
        'bin_correct': np.zeros(CALIBRATION_BINS, np.int32),
        'bin_confidence': np.zeros(CALIBRATION_BINS, np.float32),
    }


def statistics(logits, labels, mask, losses, probabilities):
    """Returns the summed statistics of a batch.

    Args:
        logits: float32[B, K].
        labels: int32[B], in [0, K).
        mask: bool[B]; False for padding, which counts nothing, whatever it holds.
        losses: float32[B].
        probabilities: float32[B, K].

    Returns:
        `confusion` int32[K, K] (rows: labels; columns: predictions), `loss` float32[] (sum),
        `top5` int32[] (examples whose label is among the five largest logits; of equal logits
        the lower class ranks first, as in argmax), and for each calibration bin
        (Guo et al., 2017, equation 3: equal widths, a bin holds its upper edge) `bin_correct`
        int32[15] and `bin_confidence` float32[15] (sum).
    """
    num_classes = logits.shape[-1]
    predictions = jax.lax.argmax(logits, 1, jnp.int32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    lower_class = jnp.arange(num_classes)[None, :] < labels[:, None]
    rank = ((logits > own) | ((logits == own) & lower_class)).sum(axis=-1)

    confidence = jnp.where(mask, probabilities.max(axis=-1), 0.0)
    bins = jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1
    bins = bins.clip(0, CALIBRATION_BINS - 1)

    def as_int(condition):
        return (mask & condition).astype(jnp.int32)

    empty = jax.tree.map(jnp.asarray, zeros(num_classes))
    return {
        'confusion': empty['confusion'].at[labels, predictions].add(as_int(True)),
        'loss': jnp.where(mask, losses, 0.0).sum(),
        'top5': as_int(rank < TOP_K).sum(),
        'bin_correct': empty['bin_correct'].at[bins].add(as_int(predictions == labels)),
        'bin_confidence': empty['bin_confidence'].at[bins].add(confidence),
    }


def summarize(totals):
    """Returns the metrics of all the examples in `totals`, a dict of floats.

    `loss` (mean, nats), `accuracy`, `precision_macro`, `recall_macro`, `f1_macro`,
    `top5_accuracy` (with more than 5 classes), `ece` (expected calibration error, 15 bins:
    Guo et al., 2017, equation 3) and `count`.
    """
    confusion = np.asarray(totals['confusion'], np.int64)
    count = int(confusion.sum())
    classes = per_class(confusion)
    summary = {
        'loss': float(totals['loss']) / count,
        'accuracy': float(np.trace(confusion) / count),
        'precision_macro': float(classes['precision'].mean()),
        'recall_macro': float(classes['recall'].mean()),
        'f1_macro': float(classes['f1'].mean()),
    }
    if len(confusion) > TOP_K:
        summary['top5_accuracy'] = int(totals['top5']) / count
    gap = np.asarray(totals['bin_correct'], float) - np.asarray(totals['bin_confidence'], float)
    summary['ece'] = float(np.abs(gap).sum() / count)
    return summary | {'count': count}


def per_class(confusion):
    """Returns float64[K] arrays for the classes present as a label or as a prediction.

    Args:
        confusion: int[K, K]; rows: labels; columns: predictions.

    Returns:
        A dict: `precision`, `recall`, `f1`, and `support` int64[K], the labels of each class.
        A ratio with nothing below the line is 0, as in scikit-learn with zero_division=0.
        A class that occurs neither as a label nor as a prediction is left out of means, and
        so out of these arrays; `classes` int64 says which remain.
    """
    confusion = np.asarray(confusion, np.int64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    classes = np.flatnonzero(support + predicted)
    correct = np.diag(confusion)[classes]
    support, predicted = support[classes], predicted[classes]
    return {
        'classes': classes,
        'precision': correct / np.maximum(predicted, 1),
        'recall': correct / np.maximum(support, 1),
        'f1': 2 * correct / (support + predicted),
        'support': support,
    }
