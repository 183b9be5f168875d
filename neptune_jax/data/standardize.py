"""Standardisation of pixels by statistics of the training split."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from neptune_jax.errors import choose


class Standardizer(NamedTuple):
    """What is subtracted and what is divided by, for each channel of pixels in [0, 1]."""

    shift: np.ndarray  # float32[C]
    scale: np.ndarray  # float32[C]

    def __call__(self, images):
        """Returns float32[B, H, W, C] for uint8[B, H, W, C]."""
        return (images.astype(jnp.float32) / 255 - self.shift.reshape(1, 1, 1, -1)) / (
            self.scale.reshape(1, 1, 1, -1)
        )


def _mean_std(values, counts):
    mean = np.average(values, weights=counts)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=counts))


def _min_max(values, counts):
    present = values[counts > 0]
    return present.min(), present.max() - present.min()


def _none(values, counts):
    return 0.0, 1.0


STANDARDIZERS = {'mean_std': _mean_std, 'min_max': _min_max, 'none': _none}


def fit(images, name):
    """Returns the Standardizer `name` for the given training images uint8[N, H, W, C].

    'mean_std': to mean 0 and standard deviation 1; 'min_max': to [0, 1]; 'none': pixels / 255.
    A channel that is constant is shifted only.

    Raises:
        UserError: an unknown name.
    """
    statistics = choose(STANDARDIZERS, name, 'data.standardize')
    values = np.arange(256) / 255
    # From how often each of the 256 values occurs, sums are exact and need no copy in float.
    channels = np.moveaxis(images, -1, 0)
    fitted = [statistics(values, np.bincount(c.ravel(), minlength=256)) for c in channels]
    shift, scale = np.array(fitted, np.float32).T
    return Standardizer(shift, np.where(scale > 0, scale, np.float32(1)))
