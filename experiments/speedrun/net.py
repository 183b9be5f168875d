"""The network of the speedrun: a frozen whitening convolution, blocks of convolutions, one layer.

After Jordan, '94% on CIFAR-10 in 3.29 seconds on a single GPU' (arXiv:2404.00498).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from neptune_jax.models import ops


class Network(nn.Module):
    """Maps standardised images to logits.

    Attributes:
        num_classes: of the logits.
        widths: channels of each block.
        depth: convolutions in a block; from the third on, the block has a residual branch.
        patch: height and width of the whitening convolution's kernel.
        stride: of the whitening convolution.
        pool: window of the last max pooling.
        dtype: of activations and products behind the whitening and before the last layer;
            parameters and batch statistics are float32.
    """

    num_classes: int
    widths: Sequence[int]
    depth: int = 2
    patch: int = 2
    stride: int = 1
    pool: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        """Returns logits float32[B, num_classes] for images float32[B, H, W, C]."""
        x = Whitening(self.patch, self.stride, name='whitening')(images)
        x = nn.gelu(x.astype(self.dtype))
        for number, width in enumerate(self.widths):
            x = Block(width, self.depth, self.dtype, name=f'block{number}')(x, train)
        x = ops.max_pool(x, self.pool).astype(jnp.float32).reshape(len(x), -1)
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=nn.initializers.normal(1 / 16),
            name='head',
        )
        return head(x) * x.shape[-1] ** -0.5


class Whitening(nn.Module):
    """A convolution whose kernel `whitening_kernel` has set; only its bias learns.

    It is in float32: its features are differences of pixels that are nearly equal.
    """

    size: int
    stride: int

    @nn.compact
    def __call__(self, x):
        # Over so few channels the product of patches is faster than XLA's convolution on a CPU.
        x = ops.patches(x, (self.size,) * 2, (self.stride,) * 2)
        features = 2 * x.shape[-1]
        kernel = self.param('kernel', nn.initializers.zeros, (x.shape[-1], features))
        bias = self.param('bias', nn.initializers.zeros, (features,))
        x = x @ jax.lax.stop_gradient(kernel) + bias.reshape(1, 1, 1, -1)
        # Without the barrier, XLA computes there what follows again for each of its uses.
        return jax.lax.optimization_barrier(x) if jax.default_backend() == 'cpu' else x


class Block(nn.Module):
    """Convolutions of 3x3, each followed by batch normalisation and GELU; the first one pools."""

    width: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        branch = None
        for number in range(self.depth):
            x = nn.Conv(
                self.width,
                (3, 3),
                use_bias=False,
                kernel_init=partial_dirac,
                conv_general_dilated=ops.conv,
                dtype=self.dtype,
            )(x)
            if number == 0:
                x = ops.max_pool(x)
            x = nn.BatchNorm(
                use_running_average=not train, momentum=0.4, use_scale=False, dtype=self.dtype
            )(x)
            if number == 2:
                x = x + branch
            x = nn.gelu(x)
            if number == 0:
                branch = x
        return x


def partial_dirac(key, shape, dtype=jnp.float32):
    """Returns a kernel [h, w, in, out] whose first `in` outputs are the inputs.

    The other outputs have PyTorch's default: uniform in +-1 / sqrt(fan in).
    """
    height, width, channels, _ = shape
    bound = (height * width * channels) ** -0.5
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    identity = jnp.zeros((height, width, channels, channels), dtype)
    identity = identity.at[height // 2, width // 2].set(jnp.eye(channels, dtype=dtype))
    return kernel.at[..., :channels].set(identity[..., : shape[-1]])


def whitening_kernel(images, size, epsilon=5e-4):
    """Returns the kernel that makes patches of images uncorrelated, each feature of variance 1.

    The features are the eigenvectors of the patches' covariance over the roots of its eigenvalues,
    and after them their negatives, because what follows is rectified (arXiv:2404.00498, 3.2).

    Args:
        images: float32[N, H, W, C], standardised.
        size: height and width of a patch, in pixels.
        epsilon: added to the eigenvalues, of which some are next to nothing.

    Returns:
        float32[size * size * C, 2 * size * size * C].
    """
    x = ops.patches(images, (size, size))
    x = x.reshape(-1, x.shape[-1])
    x = x - x.mean(axis=0, keepdims=True)
    covariance = jnp.matmul(x.T, x, precision='highest') / len(x)
    values, vectors = jnp.linalg.eigh(covariance)
    kernel = vectors / jnp.sqrt(values + epsilon).reshape(1, -1)
    return jnp.concatenate([kernel, -kernel], axis=1)
