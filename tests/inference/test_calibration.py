"""A known temperature is found again; loss and ECE against scikit-learn and by hand."""

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from neptune_jax.errors import UserError
from neptune_jax.inference import calibration
from neptune_jax.learning import losses

N = 20_000


def true_logits():
    return 2 * np.random.default_rng(0).normal(size=(N, 4))


def drawn_labels(logits):
    """Labels that follow the softmax of logits, by the Gumbel-max trick."""
    return (logits + np.random.default_rng(1).gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize('temperature', [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    logits = true_logits()
    labels = drawn_labels(logits)
    found = calibration.fit_temperature(
        (temperature * logits).astype(np.float32), labels, losses.cross_entropy
    )
    assert found == pytest.approx(temperature, rel=0.03)
    # What is calibrated has probabilities that come true.
    before = calibration.scores(temperature * logits, labels, losses.cross_entropy)
    after = calibration.scores(temperature * logits / found, labels, losses.cross_entropy)
    assert after['ece'] < 0.01
    assert after['loss'] <= before['loss']


def test_one_sigmoid_a_class_gets_the_temperature_of_a_search_over_all():
    logits = true_logits()[:2000]
    labels = drawn_labels(logits)
    one_hot = np.eye(4)[labels]

    def by_definition(temperature):
        z = logits / temperature
        own, others = scipy.special.log_expit(z), scipy.special.log_expit(-z)
        return -(one_hot * own + (1 - one_hot) * others).sum(axis=1).mean()

    grid = np.exp(np.linspace(-1, 1.5, 2001))
    best = grid[np.argmin([by_definition(temperature) for temperature in grid])]
    assert best > 1.2  # not what a softmax would get
    assert calibration.fit_temperature(logits, labels, losses.bce) == pytest.approx(best, rel=2e-3)
    assert calibration.scores(logits, labels, losses.bce)['loss'] == pytest.approx(by_definition(1))


def test_scores_are_those_of_scikit_learn():
    logits = true_logits()[:500]
    labels = drawn_labels(logits)
    scores = calibration.scores(logits, labels, losses.cross_entropy)
    probabilities = scipy.special.softmax(logits, axis=1)
    assert scores['loss'] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        ece += abs((correct[inside] - confidence[inside]).sum()) / 500
    assert scores['ece'] == pytest.approx(ece, rel=1e-9)


def test_what_has_no_best_temperature_is_refused():
    logits = np.eye(3)
    with pytest.raises(UserError, match=r'no temperature from 0\.01 to 100 .* 3 validation images'):
        calibration.fit_temperature(logits, np.arange(3), losses.cross_entropy)  # all correct
    with pytest.raises(UserError, match='no temperature'):
        calibration.fit_temperature(logits, np.array([1, 2, 0]), losses.cross_entropy)  # all wrong
    logits[0, 0] = np.nan
    with pytest.raises(UserError, match='not finite'):
        calibration.fit_temperature(logits, np.arange(3), losses.cross_entropy)
