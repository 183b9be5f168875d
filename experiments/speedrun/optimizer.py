"""Who learns how: Muon for the kernels of convolutions, Nesterov momentum for what else learns.

Losses are summed over a batch, not averaged: so a rate does not change with the batch size.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import path_aware_map
from optax.contrib import MuonDimensionNumbers, scale_by_muon

WEIGHT_DECAY = 2e-6  # of an example


def create(rates, batch_size, total_steps, whitening_steps):
    """Returns the Optax transformation of a network's parameters.

    Args:
        rates: the highest learning rates of 'kernel', 'head' and 'bias'.
        batch_size: in examples.
        total_steps: of the run.
        whitening_steps: after so many the bias of the whitening convolution stays as it is.
    """
    nesterov = partial(_nesterov, batch_size=batch_size)
    schedule = partial(triangle, total_steps=total_steps)
    return optax.multi_transform(
        {
            'frozen': optax.set_to_zero(),
            'kernel': _muon(partial(schedule, peak=rates['kernel'])),
            'head': nesterov(rates['head'], partial(schedule, peak=rates['head'])),
            'bias': nesterov(rates['bias'], partial(schedule, peak=rates['bias'])),
            'whitening_bias': nesterov(
                rates['bias'], optax.linear_schedule(rates['bias'], 0.0, whitening_steps)
            ),
        },
        partial(path_aware_map, group),
    )


def group(path, _):
    """Returns which of the transformations a parameter gets, by the names on the way to it."""
    if path[0] == 'whitening':
        return 'frozen' if path[-1] == 'kernel' else 'whitening_bias'
    if path[0] == 'head':
        return 'head'
    return path[-1]


def triangle(step, peak, total_steps, start=0.2, top=0.2):
    """Returns the rate: from `start` times the peak up to the peak at the share `top`, then to 0.

    Both legs are linear; of the steps 0 to total_steps - 1 the last one has a rate above 0.
    """
    return peak * jnp.interp(
        jnp.asarray(step, jnp.float32),
        jnp.array([0.0, top * total_steps, total_steps], jnp.float32),
        jnp.array([start, 1.0, 0.0], jnp.float32),
    )


def _nesterov(peak, schedule, batch_size):
    return optax.chain(
        optax.add_decayed_weights(WEIGHT_DECAY * batch_size / peak),
        optax.trace(0.85, nesterov=True),
        optax.scale_by_learning_rate(schedule),
    )


def _muon(schedule):
    """Muon on kernels as matrices (Jordan et al., 2024), which keep the norm sqrt(features).

    Batch normalisation makes the size of a kernel meaningless. Held, it leaves the meaning of a
    learning rate the same throughout.
    """
    return optax.chain(
        scale_by_muon(
            ns_steps=3,
            beta=0.6,
            weight_dimension_numbers=partial(jax.tree.map, lambda _: KERNEL),
        ),
        optax.scale_by_learning_rate(schedule),
        optax.stateless(partial(jax.tree.map, _hold_norm)),
    )


def _hold_norm(update, kernel):
    norm = jnp.linalg.norm(kernel.reshape(-1))
    return update + (kernel.shape[-1] ** 0.5 / norm - 1) * kernel


KERNEL = MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
