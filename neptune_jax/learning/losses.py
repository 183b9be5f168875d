"""Losses: pure functions from logits and labels to the loss of each example."""

from collections.abc import Callable

import jax
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of each example, in nats.

    Args:
        logits: float32[B, K].
        labels: int32[B].
        label_smoothing: mass spread evenly over all K classes (Szegedy et al., 2016, section 7).

    Returns:
        float32[B].
    """
    return optax.softmax_cross_entropy(logits, _targets(logits, labels, label_smoothing))


def bce(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """One-vs-rest sigmoid cross-entropy of each example: the sum of K binary losses, in nats.

    Arguments and result as for `cross_entropy`.
    """
    targets = _targets(logits, labels, label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


LOSSES = {'cross_entropy': cross_entropy, 'bce': bce}


def probabilities(logits: jax.Array, loss: Callable) -> jax.Array:
    """Returns the probability of each class, float32[B, K], of a model trained with a loss.

    With `bce` the classes are not exclusive: their probabilities are sigmoids and need not sum
    to 1. With any other loss they are a softmax.

    Equal logits give the same bits in every program: behind the barriers XLA fuses this with
    nothing else.
    """
    logits = jax.lax.optimization_barrier(logits)
    found = jax.nn.sigmoid(logits) if loss is bce else jax.nn.softmax(logits)
    return jax.lax.optimization_barrier(found)


def _targets(logits, labels, label_smoothing):
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.smooth_labels(one_hot, label_smoothing)
