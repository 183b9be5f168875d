"""What the networks share."""

import flax.linen as nn
import jax.numpy as jnp

# What layers compute in, by `model.dtype`; None: in the type of their inputs and parameters.
DTYPES = {'float32': None, 'bfloat16': jnp.bfloat16}


def batch_norm(train, axis_name, dtype):
    """Returns batch normalisation by the batch's own statistics in training, else by their mean.

    Args:
        train: bool.
        axis_name: the axis of devices over which statistics are taken, or None.
        dtype: a value of DTYPES.
    """
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, axis_name=axis_name, dtype=dtype
    )
