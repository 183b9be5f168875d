"""The network of the speedrun: a frozen whitening convolution, blocks of convolutions, one layer.

After Jordan, '94% on CIFAR-10 in 3.29 seconds on a single GPU' (arXiv:2404.00498).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from neptune_jax.errors import check_choice
from neptune_jax.models import layers, ops


class Network(nn.Module):
    """Maps standardised images to logits.

    Attributes:
        num_classes: width of the last layer.
        widths: channels of each block.
        depth: convolutions in a block; with three, the block has a residual branch.
        patch: height and width of the whitening convolution's kernel.
        stride: stride of the whitening convolution.
        pool: window of the last max pooling.
        dtype: blocks compute in it; parameters, batch statistics and logits are float32.
        batch_norm_axis: axis of devices that batch statistics are averaged over, or None.
    """

    num_classes: int
    widths: Sequence[int]
    depth: int = 2
    patch: int = 2
    stride: int = 1
    pool: int = 3
    dtype: str = 'float32'
    batch_norm_axis: str | None = None

    def __post_init__(self):
        check_choice(self.dtype, layers.DTYPES, 'model.dtype')
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits float32[B, num_classes] for images float32[B, H, W, C], standardised."""
        x = Whitening(self.patch, self.stride, name='whitening')(images)
        x = nn.gelu(x.astype(self.dtype))
        for number, width in enumerate(self.widths):
            block = Block(
                width, self.depth, self.dtype, self.batch_norm_axis, name=f'block{number}'
            )
            x = block(x, train)
        x = layers.max_pool(x, self.pool).astype(jnp.float32).reshape(len(x), -1)
        head = layers.Head(
            self.num_classes,
            use_bias=False,
            kernel_init=nn.initializers.normal(1 / 16),
            name='head',
        )
        return head(x) * x.shape[-1] ** -0.5


class Whitening(nn.Module):
    """A convolution whose bias learns and whose kernel does not; see `whitening_kernel`.

    It computes in float32: its features are differences of nearly equal pixels.
    """

    size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Over so few channels the product of patches is faster than XLA's convolution on a CPU.
        x = ops.patches(x, (self.size,) * 2, (self.stride,) * 2)
        features = 2 * x.shape[-1]
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (x.shape[-1], features))
        bias = self.param('bias', nn.initializers.zeros, (features,))
        x = x @ jax.lax.stop_gradient(kernel) + bias.reshape(1, 1, 1, -1)
        # Without the barrier, XLA on a CPU computes the activation again for each of its uses.
        return jax.lax.optimization_barrier(x) if jax.default_backend() == 'cpu' else x


class Block(nn.Module):
    """3x3 convolutions, each with batch normalisation and GELU; a max pool follows the first."""

    width: int
    depth: int
    dtype: str = 'float32'
    batch_norm_axis: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        branch = None
        for number in range(self.depth):
            x = layers.Conv(
                self.width, (3, 3), use_bias=False, kernel_init=partial_dirac, dtype=self.dtype
            )(x)
            if number == 0:
                x = layers.max_pool(x)
            x = layers.BatchNorm(
                momentum=0.4, use_scale=False, axis_name=self.batch_norm_axis, dtype=self.dtype
            )(x, train)
            if number == 2:
                x = x + branch
            x = nn.gelu(x)
            if number == 0:
                branch = x
        return x


def partial_dirac(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Returns a kernel [h, w, in, out] whose first `in` outputs are the inputs.

    The other outputs have PyTorch's default: uniform in +-1 / sqrt(fan in).
    """
    height, width, channels, _ = shape
    bound = (height * width * channels) ** -0.5
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    identity = jnp.zeros((height, width, channels, channels), dtype)
    identity = identity.at[height // 2, width // 2].set(jnp.eye(channels, dtype=dtype))
    return kernel.at[..., :channels].set(identity[..., : shape[-1]])


def whitening_kernel(images: jax.Array, size: int, epsilon: float = 5e-4) -> jax.Array:
    """Returns the kernel that makes patches of images uncorrelated, each feature of variance 1.

    The features are the eigenvectors of the patches' covariance over the roots of its eigenvalues,
    followed by their negatives, because a rectifier follows (arXiv:2404.00498, 3.2).

    Args:
        images: float32[N, H, W, C], standardised.
        size: height and width of a patch, in pixels.
        epsilon: added to the eigenvalues, some of which are nearly 0.

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
