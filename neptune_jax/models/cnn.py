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

from neptune_jax.errors import UserError
from neptune_jax.fields import check_module, of_module
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
    features: Sequence[int] = of_module((32, 64), '[1, 2**16)', elements=int)
    kernel_size: int = of_module(3, '[1, 2**10)')
    padding: str = of_module('SAME', choices=('SAME', 'VALID'))
    hidden: Sequence[int] = of_module((), '[1, 2**16)', elements=int)
    activation: str = of_module('leaky_relu', choices=tuple(ACTIVATIONS))
    kernel_init: str = of_module('xavier_uniform', choices=tuple(INITIALIZERS))
    norm: str = of_module('none', choices=('none', 'batch'))
    dropout: float = of_module(0.0, '[0, 1)')
    dtype: str = of_module('float32', choices=tuple(DTYPES))
    batch_norm_axis: str | None = None

    def __post_init__(self) -> None:
        check_module(self)
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
