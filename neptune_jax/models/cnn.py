"""Plain convolutional networks: blocks of convolution, activation and pool, then dense layers.

The four networks of the reference material are four sets of fields; `configs/` states them:

    cnn         features (32, 64)       3x3 SAME    hidden ()       leaky ReLU
    cnn3        features (32, 64, 128)  3x3 SAME    hidden ()       ReLU
    simple_net  features (6, 16)        5x5 VALID   hidden (256,)   ReLU
    net         features (32, 64, 128)  3x3 SAME    hidden (512,)   ReLU
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from neptune_jax.errors import UserError, check_choice
from neptune_jax.models.layers import (
    ACTIVATIONS,
    DTYPES,
    INITIALIZERS,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Head,
    max_pool,
)

# Activations that never decrease. The largest element of a window is the same before and after
# them, so the network pools first and computes a quarter of the activations.
MONOTONIC = {'relu', 'leaky_relu', 'elu', 'tanh', 'sigmoid'}


class CNN(nn.Module):
    """Convolutions, each followed by its activation and a 2x2 max pool, then dense layers.

    Raises UserError if a field is out of range or the image is too small for the pools.

    Attributes:
        num_classes: width of the output layer.
        features: channels of each convolution.
        kernel_size: height and width of every convolution.
        padding: 'SAME' keeps height and width; 'VALID' adds no padding.
        hidden: widths of the dense layers before the output layer.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        kernel_init: xavier_, he_ or lecun_, followed by uniform or normal.
        norm: 'none', or 'batch': batch normalisation after each convolution.
        dropout: probability to drop a feature before each dense layer.
        dtype: layers compute in it; parameters, batch statistics and logits are float32.
        batch_norm_axis: axis of devices that batch statistics are averaged over, or None.
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

    def __post_init__(self) -> None:
        check_choice(self.activation, ACTIVATIONS, 'model.activation')
        check_choice(self.kernel_init, INITIALIZERS, 'model.kernel_init')
        check_choice(self.padding, ('SAME', 'VALID'), 'model.padding')
        check_choice(self.norm, ('none', 'batch'), 'model.norm')
        check_choice(self.dtype, DTYPES, 'model.dtype')
        for field in ('features', 'hidden'):
            widths = getattr(self, field)
            if not all(isinstance(width, int) and width > 0 for width in widths):
                raise UserError(f'model.{field}={widths!r} must hold whole numbers above 0')
        if self.kernel_size < 1:
            raise UserError(f'model.kernel_size={self.kernel_size} must be at least 1')
        if not 0 <= self.dropout < 1:
            raise UserError(f'model.dropout={self.dropout} must be at least 0 and below 1')
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits float32[B, num_classes] for images float32[B, H, W, C], standardised."""
        activation = ACTIVATIONS[self.activation]
        options = {'kernel_init': INITIALIZERS[self.kernel_init], 'dtype': self.dtype}
        normalize = self.norm == 'batch'
        x = images
        for features in self.features:
            if self.padding == 'VALID' and min(x.shape[1:3]) < self.kernel_size:
                raise UserError(_too_small(images))
            # Batch normalisation would cancel a bias.
            x = Conv(
                features,
                (self.kernel_size, self.kernel_size),
                padding=self.padding,
                use_bias=not normalize,
                **options,
            )(x)
            if normalize:
                x = BatchNorm(axis_name=self.batch_norm_axis, dtype=self.dtype)(x, train)
            pools_first = self.activation in MONOTONIC
            x = activation(max_pool(x)) if pools_first else max_pool(activation(x))
            if 0 in x.shape:
                raise UserError(_too_small(images))
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = Dropout(self.dropout)(x, train)
            x = activation(Dense(width, **options)(x))
        x = Dropout(self.dropout)(x, train)
        # The name keeps checkpoints of earlier versions readable.
        return Head(self.num_classes, name=f'Dense_{len(self.hidden)}', **options)(x)


def _too_small(images):
    height, width = images.shape[1:3]
    return (
        f'images of {height}x{width} are too small for model.features: each convolution is '
        "followed by a 2x2 pool; give fewer features, or model.padding='SAME'"
    )
