"""One data set, ready to train on: its examples, which of them are in which split, its classes."""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from neptune_jax.data import clean, sources, splits, standardize
from neptune_jax.errors import check_choice

MODES = ('auto', 'device', 'host', 'stream')


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples, by their number in the source, and splits of them."""

    source: sources.Source
    mode: str  # where batches come from: 'device', 'host' or 'stream'
    images: np.ndarray | None  # uint8[N, H, W, C], memory-mapped; None in mode 'stream'
    labels: np.ndarray  # int32[N]
    splits: dict[str, np.ndarray]  # 'train', 'val', 'test': int64[n], increasing
    standardizer: standardize.Standardizer
    report: dict[str, Any]  # of the cleaning
    fingerprint: dict[str, str]  # of each split

    @property
    def class_names(self):
        return self.source.class_names

    @property
    def image_shape(self):
        return self.source.image_shape

    @property
    def sizes(self):
        """The number of examples of each split."""
        return {name: len(examples) for name, examples in self.splits.items()}

    def read_images(self, examples: np.ndarray) -> np.ndarray:
        """Returns uint8[n, H, W, C], from memory or from the disk."""
        if self.images is None:
            return self.source.reader().read(examples)[0]
        return self.images[examples]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a model trained on the data needs to be used: classes, shape, standardisation.

        A JSON value, which each checkpoint keeps.
        """
        return {
            'classes': list(self.class_names),
            'image_shape': list(self.image_shape),
            'standardize': self.standardizer.to_dict(),
        }

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the data: source, sizes, sha256 of each split, preprocessing."""
        return {
            'source': self.source.builder.info.full_name,
            'mode': self.mode,
            'sizes': self.sizes,
            'sha256': self.fingerprint,
        } | self.preprocessing


def load(config):
    """Returns the Dataset that the `data` group describes.

    Raises:
        UserError: whatever sources, cleaning, splits or standardisation refuse.
    """
    source = sources.open_source(config)
    mode = _mode(config.mode, source.nbytes)
    images = None if mode == 'stream' else source.images()
    index = source.index()
    labels = index['label']
    official, report = clean.clean(config.clean, source, index)

    train, val, test = (official.get(split) for split in ('train', 'val', 'test'))
    if test is None:
        train, test = splits.stratified(
            train, labels, config.test_fraction, config.split_seed, 'data.test_fraction'
        )
    if config.folds:
        train = train if val is None else np.sort(np.concatenate([train, val]))
        train, val = splits.fold(train, labels, config.fold, config.folds, config.split_seed)
    elif val is None:
        train, val = splits.stratified(train, labels, config.val_fraction, config.split_seed)
    if config.subset is not None:
        train = splits.subset(train, labels, config.subset, config.split_seed)
    parts = {'train': train, 'val': val, 'test': test}
    return Dataset(
        source=source,
        mode=mode,
        images=images,
        labels=labels,
        splits=parts,
        standardizer=standardize.fit(index, train, source.image_shape, config.standardize),
        report=report,
        fingerprint={
            name: hashlib.sha256(
                index['digest'][examples].tobytes() + labels[examples].tobytes()
            ).hexdigest()
            for name, examples in parts.items()
        },
    )


def _mode(mode, nbytes):
    """Returns the mode, decided by size where it is 'auto'."""
    check_choice(mode, MODES, 'data.mode')
    if mode != 'auto':
        return mode
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if nbytes <= min(memory // 16, 2**30):
        return 'device'
    return 'host' if nbytes <= memory // 4 else 'stream'
