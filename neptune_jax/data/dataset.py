"""One data set, ready to train on: its examples, which of them are in which split, its classes."""

import dataclasses
import hashlib

import numpy as np

from neptune_jax.data import sources, splits, standardize


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples as arrays, and splits of them as indices into those arrays."""

    images: np.ndarray  # uint8[N, H, W, C]
    labels: np.ndarray  # int32[N]
    splits: dict[str, np.ndarray]  # 'train', 'val', 'test': int64[n], increasing
    class_names: tuple[str, ...]
    standardizer: standardize.Standardizer

    @property
    def sizes(self):
        """The number of examples of each split."""
        return {name: len(examples) for name, examples in self.splits.items()}

    def describe(self):
        """Returns what identifies the data: sizes, a sha256 of each split, the standardisation."""
        digests = {}
        for name, examples in self.splits.items():
            digest = hashlib.sha256(self.labels[examples].tobytes())
            digest.update(self.images[examples])
            digests[name] = digest.hexdigest()
        return {
            'sizes': self.sizes,
            'sha256': digests,
            'classes': self.class_names,
            'standardize': self.standardizer._asdict(),
        }


def load(config):
    """Returns the Dataset that the `data` group describes.

    Raises:
        UserError: whatever `sources.read`, `splits.stratified` or `standardize.fit` refuse.
    """
    images, labels, official, class_names = sources.read(config)
    train, val = splits.stratified(
        official['train'], labels, config.val_fraction, config.split_seed
    )
    return Dataset(
        images=images,
        labels=labels,
        splits={'train': train, 'val': val, 'test': official['test']},
        class_names=class_names,
        standardizer=standardize.fit(images[train], config.standardize),
    )
