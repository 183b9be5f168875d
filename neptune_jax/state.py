"""TrainState: everything that a training step changes and a checkpoint keeps."""

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


def create(model, optimizer, image_shape, seed):
    """Returns the state before the first step: parameters drawn by `seed`, fresh optimizer.

    Args:
        model: a Flax module that maps images to logits.
        optimizer: an Optax gradient transformation.
        image_shape: (height, width, channels).
        seed: int.
    """

    @jax.jit  # one program instead of one for each layer's initialiser
    def init(key):
        variables = model.init(key, jnp.zeros((1, *image_shape)))
        params = variables['params']
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get('batch_stats', {}),
            opt_state=optimizer.init(params),
        )

    return init(jax.random.key(seed))


def count_params(params):
    """Returns the number of trainable scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
