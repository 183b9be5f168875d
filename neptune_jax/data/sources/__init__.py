"""Where images come from: each source is a prepared tfds data set, read example by example."""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.data.sources import arrays, folder
from neptune_jax.data.sources.builder import RawBuilder
from neptune_jax.data.sources.catalogue import catalogue
from neptune_jax.data.sources.cifar import Cifar10, Cifar100
from neptune_jax.data.sources.idx import FashionMnist, FashionMnistMini, Kmnist, Mnist
from neptune_jax.data.sources.images import FILL, RESIZE, Conversion, perceptual_hash
from neptune_jax.data.sources.synthetic import Synthetic
from neptune_jax.errors import UserError, check_choice, choose

CHUNK = 2**24  # bytes of images read at a time where all of them are
UNREADABLE = ('drop', 'error')


def _archives(builder):
    def create(config, data_dir):
        return builder(data_dir=data_dir, archive_dir=config.archive_dir)

    return create


def _raw(read):
    def create(config, data_dir):
        clean = config.clean
        _check_shape(config)
        if config.resize:
            check_choice(config.resize, RESIZE, 'data.resize')
        check_choice(clean.missing_pixels, FILL, 'data.clean.missing_pixels')
        check_choice(clean.unreadable, UNREADABLE, 'data.clean.unreadable')
        conversion = Conversion(
            size=tuple(config.image_size) or None,
            channels=config.channels,
            resize=config.resize,
            missing_pixels=clean.missing_pixels,
            max_pixels=clean.max_pixels,
        )
        try:
            raw = read(config, data_dir, conversion)
        except OSError as error:
            raise UserError(f'data.name={config.name!r} cannot be read: {error}') from error
        return RawBuilder(raw, data_dir=data_dir, unreadable=clean.unreadable)

    return create


def _image_folder(config, data_dir, conversion):
    return folder.image_folder(_path(config), conversion)


def _arrays(config, data_dir, conversion):
    labels_path = Path(config.labels_path).expanduser()
    return arrays.array_files(_path(config), labels_path, config.label_column, conversion)


def _path(config):
    if not config.path:
        raise UserError(f'data.name={config.name!r} needs --config.data.path')
    return Path(config.path).expanduser()


def _catalogue(config, data_dir, conversion):
    return catalogue(config.name.removeprefix('tfds:'), data_dir, conversion)


def _synthetic(config, data_dir):
    _check_shape(config)
    if not 2 <= config.classes <= config.examples // 6:
        raise UserError(
            f'data.classes={config.classes} of data.examples={config.examples}: there must be two '
            'classes at least, and six examples for each'
        )
    return Synthetic(
        data_dir=data_dir,
        examples=config.examples,
        classes=config.classes,
        image_size=tuple(config.image_size) or (32, 32),
        channels=config.channels or 3,
        seed=config.split_seed,
    )


def _check_shape(config):
    size = config.image_size
    if size and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(
            f'data.image_size={tuple(size)} must be a height and a width, such as (32, 32)'
        )
    if config.channels not in (0, 1, 3):
        raise UserError(f'data.channels={config.channels} must be 1, 3, or 0: as the first image')


SOURCES = {
    'mnist': _archives(Mnist),
    'kmnist': _archives(Kmnist),
    'fashion_mnist': _archives(FashionMnist),
    'fashion_mnist_mini': _archives(FashionMnistMini),
    'cifar10': _archives(Cifar10),
    'cifar100': _archives(Cifar100),
    'image_folder': _raw(_image_folder),
    'arrays': _raw(_arrays),
    'synthetic': _synthetic,
    'tfds:NAME': _raw(_catalogue),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A prepared data set: its examples in their order, the official splits one after another."""

    builder: Any
    splits: dict[str, np.ndarray]  # 'train' and maybe 'val', 'test': int64[n]

    @property
    def class_names(self):
        return tuple(self.builder.info.features['label'].names)

    @property
    def image_shape(self):
        return self.builder.info.features['image'].shape

    @property
    def report(self):
        """What the preparation dropped and changed: rules with a count and examples each."""
        return self.builder.info.metadata.get('report', {})

    @property
    def before(self):
        """The number of raw images of each split, with those that the preparation dropped."""
        sizes = {split: len(part) for split, part in self.splits.items()}
        return self.builder.info.metadata.get('before', sizes)

    def __len__(self):
        return sum(map(len, self.splits.values()))

    def name(self, example):
        """Returns the file of an example, or its split and its place there: 'train[17]'."""
        split = next(s for s, part in self.splits.items() if part[0] <= example <= part[-1])
        return self.builder.describe(split, int(example - self.splits[split][0]))

    @property
    def nbytes(self):
        """The bytes of all images in memory."""
        return len(self) * int(np.prod(self.image_shape))

    def reader(self):
        """Returns a Reader of its examples, which another process can be given."""
        return Reader(
            str(self.builder.data_path), {s: len(part) for s, part in self.splits.items()}
        )

    def images(self):
        """Returns all images, uint8[N, H, W, C], memory-mapped from a file beside tfds's.

        Decoding records takes seconds where this takes no time.
        """
        path = Path(self.builder.data_path) / 'images.npy'
        if not path.is_file():
            with _writing(path.parent):
                self._scan(path)
        return np.load(path, mmap_mode='r')

    def index(self):
        """Returns what splits, cleaning and standardisation need to know of each image.

        A dict: `label` int32[N], `digest` bytes16[N] of the contents, `perceptual` bytes32[N], and
        for each channel `sum`, `squares` int64[N, C], `low`, `high` uint8[N, C].
        """
        path = Path(self.builder.data_path) / 'index.npz'
        if not path.is_file():
            with _writing(path.parent):
                self._scan()
        with np.load(path) as columns:
            return dict(columns)

    def _scan(self, images_path=None):
        """Reads every record once: writes the index, and all images where a path is given."""
        reader, parts = self.reader(), []
        with contextlib.ExitStack() as files:
            if images_path:
                unfinished = files.enter_context(_replacing(images_path))
                shape = (len(self), *self.image_shape)
                images = np.lib.format.open_memmap(unfinished, 'w+', np.uint8, shape)
            chunk = max(1, CHUNK // int(np.prod(self.image_shape)))
            for start in range(0, len(self), chunk):
                stop = min(start + chunk, len(self))
                pixels, labels = reader.read(range(start, stop))
                parts.append({'label': labels} | _describe(pixels))
                if images_path:
                    images[start:stop] = pixels
            columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            index_path = Path(self.builder.data_path) / 'index.npz'
            np.savez(files.enter_context(_replacing(index_path)), **columns)


class Reader:
    """Reads the examples of a Source from tfds's files; small to pickle."""

    def __init__(self, data_path, sizes):
        self.data_path, self.sizes = data_path, sizes

    def __getstate__(self):
        return {'data_path': self.data_path, 'sizes': self.sizes}

    @functools.cached_property
    def _builder(self):
        return tfds.builder_from_directory(self.data_path)

    @functools.cached_property
    def _records(self):
        return [self._builder.as_data_source(split) for split in self.sizes]

    def read(self, indices):
        """Returns images uint8[n, H, W, C] and labels int32[n], in the order of the indices."""
        indices = np.asarray(indices)
        shape = self._builder.info.features['image'].shape
        images = np.zeros((len(indices), *shape), np.uint8)
        labels, start = np.zeros(len(indices), np.int32), 0
        for records, size in zip(self._records, self.sizes.values(), strict=True):
            here = np.flatnonzero((indices >= start) & (indices < start + size))
            examples = records.__getitems__((indices[here] - start).tolist()) if len(here) else []
            for k, example in zip(here, examples, strict=True):
                images[k], labels[k] = example['image'], example['label']
            start += size
        return images, labels


def open_source(config):
    """Returns the Source that the `data` group names; prepares it where that has not happened yet.

    Raises:
        UserError: an unknown data set, data that cannot be had or are damaged, a data folder that
            cannot be written.
    """
    name = 'tfds:NAME' if config.name.startswith('tfds:') else config.name
    create = choose(SOURCES, name, 'data.name')
    data_dir = Path(config.dir or tfds.core.constants.get_default_data_dir()).expanduser()
    with _writing(data_dir):
        builder = create(config, data_dir)
        if not builder.is_prepared():
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            with _alone(data_dir):
                builder = create(config, data_dir)  # another process may have prepared it
                builder.download_and_prepare()
        splits, start = {}, 0
        for split in ('train', 'val', 'test'):
            if split in builder.info.splits:
                size = builder.info.splits[split].num_examples
                splits[split] = np.arange(start, start + size)
                start += size
        return Source(builder, splits)


@contextlib.contextmanager
def _alone(folder):
    """Keeps other processes from preparing data in a folder at the same time; they wait."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back, as the end of the process does


@contextlib.contextmanager
def _writing(folder):
    """Makes an OSError a UserError about the folder that is written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'data.dir={str(folder)!r} cannot be used ({error}); set --config.data.dir to a '
            'folder that can be written'
        ) from error


def _describe(pixels):
    wide = pixels.reshape(len(pixels), -1, pixels.shape[-1]).astype(np.int64)
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]
    return {
        'digest': np.frombuffer(b''.join(digests), 'V16'),
        'perceptual': perceptual_hash(pixels),
        'sum': wide.sum(axis=1),
        'squares': (wide**2).sum(axis=1),
        'low': pixels.min(axis=(1, 2)),
        'high': pixels.max(axis=(1, 2)),
    }


@contextlib.contextmanager
def _replacing(path):
    """Yields a path to write in the same folder, which then replaces `path`."""
    unfinished = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
