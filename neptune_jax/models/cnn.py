"""Plain convolutional networks: blocks of convolution, activation and pool, then dense layers.

The four networks of the reference material are four sets of fields; `configs/` states them:

    cnn         features (32, 64)       3x3 SAME    hidden ()       leaky ReLU
    cnn3        features (32, 64, 128)  3x3 SAME    hidden ()       ReLU
    simple_net  features (6, 16)        5x5 VALID   hidden (256,)   ReLU
    net         features (32, 64, 128)  3x3 SAME    hidden (512,)   ReLU
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from neptune_jax import ops
from neptune_jax.errors import UserError, choose
from neptune_jax.models.layers import DTYPES, batch_norm

ACTIVATIONS = {
    'relu': nn.relu,
    'leaky_relu': nn.leaky_relu,
    'elu': nn.elu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'tanh': nn.tanh,
    'sigmoid': nn.sigmoid,
}

# These never fall, so the largest of a window is the same before and after them: pooling first
# leaves a quarter of the work.
RISING = {'relu', 'leaky_relu', 'elu', 'tanh', 'sigmoid'}

INITIALIZERS = {
    f'{scheme}_{distribution}': getattr(nn.initializers, f'{scheme}_{distribution}')()
    for scheme in ('xavier', 'he', 'lecun')
    for distribution in ('uniform', 'normal')
}


class CNN(nn.Module):
    """Convolutions, each followed by its activation and a 2x2 max pool, then dense layers.

    With `norm='batch'`, batch normalisation stands between a convolution and its activation. Where
    `batch_norm_axis` names an axis of devices, its statistics are those of the batch of all. Before
    each dense layer, a feature is dropped with probability `dropout`.

    Layers compute in `dtype`; parameters, batch statistics and logits are float32 whatever it is.

    Raises UserError where a field is out of range or the image is too small for the pools.
    """

    num_classes: int
    features: Sequence[int] = (32, 64)
    kernel_size: int = 3
    padding: str = 'SAME'
    hidden: Sequence[int] = ()
    activation: str = 'leaky_relu'
    kernel_init: str = 'xavier_uniform'
    norm: str = 'none'
    dropout: float = 0.0
    dtype: str = 'float32'
    batch_norm_axis: str | None = None

    def __post_init__(self):
        choose(ACTIVATIONS, self.activation, 'model.activation')
        choose(INITIALIZERS, self.kernel_init, 'model.kernel_init')
        choose({'SAME': None, 'VALID': None}, self.padding, 'model.padding')
        for field in ('features', 'hidden'):
            widths = getattr(self, field)
            if not all(isinstance(width, int) and width > 0 for width in widths):
                raise UserError(f'model.{field}={widths!r} must hold whole numbers above 0')
        if self.kernel_size < 1:
            raise UserError(f'model.kernel_size={self.kernel_size} must be at least 1')
        choose({'none': None, 'batch': None}, self.norm, 'model.norm')
        choose(DTYPES, self.dtype, 'model.dtype')
        if not 0 <= self.dropout < 1:
            raise UserError(f'model.dropout={self.dropout} must be at least 0 and below 1')
        super().__post_init__()

    @nn.compact
    def __call__(self, images, train=False, keys=None):
        """Returns logits float[B, num_classes].

        Args:
            images: float[B, H, W, C], standardised.
            train: whether features are dropped and normalised by the batch's own statistics.
            keys: PRNG keys [B], one for each image; for dropout in training.
        """
        activation = ACTIVATIONS[self.activation]
        kernel_init = INITIALIZERS[self.kernel_init]
        dtype = DTYPES[self.dtype]

        x = images
        for features in self.features:
            kernel_size = (self.kernel_size, self.kernel_size)
            if self.padding == 'VALID' and min(x.shape[1:3]) < self.kernel_size:
                raise UserError(_too_small(images))
            normalize = self.norm == 'batch'
            x = nn.Conv(
                features,
                kernel_size,
                padding=self.padding,
                kernel_init=kernel_init,
                use_bias=not normalize,  # batch normalisation would take it away again
                conv_general_dilated=ops.conv,
                dtype=dtype,
            )(x)
            if normalize:
                x = batch_norm(train, self.batch_norm_axis, dtype)(x)
            if self.activation in RISING:
                x = activation(ops.max_pool(x))
            else:
                x = ops.max_pool(activation(x))
            if 0 in x.shape:
                raise UserError(_too_small(images))
        x = x.reshape(x.shape[0], -1)
        drop = partial(ops.dropout, rate=self.dropout if train else 0, keys=keys)
        for layer, width in enumerate(self.hidden):
            dense = nn.Dense(width, kernel_init=kernel_init, dtype=dtype)
            x = activation(dense(drop(x, layer=layer)))
        x = drop(x, layer=len(self.hidden))
        dense = nn.Dense(self.num_classes, kernel_init=kernel_init, dtype=dtype)
        logits = dense(x)
        return logits if dtype is None else logits.astype(jnp.float32)


def _too_small(images):
    height, width = images.shape[1:3]
    return (
        f'images of {height}x{width} are too small for model.features: each convolution is '
        "followed by a 2x2 pool; give fewer features, or model.padding='SAME'"
    )
