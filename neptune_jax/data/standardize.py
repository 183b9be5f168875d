"""Standardisation of pixels: by the training split's statistics, per image, or by constants."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neptune_jax.errors import UserError, choose


class Standardizer(NamedTuple):
    """Standardises pixels in [0, 1]: (pixel - shift) / scale, channel by channel."""

    shift: np.ndarray  # float32[C]
    scale: np.ndarray  # float32[C]
    per_image: bool = False  # first give each image mean 0 and standard deviation 1

    def to_dict(self) -> dict:
        """Returns a JSON value, which is saved with each checkpoint."""
        return {
            'shift': self.shift.tolist(),
            'scale': self.scale.tolist(),
            'per_image': self.per_image,
        }

    @classmethod
    def from_dict(cls, value: dict) -> 'Standardizer':
        """Returns the Standardizer that a value of `to_dict` describes."""
        shift, scale = (np.asarray(value[name], np.float32) for name in ('shift', 'scale'))
        return cls(shift, scale, value['per_image'])

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the standardised images, float32[B, H, W, C], of pixels in [0, 1]."""
        if self.per_image:
            axes = tuple(range(1, images.ndim))
            # The lower bound of tf.image.per_image_standardization, for images without contrast.
            lower_bound = 1 / np.sqrt(np.prod(images.shape[1:]), dtype=np.float32)
            deviation = jnp.maximum(images.std(axis=axes, keepdims=True), lower_bound)
            images = (images - images.mean(axis=axes, keepdims=True)) / deviation
        return (images - self.shift.reshape(1, 1, 1, -1)) / self.scale.reshape(1, 1, 1, -1)


def _mean_std(index, pixels):
    mean = index['sum'].sum(axis=0) / pixels
    variance = index['squares'].sum(axis=0) / pixels - mean**2
    return mean / 255, np.sqrt(np.maximum(variance, 0)) / 255


def _min_max(index, pixels):
    low, high = index['low'].min(axis=0) / 255, index['high'].max(axis=0) / 255
    return low, high - low


def _none(index, pixels):
    channels = index['sum'].shape[-1]
    return np.zeros(channels), np.ones(channels)


# Functions of the index of the training split and its number of pixels in each channel. They
# return shift and scale, float[C].
FROM_TRAINING = {'mean_std': _mean_std, 'min_max': _min_max, 'none': _none, 'per_image': _none}

# Mean and standard deviation that papers and libraries use, of the whole official training split.
PRESETS = {
    'mnist': ((0.1307,), (0.3081,)),
    'fashion_mnist': ((0.2860,), (0.3530,)),
    'cifar10': ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    'cifar100': ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def fit(
    index: dict[str, np.ndarray], examples: np.ndarray, image_shape: Sequence[int], name: str
) -> Standardizer:
    """Returns the Standardizer that a value of `data.standardize` names.

    'mean_std' gives each channel mean 0 and standard deviation 1 over the training split; 'min_max'
    brings each channel to [0, 1]; 'per_image' gives each image mean 0 and standard deviation 1;
    'none' leaves pixels / 255; the names in PRESETS stand for published means and deviations. A
    channel that is constant is shifted but not scaled.

    Args:
        index: of the source, as Source.index returns it.
        examples: int[n], the numbers of the training examples.
        image_shape: (height, width, channels).
        name: a key of FROM_TRAINING or of PRESETS.

    Raises:
        UserError: an unknown name, or a preset for another number of channels.
    """
    height, width, channels = image_shape
    fitted = choose(FROM_TRAINING | PRESETS, name, 'data.standardize')
    if name in PRESETS:
        shift, scale = fitted
        if len(shift) != channels:
            raise UserError(
                f'data.standardize={name!r} has {len(shift)} channels, the images {channels}'
            )
    else:
        own = {key: column[examples] for key, column in index.items()}
        shift, scale = fitted(own, len(examples) * height * width)
    shift, scale = np.asarray(shift, np.float32), np.asarray(scale, np.float32)
    return Standardizer(shift, np.where(scale > 0, scale, np.float32(1)), name == 'per_image')
