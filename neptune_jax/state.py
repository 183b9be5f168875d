"""TrainState: everything that a training step changes and a checkpoint keeps."""

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
    """A pytree of arrays, the same on every device."""

    step: jax.Array  # int32[]: optimizer steps taken
    params: Any
    batch_stats: Any  # running statistics of normalisation layers; {} where there are none
    opt_state: Any
    ema: Any  # moving average of the parameters; {} where there is none

    @property
    def averaged_params(self):
        """The parameters to evaluate and to predict with."""
        return self.ema or self.params


def initial(model, optimizer, image_shape, key, ema=False):
    """Returns the state before the first step: parameters drawn by a key, fresh optimizer.

    Args:
        model: a Flax module that maps images to logits.
        optimizer: an Optax gradient transformation.
        image_shape: (height, width, channels).
        key: PRNG key.
        ema: whether the parameters are averaged.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    params = variables['params']
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get('batch_stats', {}),
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema else {},
    )


def create(model, optimizer, image_shape, seed, ema=False):
    """Returns the `initial` state for a seed, by one program.

    It runs once. On a CPU, to optimise it would take a second for each layer's random numbers.
    """
    quick = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    init = partial(initial, model, optimizer, image_shape, ema=ema)
    return jax.jit(init, compiler_options=quick)(jax.random.key(seed))


def count_params(params):
    """Returns the number of trainable scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
