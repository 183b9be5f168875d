import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from neptune_jax.learning import metrics


def evaluate(logits, labels, batch_size):
    """The metrics of some logits, by way of padded batches, as in an evaluation."""
    probabilities = np.asarray(jax.nn.softmax(logits))
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    totals = metrics.zeros(logits.shape[-1])
    padding = -len(labels) % batch_size

    def batches(array):
        # What fills the last batch up must not matter: NaN where that can be.
        filler = np.nan if array.dtype == np.float32 else 0
        padded = np.concatenate([array, np.full((padding, *array.shape[1:]), filler, array.dtype)])
        return padded.reshape(-1, batch_size, *array.shape[1:])

    mask = batches(np.ones(len(labels), bool))
    mask.ravel()[len(labels) :] = False
    arrays = (batches(logits), batches(labels), mask, batches(losses), batches(probabilities))
    for batch in zip(*arrays, strict=True):
        totals = jax.tree.map(jnp.add, totals, metrics.statistics(*map(jnp.asarray, batch)))
    return totals, metrics.summarize(totals), probabilities, losses


@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 60),
    num_classes=st.sampled_from([2, 3, 6, 9]),
    batch_size=st.sampled_from([7, 16, 64]),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_metrics_equal_scikit_learn(count, num_classes, batch_size, ties, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, num_classes)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    labels = rng.integers(0, num_classes, count).astype(np.int32)
    totals, summary, probabilities, losses = evaluate(logits, labels, batch_size)

    predictions = logits.argmax(axis=-1)
    np.testing.assert_array_equal(
        totals['confusion'],
        sklearn.metrics.confusion_matrix(labels, predictions, labels=range(num_classes)),
    )
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, average='macro', zero_division=0
    )
    expected = {
        'loss': losses.mean(),
        'accuracy': sklearn.metrics.accuracy_score(labels, predictions),
        'precision_macro': precision,
        'recall_macro': recall,
        'f1_macro': f1,
        'ece': ece_by_hand(probabilities, labels),
        'classes': len(np.union1d(labels, predictions)),
        'count': count,
    }
    if num_classes > 5:
        # scikit-learn breaks ties the other way; a stable sort puts the lower class first.
        ranked = np.argsort(-logits, axis=-1, kind='stable')[:, :5]
        expected['top5_accuracy'] = np.mean((ranked == labels[:, None]).any(axis=-1))
        if not ties and num_classes > 2:
            assert expected['top5_accuracy'] == pytest.approx(
                sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes))
            )
    assert summary == pytest.approx(expected, rel=1e-5, abs=1e-6)


def ece_by_hand(probabilities, labels):
    """Guo et al., 2017, equation 3: bin m holds confidences in ((m - 1) / 15, m / 15]."""
    confidence = probabilities.max(axis=-1)
    correct = probabilities.argmax(axis=-1) == labels
    total = 0.0
    for m in range(1, 16):
        inside = (confidence > np.float32((m - 1) / 15)) & (confidence <= np.float32(m / 15))
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return total / len(labels)


def test_per_class_report_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 6, 500), rng.integers(0, 6, 500)
    confusion = sklearn.metrics.confusion_matrix(labels, predictions)
    report = metrics.per_class(confusion)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions)
    for name, values in zip(('precision', 'recall', 'f1', 'support'), expected, strict=True):
        np.testing.assert_allclose(report[name], values)


def test_a_class_without_examples_has_a_row_and_is_in_no_mean():
    # No example is of class 1, but one is predicted so; class 3 does not occur at all.
    labels, predictions = [0, 0, 2, 2], [0, 1, 2, 2]
    confusion = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(4))
    report = metrics.per_class(confusion)
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(4), zero_division=0
    )
    for name, values in zip(('precision', 'recall', 'f1', 'support'), expected, strict=True):
        np.testing.assert_allclose(report[name], values)
    assert report['support'].tolist() == [2, 0, 2, 0]
    assert report['present'].tolist() == [True, True, True, False]


def test_the_most_frequent_mistakes_come_first():
    confusion = np.array([[9, 2, 0], [2, 1, 1], [5, 0, 0]])
    # (label, prediction, count, share of the label): 2 of 4 is a higher share than 2 of 11.
    pairs = [(2, 0, 5, 1.0), (1, 0, 2, 0.5), (0, 1, 2, 2 / 11), (1, 2, 1, 0.25)]
    assert metrics.confused_pairs(confusion, 10) == pairs
    assert metrics.confused_pairs(confusion, 2) == pairs[:2]
    assert metrics.confused_pairs(np.diag([3, 4]), 2) == []


def test_a_case_worked_out_by_hand():
    # Three of class 0, two right; one of class 1, right; class 2 is never seen nor predicted.
    logits = np.log(np.array([[8, 1, 1], [6, 3, 1], [3, 6, 1], [2, 7, 1]], np.float32) / 10)
    totals, summary, *_ = evaluate(logits, np.array([0, 0, 0, 1], np.int32), batch_size=3)
    np.testing.assert_array_equal(totals['confusion'], [[2, 1, 0], [0, 1, 0], [0, 0, 0]])
    # Each confidence has a bin of its own but for the two of 0.6: one right, one wrong.
    assert summary == pytest.approx(
        {
            'loss': -np.log(0.8 * 0.6 * 0.3 * 0.7) / 4,
            'accuracy': 3 / 4,
            'precision_macro': (1 + 1 / 2) / 2,
            'recall_macro': (2 / 3 + 1) / 2,
            'f1_macro': (4 / 5 + 2 / 3) / 2,
            'ece': (0.2 + 2 * 0.1 + 0.3) / 4,
            'classes': 2,  # of three
            'count': 4,
        },
        rel=1e-5,
    )


def test_a_confidence_on_the_edge_of_two_calibration_bins_is_in_the_lower_one():
    # The edges are multiples of 1/15; 0.6 is one. Of two in one bin, right and wrong would cancel.
    logits = np.log(np.array([[0.6, 0.4], [0.65, 0.35]], np.float32))
    _, summary, *_ = evaluate(logits, np.array([0, 1], np.int32), batch_size=2)
    assert summary['ece'] == pytest.approx((abs(1 - 0.6) + abs(0 - 0.65)) / 2, rel=1e-5)


def test_logits_with_a_nan_are_no_hit_among_the_first_five():
    logits = np.zeros((4, 8), np.float32)
    logits[:, 0] = 1
    logits[1, 0] = np.nan  # the label's own
    logits[2, 7] = np.nan  # another class's
    logits[3, 7] = np.inf
    labels, mask = np.zeros(4, np.int32), np.ones(4, bool)
    probabilities = np.full((4, 8), 1 / 8, np.float32)
    losses = np.zeros(4, np.float32)
    counted = metrics.statistics(logits, labels, mask, losses, probabilities)
    assert int(counted['top5']) == 2
