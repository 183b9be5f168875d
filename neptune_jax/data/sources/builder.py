"""How a data set is prepared: a tfds builder that needs no TensorFlow, run once for all processes.

Prepared means: uint8 images of one size and their labels, in tfds's array_record files.
"""

import contextlib
import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax import terminal
from neptune_jax.errors import UserError

VERSION = '1.0.0'  # of every prepared data set; part of its directory


def numbered(split: str, number: int) -> str:
    """Returns the name of a raw image that has no file of its own, such as 'train[17]'."""
    return f'{split}[{number}]'


class Preparation(NamedTuple):
    """How to prepare one data set. None of its images have been read yet."""

    directory: Path  # of the prepared data set
    create_builder: Callable[[], 'ImageBuilder']  # may read all raw images; raises UserError
    name_of: Callable[[str, int], str] = numbered  # of (split, number of a raw image in it)
    rules: dict[str, Any] = {}  # what is known without preparing, for the report

    def is_done(self) -> bool:
        """Whether the data set is prepared. (Its directory gets its name when it is complete.)"""
        return (self.directory / 'dataset_info.json').is_file()


# tfds asks its bucket about each data set that is not prepared, and leaves an empty folder in the
# system's temporary one. It has nothing about the data sets of this package.
tfds.core.DatasetInfo.initialize_from_bucket = lambda self: None  # type: ignore[method-assign]


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A tfds builder of images uint8[H, W, C] and labels; subclasses generate the examples."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # tfds looks for no file of checksums: archives.py has them

    CLASS_NAMES: tuple[str, ...]
    IMAGE_SHAPE: tuple[int, int, int]
    MORE_FEATURES: dict = {}  # beside the image and the label

    def __init_subclass__(cls) -> None:
        # Not registered with tfds, which has data sets of the same names that need TensorFlow.
        super().__init_subclass__(skip_registration=True)

    def __init__(self, *, data_dir: Path, config: tfds.core.BuilderConfig | None = None) -> None:
        super().__init__(data_dir=data_dir, config=config, file_format='array_record')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Tensor(shape=self.IMAGE_SHAPE, dtype=np.uint8),
                'label': tfds.features.ClassLabel(names=list(self.CLASS_NAMES)),
            }
            | self.MORE_FEATURES
        )
        # The records keep the order of the source. Shuffling is up to batches.py.
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def close(self) -> None:
        """Drops what takes memory. tfds keeps every builder as long as the process lives."""

    def say(self, message: str) -> None:
        """Prints one line about the preparation."""
        terminal.line(f'{self.name}: {message}')


def prepare(preparation: Preparation, data_dir: Path) -> None:
    """Prepares a data set unless it is prepared already.

    Raises:
        UserError: raw images that cannot be used, or a data folder that cannot be written.
    """
    with writable(data_dir):
        if preparation.is_done():
            return
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        # The builder may refuse the images, before anything is written.
        with contextlib.closing(preparation.create_builder()) as builder, _locked(data_dir):
            if not preparation.is_done():  # another process may have done it while this one waited
                _prepare(builder, preparation.directory, data_dir)


def _prepare(builder, directory, data_dir):
    """Prepares a data set, or leaves nothing of it behind.

    Raises:
        OSError: a file cannot be written, because the disk is full or for another reason.
    """
    try:
        builder.download_and_prepare()
    except RuntimeError as error:
        # array_record's writer says so: write() failed: No space left on device; writing ...
        failed = re.search(r'\w+\(\) failed: ([^;]+)', str(error))
        if not failed:
            raise
        raise OSError(f'{failed[1]}, while it was written') from error
    finally:
        downloads = data_dir / 'downloads'
        own = [folder for folder in directory.parents if folder.is_relative_to(data_dir)]
        for folder in (*own, downloads / 'extracted', downloads):
            if folder != data_dir:
                with contextlib.suppress(OSError):  # it is not empty, or not there
                    folder.rmdir()


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turns an OSError inside the context into a UserError about the data folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'data.dir={str(folder)!r} cannot be used ({error}); set --config.data.dir to a '
            'folder that can be written and has room'
        ) from error


@contextlib.contextmanager
def _locked(folder):
    """Lets one process at a time prepare data in a folder. The others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # releases the lock, as the end of the process does
