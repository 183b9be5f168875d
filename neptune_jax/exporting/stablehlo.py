"""A classifier as a StableHLO program for every platform and any batch size."""

import contextlib
from collections.abc import Callable, Iterator

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

    with _without_file_names():
        exported = export.export(jax.jit(classify), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_file_names() -> Iterator[None]:
    """JAX notes in a program which files of this machine its operations come from; not here."""
    limit = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, limit)
    jax.config.update(limit, 0)
    try:
        yield
    finally:
        jax.config.update(limit, before)
