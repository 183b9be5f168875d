"""Where images come from: each source reads one data set through tfds into NumPy arrays."""

import os
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from neptune_jax.data.idx import FashionMnist, FashionMnistMini
from neptune_jax.errors import UserError, choose

SOURCES = {
    'fashion_mnist': FashionMnist,
    'fashion_mnist_mini': FashionMnistMini,
}


def read(config):
    """Reads a data set; prepares it first where that has not happened yet.

    Args:
        config: the `data` group.

    Returns:
        images: uint8[N, H, W, C] and
        labels: int32[N], of all official splits, in the publisher's order;
        splits: a dict from 'train' and 'test' to indices into those, int64[n];
        class_names: a tuple.

    Raises:
        UserError: an unknown data set, data that cannot be had or are damaged, a data folder that
            cannot be written.
    """
    source = choose(SOURCES, config.name, 'data.name')
    data_dir = Path(config.dir or tfds.core.constants.get_default_data_dir()).expanduser()
    try:
        builder = source(data_dir=data_dir, archive_dir=config.archive_dir)
        if not builder.is_prepared():
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            builder.download_and_prepare()
        train, test = (_read_split(builder, split) for split in ('train', 'test'))
    except OSError as error:
        raise UserError(
            f'data.dir={str(data_dir)!r} cannot be used ({error}); set --config.data.dir to a '
            'folder that can be written'
        ) from error
    images, labels = (np.concatenate([train[key], test[key]]) for key in ('image', 'label'))
    examples = np.arange(len(labels))
    splits = {'train': examples[: len(train['label'])], 'test': examples[len(train['label']) :]}
    return images, labels, splits, tuple(builder.info.features['label'].names)


def _read_split(builder, split):
    """Returns a split as arrays, from the cache beside tfds's files where there is one.

    Decoding records one by one takes seconds where reading an array takes a tenth of one.
    """
    cache = Path(builder.data_path) / f'{split}.npz'
    if cache.is_file():
        with np.load(cache) as arrays:
            return dict(arrays)
    examples = builder.as_data_source(split)
    examples = examples.__getitems__(range(len(examples)))
    arrays = {
        'image': np.stack([example['image'] for example in examples]),
        'label': np.array([example['label'] for example in examples], np.int32),
    }
    unfinished = cache.with_suffix(f'.{os.getpid()}.npz')
    try:
        np.savez(unfinished, **arrays)
        unfinished.replace(cache)
    except OSError:
        unfinished.unlink(missing_ok=True)  # a read-only or full disk: the next run decodes again
    return arrays
