"""Standardisation of pixels: by statistics of the training split, by image, or by fixed numbers."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from neptune_jax.errors import UserError, choose


class Standardizer(NamedTuple):
    """What is subtracted and what is divided by, for each channel of pixels in [0, 1]."""

    shift: np.ndarray  # float32[C]
    scale: np.ndarray  # float32[C]
    per_image: bool = False  # first bring each image to mean 0 and standard deviation 1

    def to_dict(self) -> dict:
        """Returns the JSON value that a checkpoint keeps."""
        return {
            'shift': self.shift.tolist(),
            'scale': self.scale.tolist(),
            'per_image': self.per_image,
        }

    @classmethod
    def from_dict(cls, value: dict) -> 'Standardizer':
        """Returns the Standardizer that `to_dict` describes."""
        shift, scale = (np.asarray(value[name], np.float32) for name in ('shift', 'scale'))
        return cls(shift, scale, value['per_image'])

    def __call__(self, images):
        """Returns float32[B, H, W, C] for pixels float32[B, H, W, C] in [0, 1]."""
        if self.per_image:
            axes = tuple(range(1, images.ndim))
            # tf.image.per_image_standardization bounds the deviation of a flat image like this.
            least = 1 / np.sqrt(np.prod(images.shape[1:]), dtype=np.float32)
            deviation = jnp.maximum(images.std(axis=axes, keepdims=True), least)
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


# Of the training split's index and its pixels a channel: shift and scale, float[C].
FROM_TRAINING = {'mean_std': _mean_std, 'min_max': _min_max, 'none': _none, 'per_image': _none}

# Numbers that papers and libraries use, from the whole official training split.
PRESETS = {
    'mnist': ((0.1307,), (0.3081,)),
    'fashion_mnist': ((0.2860,), (0.3530,)),
    'cifar10': ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    'cifar100': ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def fit(index, examples, image_shape, name):
    """Returns the Standardizer `name` for the given training examples.

    'mean_std': to mean 0 and standard deviation 1, channel by channel; 'min_max': to [0, 1];
    'per_image': each image to mean 0 and deviation 1; 'none': pixels / 255; or a preset. A channel
    that is constant is shifted only.

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
