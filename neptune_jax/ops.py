"""Operations of the networks: pooling that is fast on every backend, dropout keyed by example."""

import jax
import jax.numpy as jnp


def max_pool(x, size=2):
    """Max pooling over non-overlapping windows; rows and columns that fill no window are dropped.

    As a reshape and a maximum its gradient is a comparison. The gradient of lax.reduce_window
    scans every window again, which on a CPU is an order of magnitude slower. Where several
    elements of a window are equally large they share the gradient (lax gives it to the first).

    Args:
        x: float[B, H, W, C].
        size: height and width of a window, and its stride.

    Returns:
        float[B, H // size, W // size, C].
    """
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(batch, rows, size, columns, size, channels).max(axis=(2, 4))


def dropout(x, rate, keys, layer):
    """Sets features to 0 with probability `rate` and divides the others by the rest of it.

    What is dropped of an example depends on its key alone, not on the batch around it: so a batch
    can be divided over devices, or into parts, with the same result.

    Args:
        x: float[B, ...].
        rate: in [0, 1).
        keys: PRNG keys [B]; only needed above a rate of 0.
        layer: a number that makes the draws of several layers differ.
    """
    if not rate:
        return x
    layer_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, layer)
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(layer_keys)
    return jnp.where(keep, x / (1 - rate), 0)
