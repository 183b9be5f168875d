"""A classifier as a StableHLO program for every platform and any batch size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from neptune_jax.models import ops

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def write(
    function: Callable[[dict, jax.Array], dict[str, jax.Array]],
    variables: dict,
    image_shape: tuple[int, int, int],
) -> bytes:
    """Returns a function of images as a program of jax.export, with its parameters inside.

    jax.export.deserialize reads it, in this version of JAX and in later ones.

    Args:
        function: from (variables, images uint8[B, H, W, C]) to a dict of arrays [B, ...].
        variables: a pytree of arrays.
        image_shape: (height, width, channels).
    """
    (batch,) = export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)

    def classify(images):
        # A convolution chooses a formulation for this machine's backend outside of this context.
        with ops.portable():
            return function(variables, images)

    exported = export.export(jax.jit(classify), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())
