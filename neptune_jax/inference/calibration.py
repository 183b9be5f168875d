"""Temperature scaling: one number that makes the probabilities of a trained model honest.

Logits are divided by it (Guo et al., 2017, section 4.2). The order of the classes does not change,
so neither does the accuracy.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_softmax, softmax

from neptune_jax.errors import UserError
from neptune_jax.learning import losses, metrics

RANGE = 0.01, 100.0  # in which the temperature is searched for


def fit_temperature(logits: np.ndarray, labels: np.ndarray, loss: Callable) -> float:
    """Returns the temperature that minimises the negative log-likelihood, in float64.

    Args:
        logits: float[n, K], of the validation split.
        labels: int[n].
        loss: that the model was trained with. It decides what the probabilities are
            (`losses.probabilities`), and so their likelihood: with `bce` that of K binary labels,
            with any other loss that of one of K classes.

    Raises:
        UserError: logits that are not finite, or no temperature between 0.01 and 100 is the best
            one: the examples are too few, for example all of them are classified correctly.
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(logits).all():
        raise UserError('the logits of some validation images are not finite: nothing to calibrate')
    logits = logits.astype(np.float64)

    def value(log_temperature):
        return negative_log_likelihood(logits / np.exp(log_temperature), labels, loss)

    # As a function of 1 / T the value is convex, so there is one minimum.
    bounds = tuple(np.log(RANGE))
    found = minimize_scalar(value, bounds=bounds, method='bounded', options={'xatol': 1e-6})
    if found.fun >= min(map(value, bounds)):
        raise UserError(
            f'no temperature from {RANGE[0]:g} to {RANGE[1]:g} minimises the loss on the '
            f'{len(labels):,} validation images; it takes images of which some are classified '
            'wrongly and most correctly'
        )
    return float(np.exp(found.x))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, loss: Callable) -> float:
    """Returns the mean over examples, in nats.

    Args:
        logits: float64[n, K].
        labels: int[n].
        loss: as for `fit_temperature`.
    """
    own = logits[np.arange(len(labels)), labels]
    if loss is losses.bce:
        # The binary cross-entropy of a label y is log(1 + exp(z)) - y z.
        return float((np.logaddexp(0, logits).sum(axis=1) - own).mean())
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def scores(logits: np.ndarray, labels: np.ndarray, loss: Callable) -> dict[str, float]:
    """Returns the `loss` (`negative_log_likelihood`) and the `ece` of examples, in float64.

    Args:
        logits, labels, loss: as for `fit_temperature`; the logits divided by the temperature.
    """
    logits = logits.astype(np.float64)
    probabilities = expit(logits) if loss is losses.bce else softmax(logits, axis=1)
    bins = metrics.reliability(probabilities.max(axis=1), logits.argmax(axis=1) == labels)
    gaps = bins['count'] * np.abs(bins['accuracy'] - bins['confidence'])
    return {
        'loss': negative_log_likelihood(logits, labels, loss),
        'ece': float(np.nansum(gaps) / len(labels)),
    }
