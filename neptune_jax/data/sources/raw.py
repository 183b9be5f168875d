"""Raw images of any kind: converted by worker processes, every dropped or changed one on record.

What folders, arrays and data sets of tfds have in common. Their files are listed at each start; the
images in them are read only if no data set is prepared from these files with these settings.
"""

import functools
import hashlib
import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax.data.sources import survivors
from neptune_jax.data.sources.builder import VERSION, ImageBuilder, Preparation, numbered
from neptune_jax.data.sources.decoding import Unreadable
from neptune_jax.data.sources.images import (
    FILL,
    RESIZE,
    Conversion,
    WrongSize,
    check_image_shape,
)
from neptune_jax.data.sources.workers import map_all
from neptune_jax.errors import UserError, check_choice

UNREADABLE = ('drop', 'error')
EXAMPLES_REPORTED = 10
CONTENT_BYTES = 16  # of the hash of an image's raw content


class RawImages(NamedTuple):
    """Raw images that are about to be prepared."""

    class_names: Sequence[str]
    splits: dict[str, Sequence[Any]]  # an item for each image of each official split
    load: Callable  # (item, conversion) -> Converted, label or None; picklable
    conversion: Conversion  # with `size` and `channels` set
    content: Callable | None = None  # item -> its raw bytes; their hash decides on the split
    notes: Sequence[str] = ()  # what was guessed about all of them; a line each on the screen
    label_of: Callable = operator.itemgetter(1)  # item -> label or None, also of one that is lost


def preparation(
    config: ConfigDict,
    data_dir: Path,
    *,
    name: str,
    files: Iterable[Path],
    read: Callable[[Conversion], RawImages],
    settings: Sequence[str] = (),
    name_of: Callable[[str, int], str] = numbered,
    read_from: str = '',
    rules: dict[str, Any] | None = None,
) -> Preparation:
    """Returns the Preparation of raw images. It looks at their files but does not open them.

    Args:
        config: the `data` group.
        data_dir: the folder of prepared data.
        name: of the prepared data set, a folder's name.
        files: all files with raw images. If one changes, the data set is prepared again.
        read: returns the raw images; it gets the conversion that the config asks for, in which
            `size` and `channels` may be unset. It is called only to prepare the data set.
        settings: what else decides on the raw images.
        name_of: (split, number) -> a short text that finds a raw image again.
        read_from: the full name of the data set of tfds that the images come from, if they do.
        rules: what is known about the images before they are read, for data_report.json.

    Raises:
        UserError: a setting of the conversion that makes no sense.
    """
    conversion, unreadable = _conversion(config), config.clean.unreadable
    config_name = f'{_fingerprint(files, conversion, *settings)}_{unreadable}'

    def create_builder():
        try:
            raw = read(conversion)
        except (OSError, MemoryError) as error:
            problem = str(error) or 'out of memory'
            raise UserError(
                f'data.name={config.name!r} cannot be read: {problem}; make it readable, or take '
                'it away, and start again'
            ) from error
        builder = RawBuilder(
            name, config_name, raw, name_of, data_dir=data_dir, unreadable=unreadable
        )
        builder.info.metadata['read_from'] = read_from
        return builder

    directory = data_dir / name / config_name / VERSION
    return Preparation(directory, create_builder, name_of, rules or {})


def _conversion(config):
    check_image_shape(config.image_size, config.channels)
    if config.resize:
        check_choice(config.resize, RESIZE, 'data.resize')
    check_choice(config.clean.missing_pixels, FILL, 'data.clean.missing_pixels')
    check_choice(config.clean.unreadable, UNREADABLE, 'data.clean.unreadable')
    return Conversion(
        size=tuple(config.image_size) or None,
        channels=config.channels,
        resize=config.resize,
        missing_pixels=config.clean.missing_pixels,
        max_pixels=config.clean.max_pixels,
        white=config.white,
    )


def _fingerprint(files, *settings):
    """Returns a short text that changes when one of some files changes, or a setting does.

    A program may set the size and the time of change of a file to what they were, as two archives
    do that unpack to one place. The time of the last change of its inode and the inode's number are
    the system's own.
    """
    # The version of the records: the first had no `content`, the second no `raw_shape`.
    digest = hashlib.sha256(json.dumps(['3', *settings]).encode())
    for path in files:
        status = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
        times = f'{status.st_mtime_ns} {status.st_ctime_ns}'
        digest.update(os.fsencode(path) + f' {status.st_size} {times} {status.st_ino}\n'.encode())
    return digest.hexdigest()[:20]


class RawBuilder(ImageBuilder):
    """Prepares RawImages. The metadata of the prepared data set say what was dropped or changed."""

    name = 'raw'

    def __init__(
        self,
        name: str,
        config_name: str,
        raw: RawImages,
        name_of: Callable[[str, int], str],
        *,
        data_dir: Path,
        unreadable: str,
    ) -> None:
        self.name, self.name_of, self.unreadable = name, name_of, unreadable
        self.CLASS_NAMES = tuple(raw.class_names)
        assert raw.conversion.size is not None  # `resolve` has set it
        height, width = raw.conversion.size
        self.IMAGE_SHAPE = (height, width, raw.conversion.channels)
        self.MORE_FEATURES = {'raw_shape': tfds.features.Tensor(shape=(3,), dtype=np.int32)}
        if raw.content:
            content = tfds.features.Tensor(shape=(CONTENT_BYTES,), dtype=np.uint8)
            self.MORE_FEATURES['content'] = content
        self.raw: RawImages | None = raw
        config = tfds.core.BuilderConfig(name=config_name, version=self.VERSION)
        super().__init__(data_dir=data_dir, config=config)

    def close(self) -> None:
        """Drops the raw images."""
        self.raw = None

    def _split_generators(self, dl_manager):
        raw, report = self.raw, {}
        self.info.metadata['report'] = report
        self.info.metadata['notes'] = list(raw.notes)
        self.info.metadata['conversion'] = raw.conversion.to_dict()
        self.info.metadata['left_out'] = {split: [] for split in raw.splits}
        self.info.metadata['lost'] = {split: {} for split in raw.splits}
        self.info.metadata['before'] = {split: len(items) for split, items in raw.splits.items()}
        load = functools.partial(_load, raw.load, raw.content, raw.conversion)
        return {
            split: self._generate_examples(split, items, load, report)
            for split, items in raw.splits.items()
        }

    def _generate_examples(self, split, items, load, report):
        reason = 'its label is missing'
        counts = dict.fromkeys(self.CLASS_NAMES, 0)
        losses = self.info.metadata['lost'][split]
        nbytes = math.prod(self.IMAGE_SHAPE)
        for i, (found, label, content) in enumerate(map_all(load, items, nbytes)):
            name = self.name_of(split, i)
            if isinstance(found, (OSError, MemoryError)):
                raise UserError(
                    f'{name} cannot be read now ({str(found) or "out of memory"}), and so nothing '
                    'was prepared; make it readable, or take it away, and start again'
                )
            if isinstance(found, Unreadable):
                if isinstance(found, WrongSize):
                    raise UserError(f'{name}: {found}')
                if self.unreadable == 'error' and found.rule == 'unreadable':
                    raise UserError(
                        f'{name}: {found}; mend or remove it, or set '
                        '--config.data.clean.unreadable=drop'
                    )
                rules, reason = [found.rule], str(found)
                name = f'{name} ({found})'
            else:
                rules = ['missing_labels'] if label is None else found.rules
            for rule in rules:
                entry = report.setdefault(rule, {'count': 0, 'examples': []})
                entry['count'] += 1
                if len(entry['examples']) < EXAMPLES_REPORTED:
                    entry['examples'].append(name)
            if label is None:
                self.info.metadata['left_out'][split].append(i)
                lost_label = self.raw.label_of(items[i])
                if lost_label is not None:
                    survivors.add_loss(losses, self.CLASS_NAMES[lost_label], rules[0], name)
            else:
                counts[self.CLASS_NAMES[label]] += 1
                raw_shape = np.array(found.raw_shape, np.int32)
                yield i, {'image': found.image, 'label': label, 'raw_shape': raw_shape} | content
        if not any(counts.values()):
            raise UserError(
                f'none of the {len(items)} images of the split {split!r} can be used; the last is '
                f'{self.name_of(split, len(items) - 1)}: {reason}'
            )
        if split == 'train':
            survivors.check(counts, losses)


def _load(load, content, conversion, item):
    """Returns what `load` does, and a dict with the hash of the content if `content` is given.

    For an image that is unreadable, or cannot be read now: the exception, None, no hash.
    """
    try:
        loaded = load(item, conversion)
        raw_bytes = content(item) if content else None
    except (Unreadable, OSError, MemoryError) as error:
        return error, None, {}
    if raw_bytes is None:
        return *loaded, {}
    digest = hashlib.blake2b(raw_bytes, digest_size=CONTENT_BYTES).digest()
    return *loaded, {'content': np.frombuffer(digest, np.uint8)}


def check_counts(where: str | Path, labels: Sequence, more: str = '') -> None:
    """Raises UserError unless the training labels are of two classes with two images each.

    Args:
        where: the labels come from, for the error message.
        labels: of all training images, none of which has been read yet.
        more: what else the message says.
    """
    names, counts = np.unique(np.array(labels), return_counts=True)
    if len(names) < 2:
        found = f'only class {names[0]}' if len(names) else 'no labels'
        raise UserError(f'{where} has {found}{more}: there is nothing to classify')
    if counts.min() < 2:
        raise UserError(
            f'{where}: class {names[counts.argmin()]} has one image; a class needs at least two'
        )


def resolve(
    conversion: Conversion, items: Sequence, shape_of: Callable, where: str | Path
) -> Conversion:
    """Returns the conversion with size and channels set, from the first readable image if need be.

    Args:
        conversion: Conversion.
        items: of the training split.
        shape_of: (item, conversion) -> (height, width), channels; raises Unreadable.
        where: the items come from, for the error message.

    Raises:
        UserError: none of the images can be read.
    """
    if conversion.size and conversion.channels:
        return conversion
    for item in items:
        try:
            size, channels = shape_of(item, conversion)
        except Unreadable as error:
            problem = error
            continue
        return conversion._replace(
            size=conversion.size or tuple(size), channels=conversion.channels or channels
        )
    raise UserError(f'{where}: none of the {len(items)} images can be read; the last: {problem}')
