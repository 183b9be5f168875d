"""The tfds builders behind every data set: uint8 images of one size and labels, no TensorFlow.

`ImageBuilder` is what they share. `RawBuilder` prepares raw images of any kind: it decodes and
converts them in worker processes, and keeps account of everything it drops or changes.
"""

import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.data.sources.images import Conversion, Unreadable, WrongSize
from neptune_jax.errors import UserError

EXAMPLES_REPORTED = 10
AHEAD = 1024  # items that worker processes may be ahead of what is written


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A tfds builder of images uint8[H, W, C] and labels; subclasses generate the examples.

    They are not registered with tfds, whose own data sets of the same names need TensorFlow and
    keep their own versions.
    """

    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # no file of checksums for tfds to look for: archives are checked here

    CLASS_NAMES: tuple[str, ...]
    IMAGE_SHAPE: tuple[int, int, int]

    def __init__(self, *, data_dir, **kwargs):
        super().__init__(data_dir=data_dir, file_format='array_record', **kwargs)

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Tensor(shape=self.IMAGE_SHAPE, dtype=np.uint8),
                'label': tfds.features.ClassLabel(names=list(self.CLASS_NAMES)),
            }
        )
        # The order of the source is kept: what is shuffled, and by which seed, is ours to say.
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def describe(self, split, number):
        """Returns a short text that finds an example of a prepared split again."""
        return f'{split}[{number}]'

    def say(self, message):
        """Prints one line about a step of the preparation."""
        print(f'{self.name}: {message}', flush=True)


class Raw(NamedTuple):
    """Raw images before they are prepared."""

    name: str  # of the data set, a folder's name
    fingerprint: str  # changes whenever the raw images or their conversion do
    class_names: Sequence[str]
    splits: dict[str, Sequence[Any]]  # items of each official split
    load: Callable  # (item, conversion) -> image uint8[H, W, C], label or None, rules; picklable
    describe: Callable  # item -> a short text that finds it again
    conversion: Conversion  # with `size` and `channels` set


class RawBuilder(ImageBuilder, skip_registration=True):
    """Prepares a Raw; what was dropped or changed is in the prepared data set's metadata."""

    name = 'raw'

    def __init__(self, raw, *, data_dir, unreadable):
        self.raw, self.unreadable = raw, unreadable
        self.name = raw.name
        self.CLASS_NAMES = tuple(raw.class_names)
        self.IMAGE_SHAPE = (*raw.conversion.size, raw.conversion.channels)
        config = tfds.core.BuilderConfig(
            name=f'{raw.fingerprint}_{unreadable}', version=self.VERSION
        )
        super().__init__(data_dir=data_dir, config=config)

    def describe(self, split, number):
        # The raw images are numbered with those that were left out.
        for i in self.info.metadata['left_out'][split]:
            number += i <= number
        return self.raw.describe(self.raw.splits[split][number])

    def _split_generators(self, dl_manager):
        report = {}
        self.info.metadata['report'] = report
        self.info.metadata['left_out'] = {split: [] for split in self.raw.splits}
        self.info.metadata['before'] = {s: len(items) for s, items in self.raw.splits.items()}
        return {
            split: self._generate_examples(split, items, report)
            for split, items in self.raw.splits.items()
        }

    def _generate_examples(self, split, items, report):
        used, reason = 0, 'its label is missing'
        for i, (item, (image, label, rules)) in enumerate(
            zip(items, self._load_all(items), strict=True)
        ):
            name = self.raw.describe(item)
            if isinstance(image, Unreadable):
                if isinstance(image, WrongSize):
                    raise UserError(f'{name}: {image}')
                if self.unreadable == 'error' and image.rule == 'unreadable':
                    raise UserError(
                        f'{name}: {image}; mend or remove it, or set '
                        '--config.data.clean.unreadable=drop'
                    )
                rules, reason = [image.rule], str(image)
                name = f'{name} ({image})'
            elif label is None:
                rules = ['missing_labels']
            for rule in rules:
                entry = report.setdefault(rule, {'count': 0, 'examples': []})
                entry['count'] += 1
                if len(entry['examples']) < EXAMPLES_REPORTED:
                    entry['examples'].append(name)
            if label is None:
                self.info.metadata['left_out'][split].append(i)
            else:
                used += 1
                yield i, {'image': image, 'label': label}
        if not used:
            raise UserError(
                f'none of the {len(items)} images of the split {split!r} can be used; the last is '
                f'{self.raw.describe(item)}: {reason}'
            )

    def _load_all(self, items):
        load = functools.partial(_load, self.raw.load, self.raw.conversion)
        if len(items) <= 500:
            yield from map(load, items)
            return
        # Spawned, not forked: JAX and tfds have threads.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(os.cpu_count(), context) as pool:
            for start in range(0, len(items), AHEAD):
                yield from pool.map(load, items[start : start + AHEAD], chunksize=16)


def check_counts(where, labels):
    names, counts = np.unique(np.array(labels), return_counts=True)
    if len(names) < 2:
        found = f'only class {names[0]}' if len(names) else 'no labels'
        raise UserError(f'{where} has {found}: there is nothing to classify')
    if counts.min() < 2:
        raise UserError(
            f'{where}: class {names[counts.argmin()]} has one image; a class needs two at least'
        )


def resolve(conversion, items, size_of, where):
    """Returns the conversion with the size and the channels of the first image that has them.

    Args:
        conversion: Conversion.
        items: of the training split.
        size_of: (item, conversion) -> (height, width), channels; raises Unreadable.
        where: the items come from, for the error message.
    """
    if conversion.size and conversion.channels:
        return conversion
    for item in items:
        try:
            size, channels = size_of(item, conversion)
        except Unreadable as error:
            problem = error
            continue
        return conversion._replace(
            size=conversion.size or tuple(size), channels=conversion.channels or channels
        )
    raise UserError(f'{where}: none of the {len(items)} images can be read; the last: {problem}')


def fingerprint(files, *settings):
    """Returns a short text that changes when one of some files changes, or a setting does."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for path in files:
        status = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
        digest.update(os.fsencode(path) + f' {status.st_size} {status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()[:20]


def _load(load, conversion, item):
    try:
        return load(item, conversion)
    except Unreadable as error:
        return error, None, []
