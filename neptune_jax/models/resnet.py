"""Residual networks for small images: three stages of basic blocks, then the mean of each channel.

He et al., 'Deep residual learning for image recognition' (2015), section 4.2.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from neptune_jax import ops
from neptune_jax.errors import UserError, choose
from neptune_jax.models.layers import DTYPES, batch_norm


class ResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks of two, and a dense layer.

    The stages have `width`, 2 `width` and 4 `width` channels; the first block of the second and of
    the third takes every other row and column. Shortcuts have no parameters: missing channels are
    zeros ('option A').

    Layers compute in `dtype`; parameters, batch statistics and logits are float32 whatever it is.
    Where `batch_norm_axis` names an axis of devices, statistics are those of the batch of all.

    Raises UserError where a field is out of range.
    """

    num_classes: int
    depth: int = 20
    width: int = 16
    dtype: str = 'float32'
    batch_norm_axis: str | None = None

    def __post_init__(self):
        if self.depth < 8 or self.depth % 6 != 2:
            raise UserError(f'model.depth={self.depth} must be 8, 14, 20, 26, 32, ...: 6n + 2')
        if self.width < 1:
            raise UserError(f'model.width={self.width} must be at least 1')
        choose(DTYPES, self.dtype, 'model.dtype')
        super().__post_init__()

    @nn.compact
    def __call__(self, images, train=False, keys=None):
        """Returns logits float[B, num_classes].

        Args:
            images: float[B, H, W, C], standardised.
            train: whether the batch's own statistics normalise.
            keys: not used: nothing here is drawn.
        """
        dtype = DTYPES[self.dtype]
        conv = partial(
            nn.Conv,
            kernel_size=(3, 3),
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            conv_general_dilated=ops.conv,
            dtype=dtype,
        )
        norm = partial(batch_norm, train, self.batch_norm_axis, dtype)
        x = nn.relu(norm()(conv(self.width, padding=1)(images)))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                features, stride = self.width * 2**stage, 2 if stage and not block else 1
                y = nn.relu(norm()(conv(features, strides=stride, padding=1)(x)))
                y = norm()(conv(features, padding=1)(y))
                shortcut = x[:, ::stride, ::stride]
                missing = features - shortcut.shape[-1]
                x = nn.relu(y + jnp.pad(shortcut, ((0, 0),) * 3 + ((0, missing),)))
        logits = nn.Dense(self.num_classes, dtype=dtype)(x.mean(axis=(1, 2)))
        return logits if dtype is None else logits.astype(jnp.float32)
