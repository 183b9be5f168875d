"""The layers that networks are built from: Flax's, fast on every backend and with few arguments.

Each takes `dtype` as a config writes it, 'float32' or 'bfloat16'. Parameters are float32 with both.
"""

import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from neptune_jax.models import ops

max_pool = ops.max_pool

# The type that Flax's layers compute in. None means the type of the inputs and the parameters.
DTYPES: dict[str, Any] = {'float32': None, 'bfloat16': jnp.bfloat16}

ACTIVATIONS = {
    'relu': nn.relu,
    'leaky_relu': nn.leaky_relu,
    'elu': nn.elu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'tanh': nn.tanh,
    'sigmoid': nn.sigmoid,
}

INITIALIZERS = {
    f'{scheme}_{distribution}': getattr(nn.initializers, f'{scheme}_{distribution}')()
    for scheme in ('xavier', 'he', 'lecun')
    for distribution in ('uniform', 'normal')
}


class _Typed(nn.Module):
    """Reads `dtype` as a config writes it. Flax's own types pass through."""

    dtype: Any = 'float32'

    def __post_init__(self) -> None:
        self.dtype = DTYPES.get(self.dtype, self.dtype)
        super().__post_init__()


class Conv(_Typed, nn.Conv):
    """nn.Conv with `ops.conv`, which is fast on a CPU too."""

    conv_general_dilated: Any = ops.conv


class Dense(_Typed, nn.Dense):
    """nn.Dense."""


class Head(Dense):
    """The output layer: nn.Dense whose logits are float32 whatever it computes in."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        logits = super().__call__(x)
        return logits if self.dtype is None else logits.astype(jnp.float32)


class BatchNorm(_Typed, nn.BatchNorm):
    """nn.BatchNorm, by the batch's own statistics in training, else by their running averages.

    `axis_name` names the axis of devices over which batch statistics are averaged. With None they
    are those of the images that this device sees.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:  # type: ignore[override]
        return super().__call__(x, use_running_average=not train)


class Dropout(nn.Module):
    """Sets features to 0 with probability `rate` and scales up the others; in training only.

    What is dropped of an example depends on its key and on the layer, not on the batch around it.
    So the result does not change when a batch is divided over devices or into parts. The keys,
    one for each example, come with the variables: {'keys': {'dropout': key[B]}}.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not (train and self.rate):
            return x
        assert self.scope is not None  # there is one while a network is applied
        keys = self.scope.root.get_variable('keys', 'dropout')
        layer = zlib.crc32('/'.join(self.scope.path).encode())
        return ops.dropout(x, self.rate, keys, layer)
