"""A prepared data set: a Source knows its examples by their numbers, a Reader reads them."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.data.sources import near_duplicates, survivors
from neptune_jax.data.sources.builder import writable
from neptune_jax.data.sources.images import Conversion

CHUNK = 2**24  # bytes of images that are read at once when all of them are read


@dataclasses.dataclass(frozen=True)
class Source:
    """A prepared data set. Its examples are numbered in their order, split after split."""

    info: tfds.core.DatasetInfo
    directory: Path
    splits: dict[str, np.ndarray]  # official ones: 'train' and maybe 'val', 'test': int64[n]
    name_of: Callable[[str, int], str]  # of (split, number of a raw image in it)
    rules: dict[str, Any]  # what was left out without reading it

    @classmethod
    def from_directory(
        cls, directory: Path, name_of: Callable[[str, int], str], rules: dict[str, Any]
    ) -> 'Source':
        """Returns the Source of the data set that is prepared in a directory."""
        info = tfds.builder_from_directory(directory).info
        splits, start = {}, 0
        for split in ('train', 'val', 'test'):
            if split in info.splits:
                size = info.splits[split].num_examples
                splits[split] = np.arange(start, start + size)
                start += size
        return cls(info, directory, splits, name_of, rules)

    @property
    def full_name(self) -> str:
        """The name under which tfds knows the data set: NAME/VERSION or NAME/CONFIG/VERSION."""
        return self.info.full_name

    @property
    def read_from(self) -> str:
        """The full name of the data set of tfds that the images were read from; '' for others."""
        return self.info.metadata.get('read_from', '')

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by its label."""
        return tuple(self.info.features['label'].names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.info.features['image'].shape

    @property
    def report(self) -> dict[str, Any]:
        """What was not used, dropped or changed: a count and the first examples of each rule."""
        return self.rules | self.info.metadata.get('report', {})

    @property
    def lost(self) -> dict[str, survivors.Losses]:
        """What the preparation dropped of each class, by split."""
        return self.info.metadata.get('lost', {})

    @property
    def notes(self) -> list[str]:
        """What the preparation guessed about all images, a line each."""
        return self.info.metadata.get('notes', [])

    @property
    def conversion(self) -> Conversion:
        """How raw images became those of this data set. It does not resize by default."""
        if 'conversion' in self.info.metadata:
            return Conversion.from_dict(self.info.metadata['conversion'])
        return Conversion(size=self.image_shape[:2], channels=self.image_shape[2])

    @property
    def before(self) -> dict[str, int]:
        """The number of raw images of each split, with those that the preparation dropped."""
        sizes = {split: len(part) for split, part in self.splits.items()}
        return self.info.metadata.get('before', sizes)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    @property
    def nbytes(self) -> int:
        """The size of all images in memory, in bytes."""
        return len(self) * int(np.prod(self.image_shape))

    def name(self, example: int) -> str:
        """Returns the file of an example, or its split and its number there: 'train[17]'."""
        split = next(s for s, part in self.splits.items() if part[0] <= example <= part[-1])
        number = int(example - self.splits[split][0])
        # Raw images are numbered with those that were left out, in increasing order.
        for left_out in self.info.metadata.get('left_out', {}).get(split, ()):
            number += left_out <= number
        return self.name_of(split, number)

    def reader(self) -> 'Reader':
        """Returns a Reader of the examples. It may be sent to another process."""
        return Reader(self.directory, {split: len(part) for split, part in self.splits.items()})

    def images(self) -> np.ndarray:
        """Returns all images, uint8[N, H, W, C], memory-mapped from a file beside the records.

        To decode all records takes seconds; to map the file takes no time.
        """
        path = self.directory / 'images.npy'
        if not path.is_file():
            with writable(path.parent):
                self._scan(path)
        return np.load(path, mmap_mode='r')

    def index(self) -> dict[str, np.ndarray]:
        """Returns what cleaning, splits and standardisation need to know of each image.

        A dict: `label` int32[N]; `digest` bytes16[N], a hash of the pixels; `near` int64[N], the
        image that this one nearly duplicates, or -1 (`near_duplicates.find`, where test images come
        first, then those for validation); and for each channel `sum` and `squares` (the sum of
        squares) int64[N, C], `low` and `high` uint8[N, C]. Images of one's own also have `content`
        bytes16[N], a hash of the raw file or array, and `raw_shape` int32[N, 3]: its height, width
        and channels.
        """
        index = self._read_index()
        if 'near' not in index:  # there is none, or one of an earlier version
            with writable(self.directory):
                self._scan()
            index = self._read_index()
        return index

    def _read_index(self):
        path = self.directory / 'index.npz'
        if not path.is_file():
            return {}
        with np.load(path) as columns:
            return dict(columns)

    def _scan(self, images_path=None):
        """Reads every record once and writes the index; all images too, if a path is given."""
        reader, parts, sketches = self.reader(), [], []
        with contextlib.ExitStack() as files:
            if images_path:
                unfinished = files.enter_context(_replacing(images_path))
                # Not memory-mapped: on a full disk that would kill the process with SIGBUS.
                images = files.enter_context(unfinished.open('wb'))
                shape = (len(self), *self.image_shape)
                header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
                np.lib.format.write_array_header_1_0(images, header)
            chunk = max(1, CHUNK // int(np.prod(self.image_shape)))
            for start in range(0, len(self), chunk):
                stop = min(start + chunk, len(self))
                columns = reader.columns(range(start, stop))
                pixels = columns.pop('image')
                parts.append(columns | _statistics(pixels))
                sketches.append(near_duplicates.sketch(pixels))
                if images_path:
                    images.write(pixels.tobytes())
            columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            splits = [self.splits[name] for name in ('test', 'val', 'train') if name in self.splits]
            columns['near'] = near_duplicates.find(
                np.concatenate(sketches),
                columns['digest'],
                np.concatenate(splits),
                lambda examples: reader.read(examples)[0],
            )
            unfinished = files.enter_context(_replacing(self.directory / 'index.npz'))
            np.savez(unfinished, **columns)


class Reader:
    """Reads examples of a Source from its records. It pickles small, for worker processes."""

    def __init__(self, directory: Path, sizes: dict[str, int]) -> None:
        self._directory, self._sizes = str(directory), sizes

    def __getstate__(self) -> dict:
        return {'_directory': self._directory, '_sizes': self._sizes}

    @functools.cached_property
    def _builder(self):
        return tfds.builder_from_directory(self._directory)

    @functools.cached_property
    def _records(self):
        return [self._builder.as_data_source(split) for split in self._sizes]

    def read(self, examples: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8[n, H, W, C] and labels int32[n] of examples, in the given order."""
        columns = self.columns(examples)
        return columns['image'], columns['label']

    def columns(self, examples: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Returns what `read` does as `image` and `label`, and what else is known of each image.

        That is `content` bytes16[n] and `raw_shape` int32[n, 3] as in `Source.index`.
        """
        examples = np.asarray(examples)
        features = self._builder.info.features
        columns = {
            name: np.zeros((len(examples), *feature.shape), feature.np_dtype)
            for name, feature in features.items()
        }
        start = 0
        for records, size in zip(self._records, self._sizes.values(), strict=True):
            here = np.flatnonzero((examples >= start) & (examples < start + size))
            found = records.__getitems__((examples[here] - start).tolist()) if len(here) else []
            for place, example in zip(here, found, strict=True):
                for name, column in columns.items():
                    column[place] = example[name]
            start += size
        columns['label'] = columns['label'].astype(np.int32)
        if 'content' in columns:
            columns['content'] = columns['content'].view('V16').ravel()
        return columns


def _statistics(pixels):
    """Returns the columns of the index, except `label`, for images uint8[n, H, W, C]."""
    flat = pixels.reshape(len(pixels), -1, pixels.shape[-1]).astype(np.int64)
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]
    return {
        'digest': np.frombuffer(b''.join(digests), 'V16'),
        'sum': flat.sum(axis=1),
        'squares': (flat**2).sum(axis=1),
        'low': pixels.min(axis=(1, 2)),
        'high': pixels.max(axis=(1, 2)),
    }


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a path in the same folder to write to. The complete file then replaces `path`."""
    unfinished = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
