"""Optimizers from the `optim` group: Optax chains."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from neptune_jax.errors import choose_or_import


def decay_mask(params: Any) -> Any:
    """Returns a pytree of bools: True for the parameters that weight decay applies to.

    Those are kernels. Biases and the scales of normalisation layers, which have one dimension,
    are left out: to shrink them does not regularise the function that the network computes.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_set(number):
    return isinstance(number, jax.Array) or bool(number)  # a traced one is not 0


def _weight_decay(config):
    if not _is_set(config.weight_decay):
        return optax.identity()
    return optax.add_decayed_weights(config.weight_decay, mask=decay_mask)


def _sgd(config, schedule, in_steps):
    momentum = (
        optax.trace(config.momentum, config.nesterov)
        if _is_set(config.momentum)
        else optax.identity()
    )
    return optax.chain(_weight_decay(config), momentum, optax.scale_by_learning_rate(schedule))


def _adam(config, schedule, in_steps):
    return optax.chain(
        _weight_decay(config), optax.scale_by_adam(), optax.scale_by_learning_rate(schedule)
    )


def _adamw(config, schedule, in_steps):
    return optax.chain(
        optax.scale_by_adam(), _weight_decay(config), optax.scale_by_learning_rate(schedule)
    )


# Functions of (the optim group, schedule, in_steps) to an Optax transformation that includes the
# learning rate.
OPTIMIZERS = {'sgd': _sgd, 'adam': _adam, 'adamw': _adamw}


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule, in_steps: Callable[[str, str], int]
) -> optax.GradientTransformation:
    """Returns an Optax chain: clip the gradient, then apply the optimizer with its learning rate.

    Weight decay is L2 regularisation of the loss for 'sgd' and 'adam' (it is added to the gradient)
    and decoupled for 'adamw' (Loshchilov and Hutter, 2019, algorithm 2; the decay is multiplied by
    the learning rate, as in other libraries).

    Args:
        config: the `optim` group; its numbers may be traced (learning.numbers). `name` is a key of
            OPTIMIZERS or 'package.module:name' of such a
            function.
        schedule: from the step to the learning rate.
        in_steps: converts a length, given with the name of its field, to steps
            (`lengths.in_steps`).

    Raises:
        UserError: an unknown optimizer.
    """
    create = choose_or_import(OPTIMIZERS, config.name, 'optim.name')
    clip = optax.identity()
    if _is_set(config.clip_norm):
        clip = optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, create(config, schedule, in_steps))
