"""A data set ready to train on: its examples and labels, the splits, the standardisation."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from neptune_jax import terminal
from neptune_jax.data import brightness, clean, inputs, splits, standardize
from neptune_jax.data.sources import opening
from neptune_jax.data.sources.source import Source
from neptune_jax.errors import UserError, check_choice

MODES = ('auto', 'device', 'host', 'stream')
NAMED = 10  # so many classes a note names; data_report.json has all
_SAME_DATA = ('name', 'path', 'labels_path', 'label_column')
_DRAWING = ('split_seed', 'test_fraction', 'val_fraction', 'folds', 'fold')
CONSEQUENCES = {
    'train': 'which cannot be learned',
    'val': 'of which the validation says nothing',
    'test': 'of which the test says nothing',
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples by their numbers in the source, and which of them are in which split."""

    source: Source
    mode: str  # where batches come from: 'device', 'host' or 'stream'
    images: np.ndarray | None  # uint8[N, H, W, C], memory-mapped; None in mode 'stream'
    labels: np.ndarray  # int32[N]
    splits: dict[str, np.ndarray]  # 'train', 'val', 'test': int64[n], increasing; may be empty
    standardizer: standardize.Standardizer
    inputs: dict[str, Any]  # what the training images look like: data/inputs.py
    report: dict[str, Any]  # what cleaning found, and the classes of each split: data_report.json
    fingerprint: dict[str, str]  # sha256 of the images and labels of each split

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by its label."""
        return self.source.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.source.image_shape

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples of each split."""
        return {name: len(examples) for name, examples in self.splits.items()}

    def read_images(self, examples: np.ndarray) -> np.ndarray:
        """Returns the images of examples int[n], uint8[n, H, W, C], from memory or from files."""
        if self.images is None:
            return self.source.reader().read(examples)[0]
        return self.images[examples]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What one must know to use a model trained on these data.

        The classes, the shape of the images, how files become images, their standardisation, and
        what the training images look like: a JSON value, which is saved with each checkpoint.
        """
        return {
            'classes': list(self.class_names),
            'image_shape': list(self.image_shape),
            'conversion': self.source.conversion.to_dict(),
            'standardize': self.standardizer.to_dict(),
            'inputs': self.inputs,
        }

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the data: source, sizes, sha256 of each split, preprocessing."""
        read_from = {'read_from': self.source.read_from} if self.source.read_from else {}
        return (
            {
                'source': self.source.full_name,
                'mode': self.mode,
                'sizes': self.sizes,
                'sha256': self.fingerprint,
            }
            | read_from
            | self.preprocessing
        )


def load(config: ConfigDict) -> Dataset:
    """Returns the Dataset that the `data` group describes. Its data are prepared if need be.

    A test or validation split is empty if the data have no official one and its fraction is 0.

    Raises:
        UserError: sources, cleaning, splits or standardisation refuse the config or the data.
    """
    if config.fold and not config.folds:
        raise UserError(
            f'data.fold={config.fold} is not used without data.folds, the number of folds; set '
            '--config.data.folds'
        )
    source = opening.open_source(config)
    mode = _mode(config.mode, source.nbytes)
    images = None if mode == 'stream' else source.images()
    index = source.index()
    labels = index['label']
    dark = brightness.check(config, source, index)
    official, report = clean.clean(config.clean, source, index)
    report['rules'] |= brightness.rules(source, index)

    parts = _split(config, official, index)
    train = parts['train']
    counts, notes = _count_classes(source.class_names, labels, official, parts)
    if sum(map(bool, counts['train'].values())) < 2:
        raise UserError(
            'the training split has images of fewer than two classes, and so there is nothing to '
            'classify; hold fewer images out: see the fields data.test_fraction, '
            'data.val_fraction and data.folds'
        )
    notes = [*source.notes, *dark, *notes]
    for note in notes:
        terminal.line(f'note     {note}')
    return Dataset(
        source=source,
        mode=mode,
        images=images,
        labels=labels,
        splits=parts,
        standardizer=standardize.fit(index, train, source.image_shape, config.standardize),
        inputs=inputs.describe(index, train, source.image_shape),
        report=report | {'splits': counts, 'notes': notes},
        fingerprint={
            name: hashlib.sha256(
                index['digest'][examples].tobytes() + labels[examples].tobytes()
            ).hexdigest()
            for name, examples in parts.items()
        },
    )


def drawn_otherwise(data: Dataset, config: ConfigDict, other: Mapping[str, Any]) -> str:
    """Returns which fields draw other splits of the same data for another run; '' if none does.

    That run may have trained on images that are held out here.

    Args:
        data: the Dataset of this run.
        config: the `data` group of this run.
        other: the `data` group of the other run.
    """
    if config.name == 'synthetic':  # the images depend on the seed as well
        return ''
    if any(other.get(field) != config[field] for field in _SAME_DATA):
        return ''
    is_drawn = any(
        data.sizes[split] and (split not in data.source.splits or (split == 'val' and config.folds))
        for split in ('val', 'test')
    )
    differences = [
        f'data.{field}: {other[field]!r} there, {config[field]!r} here'
        for field in _DRAWING
        if other.get(field, config[field]) != config[field]
    ]
    return ', '.join(differences) if is_drawn else ''


def _split(config, official, index):
    """Returns the examples of each split: the official ones, others drawn from the training one."""
    labels, seed = index['label'], config.split_seed
    train, val, test = official['train'], official.get('val'), official.get('test')
    if 'content' in index:
        train, drawn_val, drawn_test = splits.by_content(
            train,
            labels,
            index['content'],
            config.test_fraction if test is None else 0.0,
            config.val_fraction if val is None and not config.folds else 0.0,
            seed,
        )
        test = drawn_test if test is None else test
        val = drawn_val if val is None else val
    elif test is None:
        train, test = splits.stratified(
            train, labels, config.test_fraction, seed, 'data.test_fraction'
        )
    if config.folds:
        train = train if val is None else np.sort(np.concatenate([train, val]))
        train, val = splits.fold(train, labels, config.fold, config.folds, seed)
    elif val is None:
        train, val = splits.stratified(train, labels, config.val_fraction, seed)
    if config.subset is not None:
        train = splits.subset(train, labels, config.subset, seed)
    return {'train': train, 'val': val, 'test': test}


def _count_classes(class_names, labels, official, parts):
    """Returns the number of images of each class in each split, and notes on those with none.

    Cleaning has named the classes that have no image in any split.
    """

    def count(examples):
        return np.bincount(labels[examples], minlength=len(class_names)).tolist()

    totals = count(np.concatenate(list(official.values())))
    counts = {split: count(examples) for split, examples in parts.items()}
    notes = []
    for split, own in counts.items():
        missing = [label for label, number in enumerate(own) if totals[label] and not number]
        if missing and sum(own):
            names = [f'{class_names[label]!r} ({totals[label]:,} in all)' for label in missing]
            more = f' and {len(names) - NAMED:,} more' if len(names) > NAMED else ''
            notes.append(
                f'the {split} split has no images of {len(names):,} of the {len(class_names):,} '
                f'classes, {CONSEQUENCES[split]}: {", ".join(names[:NAMED])}{more}'
            )
    return {split: dict(zip(class_names, own, strict=True)) for split, own in counts.items()}, notes


def _mode(mode, nbytes):
    """Returns the mode; 'auto' decides by the size of the images and of the machine's memory."""
    check_choice(mode, MODES, 'data.mode')
    if mode != 'auto':
        return mode
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if nbytes <= min(memory // 16, 2**30):
        return 'device'
    return 'host' if nbytes <= memory // 4 else 'stream'
