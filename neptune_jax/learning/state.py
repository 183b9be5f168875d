"""TrainState: everything that a training step changes and a checkpoint keeps."""

from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from neptune_jax.devices import compiling

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """A pytree of arrays, the same on every device."""

    step: jax.Array  # int32[]: optimizer steps taken
    params: PyTree
    batch_stats: PyTree  # running statistics of normalisation layers; {} if there are none
    opt_state: PyTree
    ema: PyTree  # moving average of the parameters; {} if there is none
    # Statistics of the model with the parameters `ema`, when they were last computed; {} without
    # `ema` or without batch_stats. Training does not use them.
    ema_batch_stats: PyTree = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The model's variables to evaluate and predict with: averages if there are any."""
        return {
            'params': self.ema or self.params,
            'batch_stats': self.ema_batch_stats or self.batch_stats,
        }

    def with_averages(self) -> 'TrainState':
        """Returns this state with averages that start from its parameters."""
        copies = jax.tree.map(jnp.copy, (self.params, self.batch_stats))
        return self.replace(ema=copies[0], ema_batch_stats=copies[1])


def initial(
    model: Any,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    ema: bool = False,
) -> TrainState:
    """Returns the state before the first step, with parameters drawn from a key.

    Args:
        model: a Flax module from images to logits.
        optimizer: an Optax transformation.
        image_shape: (height, width, channels).
        key: PRNG key.
        ema: whether to average the parameters.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    params = variables['params']
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get('batch_stats', {}),
        opt_state=optimizer.init(params),
        ema={},
    )
    return state.with_averages() if ema else state


def create(
    model: Any,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    ema: bool = False,
) -> TrainState:
    """Returns the `initial` state of a seed, computed by one compiled program.

    The program runs once. On a CPU, XLA would spend a second to optimise each layer's random
    numbers, so it does not optimise.
    """
    options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else {}
    init = jax.jit(partial(initial, model, optimizer, image_shape, ema=ema))
    key = jax.random.key(seed)
    return compiling.compile_lowered(init.lower(key), options)(key)


def count_params(params: PyTree) -> int:
    """Returns the number of trainable scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
