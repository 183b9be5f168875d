"""The optimizer and the schedule of the speedrun, for `optim.name` and `optim.schedule`.

Muon trains the kernels of convolutions; Nesterov's momentum trains biases and the last layer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import path_aware_map
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers, scale_by_muon

# The schedule starts at this share of the highest rate, which it reaches at this share of the run.
START, TOP = 0.2, 0.2

# A kernel [h, w, in, out] as a matrix of one column a feature.
KERNEL = MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)


def create(
    config: ConfigDict, schedule: optax.Schedule, in_steps: Callable[[str, str], int]
) -> optax.GradientTransformation:
    """Returns the Optax transformation of a network's parameters.

    Args:
        config: the `optim` group. Its options are `kernel_rate`, `head_rate` and `bias_rate`, the
            learning rates of convolutions, the last layer and biases where the schedule is at 1;
            `weight_decay`, the share of a bias or of the last layer that a step takes away there;
            `whitening`, the length in which the bias of the whitening convolution learns.
        schedule: from the step to a factor of all rates.
        in_steps: converts a length, given with the name of its field, to steps.
    """
    options = config.options
    nesterov = partial(_nesterov, weight_decay=options.weight_decay)
    whitening_steps = min(
        in_steps(options.whitening, 'optim.options.whitening'),
        in_steps('100%', 'optim.options.whitening'),
    )
    whitening_schedule = optax.linear_schedule(config.learning_rate, 0.0, whitening_steps)
    return optax.multi_transform(
        {
            'frozen': optax.set_to_zero(),
            'kernel': _muon(options.kernel_rate, schedule),
            'head': nesterov(options.head_rate, schedule),
            'bias': nesterov(options.bias_rate, schedule),
            'whitening_bias': nesterov(options.bias_rate, whitening_schedule),
        },
        partial(path_aware_map, group),
    )


def group(path: tuple[str, ...], _: Any) -> str:
    """Returns which of the transformations a parameter gets, by its path."""
    if path[0] == 'whitening':
        return 'frozen' if path[-1] == 'kernel' else 'whitening_bias'
    if path[0] == 'head':
        return 'head'
    return path[-1]


def triangle(
    config: ConfigDict, total_steps: int, in_steps: Callable[[str, str], int]
) -> optax.Schedule:
    """Returns the schedule: linearly up to `config.learning_rate`, then linearly down to 0.

    Of the steps 0 to total_steps - 1 the last one has a rate above 0.
    """
    del in_steps

    def schedule(step):
        share = jnp.interp(
            jnp.asarray(step, jnp.float32),
            jnp.array([0.0, TOP * total_steps, total_steps], jnp.float32),
            jnp.array([START, 1.0, 0.0], jnp.float32),
        )
        return config.learning_rate * share

    return schedule


def _nesterov(rate, schedule, weight_decay):
    return optax.chain(
        optax.scale(rate),
        optax.add_decayed_weights(weight_decay),
        optax.trace(0.85, nesterov=True),
        optax.scale_by_learning_rate(schedule),
    )


def _muon(rate, schedule):
    """Muon (Jordan et al., 2024) on kernels whose norm is held at sqrt(features).

    The size of a kernel in front of a batch normalisation does not change what the network
    computes. A constant size keeps the effect of a learning rate the same throughout the run.
    """
    return optax.chain(
        scale_by_muon(
            ns_steps=3,
            beta=0.6,
            weight_dimension_numbers=partial(jax.tree.map, lambda _: KERNEL),
        ),
        optax.scale_by_learning_rate(lambda step: rate * schedule(step)),
        optax.stateless(partial(jax.tree.map, _hold_norm)),
    )


def _hold_norm(update, kernel):
    norm = jnp.linalg.norm(kernel.reshape(-1))
    return update + (kernel.shape[-1] ** 0.5 / norm - 1) * kernel
