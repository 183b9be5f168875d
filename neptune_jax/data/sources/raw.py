"""Raw images of any kind: converted by worker processes, every dropped or changed one on record.

What folders, arrays and data sets of tfds have in common. Their files are listed at each start; the
images in them are read only if no data set is prepared from these files with these settings.
"""

import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from neptune_jax.data.sources.builder import VERSION, ImageBuilder, Preparation, numbered
from neptune_jax.data.sources.images import (
    FILL,
    RESIZE,
    Conversion,
    Unreadable,
    WrongSize,
    check_image_shape,
)
from neptune_jax.errors import UserError, check_choice

UNREADABLE = ('drop', 'error')
EXAMPLES_REPORTED = 10
AHEAD = 1024  # images that worker processes may convert before they are written
CONTENT_BYTES = 16  # of the hash of an image's raw content
IN_PROCESS = 500  # so many images are converted sooner than worker processes start


class RawImages(NamedTuple):
    """Raw images that are about to be prepared."""

    class_names: Sequence[str]
    splits: dict[str, Sequence[Any]]  # an item for each image of each official split
    load: Callable  # (item, conversion) -> image uint8[H, W, C], label or None, rules; picklable
    conversion: Conversion  # with `size` and `channels` set
    content: Callable | None = None  # item -> its raw bytes; their hash decides on the split


def preparation(
    config: ConfigDict,
    data_dir: Path,
    *,
    name: str,
    files: Iterable[Path],
    read: Callable[[Conversion], RawImages],
    settings: Sequence[str] = (),
    name_of: Callable[[str, int], str] = numbered,
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

    Raises:
        UserError: a setting of the conversion that makes no sense.
    """
    conversion, unreadable = _conversion(config), config.clean.unreadable
    config_name = f'{_fingerprint(files, conversion, *settings)}_{unreadable}'

    def create_builder():
        try:
            raw = read(conversion)
        except OSError as error:
            raise UserError(f'data.name={config.name!r} cannot be read: {error}') from error
        return RawBuilder(name, config_name, raw, name_of, data_dir=data_dir, unreadable=unreadable)

    return Preparation(data_dir / name / config_name / VERSION, create_builder, name_of)


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
    )


def _fingerprint(files, *settings):
    """Returns a short text that changes when one of some files changes, or a setting does."""
    # The version of the records: the first had no `content`.
    digest = hashlib.sha256(json.dumps(['2', *settings]).encode())
    for path in files:
        status = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
        digest.update(os.fsencode(path) + f' {status.st_size} {status.st_mtime_ns}\n'.encode())
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
        if raw.content:
            content = tfds.features.Tensor(shape=(CONTENT_BYTES,), dtype=np.uint8)
            self.MORE_FEATURES = {'content': content}
        self.raw: RawImages | None = raw
        config = tfds.core.BuilderConfig(name=config_name, version=self.VERSION)
        super().__init__(data_dir=data_dir, config=config)

    def close(self) -> None:
        """Drops the raw images."""
        self.raw = None

    def _split_generators(self, dl_manager):
        raw, report = self.raw, {}
        self.info.metadata['report'] = report
        self.info.metadata['left_out'] = {split: [] for split in raw.splits}
        self.info.metadata['before'] = {split: len(items) for split, items in raw.splits.items()}
        load = functools.partial(_load, raw.load, raw.content, raw.conversion)
        return {
            split: self._generate_examples(split, items, load, report)
            for split, items in raw.splits.items()
        }

    def _generate_examples(self, split, items, load, report):
        used, reason = 0, 'its label is missing'
        for i, (image, label, rules, content) in enumerate(_load_all(load, items)):
            name = self.name_of(split, i)
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
                yield i, {'image': image, 'label': label} | content
        if not used:
            raise UserError(
                f'none of the {len(items)} images of the split {split!r} can be used; the last is '
                f'{self.name_of(split, len(items) - 1)}: {reason}'
            )


def _load_all(load, items):
    """Yields `load(item)` for each item, in their order; many of them by worker processes."""
    if len(items) <= IN_PROCESS:
        yield from map(load, items)
        return
    # Started anew, not forked: JAX and tfds have threads, which a fork would break.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        for start in range(0, len(items), AHEAD):
            yield from pool.map(load, items[start : start + AHEAD], chunksize=16)


def _load(load, content, conversion, item):
    """Returns what `load` does, and a dict with the hash of the content if `content` is given.

    For an unreadable image: the exception, None, no rules and no hash.
    """
    try:
        loaded = load(item, conversion)
    except Unreadable as error:
        return error, None, [], {}
    if content is None:
        return *loaded, {}
    digest = hashlib.blake2b(content(item), digest_size=CONTENT_BYTES).digest()
    return *loaded, {'content': np.frombuffer(digest, np.uint8)}


def check_counts(where: str | Path, labels: Sequence) -> None:
    """Raises UserError unless the training labels are of two classes with two images each."""
    names, counts = np.unique(np.array(labels), return_counts=True)
    if len(names) < 2:
        found = f'only class {names[0]}' if len(names) else 'no labels'
        raise UserError(f'{where} has {found}: there is nothing to classify')
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
