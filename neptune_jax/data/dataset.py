"""One data set, ready to train on: its splits as arrays, its classes, its standardisation."""

import dataclasses
import hashlib

import numpy as np

from neptune_jax.data import sources, splits, standardize


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits 'train', 'val' and 'test': dicts of `image` uint8[N, H, W, C] and `label` int32[N]."""

    splits: dict[str, dict[str, np.ndarray]]
    class_names: tuple[str, ...]
    standardizer: standardize.Standardizer

    @property
    def image_shape(self):
        return self.splits['train']['image'].shape[1:]

    @property
    def sizes(self):
        """The number of examples of each split."""
        return {name: len(split['label']) for name, split in self.splits.items()}

    def fingerprint(self):
        """Returns what identifies the data: the sizes and a sha256 of each split's contents."""
        digests = {}
        for name, split in self.splits.items():
            digest = hashlib.sha256(split['label'].tobytes())
            digest.update(split['image'])
            digests[name] = digest.hexdigest()
        return {'sizes': self.sizes, 'sha256': digests}


def load(config):
    """Returns the Dataset that the `data` group describes.

    Raises:
        UserError: whatever `sources.read`, `splits.stratified` or `standardize.fit` refuse.
    """
    arrays, class_names = sources.read(config)
    train, val = splits.stratified(
        arrays['train']['label'], config.val_fraction, config.split_seed
    )
    parts = {
        'train': {key: array[train] for key, array in arrays['train'].items()},
        'val': {key: array[val] for key, array in arrays['train'].items()},
        'test': arrays['test'],
    }
    standardizer = standardize.fit(parts['train']['image'], config.standardize)
    return Dataset(parts, class_names, standardizer)
