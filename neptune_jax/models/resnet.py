"""Residual networks for small images: three stages of basic blocks, then the mean of each channel.

He et al., 'Deep residual learning for image recognition' (2015), section 4.2.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from neptune_jax.errors import UserError
from neptune_jax.fields import check_module, of_module
from neptune_jax.models.layers import DTYPES, BatchNorm, Conv, Head


class ResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks of two, and the output layer.

    The stages have `width`, 2 `width` and 4 `width` channels. The first block of the second and of
    the third stage has stride 2. Shortcuts have no parameters: they fill missing channels with
    zeros ('option A').

    Raises UserError if a field is out of range.

    Attributes:
        num_classes: width of the output layer.
        depth: number of layers, 6n + 2.
        width: channels of the first stage.
        dtype: layers compute in it; parameters, batch statistics and logits are float32.
        batch_norm_axis: axis of devices that batch statistics are averaged over, or None.
    """

    num_classes: int
    depth: int = of_module(20, '[8, 1202]')
    width: int = of_module(16, '[1, 2**14)')
    dtype: str = of_module('float32', choices=tuple(DTYPES))
    batch_norm_axis: str | None = None

    def __post_init__(self) -> None:
        check_module(self)
        if self.depth % 6 != 2:
            raise UserError(f'model.depth={self.depth} must be 8, 14, 20, 26, 32, ...: 6n + 2')
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits float32[B, num_classes] for images float32[B, H, W, C], standardised."""
        conv = partial(
            Conv,
            kernel_size=(3, 3),
            padding=1,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
        )

        def normalize(x):
            return BatchNorm(axis_name=self.batch_norm_axis, dtype=self.dtype)(x, train)

        x = nn.relu(normalize(conv(self.width)(images)))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                features, stride = self.width * 2**stage, 2 if stage and not block else 1
                y = nn.relu(normalize(conv(features, strides=stride)(x)))
                y = normalize(conv(features)(y))
                shortcut = x[:, ::stride, ::stride]
                missing = features - shortcut.shape[-1]
                x = nn.relu(y + jnp.pad(shortcut, ((0, 0),) * 3 + ((0, missing),)))
        # The name keeps checkpoints of earlier versions readable.
        return Head(self.num_classes, dtype=self.dtype, name='Dense_0')(x.mean(axis=(1, 2)))
