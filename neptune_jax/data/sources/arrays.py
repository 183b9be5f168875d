"""Images and labels in NumPy files (.npz, .npy), or in a CSV file of pixels."""

import csv
import functools
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from neptune_jax.data.sources import csv_table, images, raw, white
from neptune_jax.data.sources.builder import Preparation, numbered
from neptune_jax.data.sources.images import Conversion
from neptune_jax.defaults import FIELDS
from neptune_jax.errors import UserError
from neptune_jax.runs.files import expand_user

_DAMAGE = (OSError, MemoryError, ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)
SPLITS = ('train', 'val', 'test')
MAX_CLASSES = 100_000  # a higher label is taken for a mistake


def preparation(config: ConfigDict, data_dir: Path) -> Preparation:
    """Returns the Preparation of an .npz, of a pair of .npy files, or of a CSV file of pixels.

    An .npz holds `images` and `labels`, or `x_train`, `y_train` and maybe `x_val`, `y_val`,
    `x_test`, `y_test`. A CSV file has a header; the column `data.label_column` holds the labels,
    all others the pixels, row by row.

    Args:
        config: the `data` group.
        data_dir: the folder of prepared data.

    Raises:
        UserError: a file that does not exist, or a field that does not apply to the file.
    """
    files = files_of(config)
    return raw.preparation(
        config,
        data_dir,
        name='arrays',
        files=files,
        settings=[config.label_column],
        read=functools.partial(_read, files, config.label_column),
    )


def files_of(config: ConfigDict) -> list[Path]:
    """Returns the file or the two files that the `data` group names. Raises UserError."""
    if not config.path:
        raise UserError(f'data.name={config.name!r} needs --config.data.path')
    path = Path(expand_user(config.path, 'data.path'))
    files = {'path': path}
    if path.suffix == '.npy':
        files['labels_path'] = Path(expand_user(config.labels_path, 'data.labels_path'))
    elif path.suffix not in ('.npz', '.csv'):
        raise UserError(f'data.path={str(path)!r} must end in .npz, .npy or .csv')
    for field, ending in (('labels_path', '.npy'), ('label_column', '.csv')):
        default = FIELDS[f'data.{field}'].default
        if config[field] != default and path.suffix != ending:
            raise UserError(
                f'data.{field}={config[field]!r} is not used by data.path={str(path)!r}, which is '
                f'not of the type {ending}; set --config.data.{field}={default}'
            )
    for field, file in files.items():
        if not file.is_file():
            raise UserError(
                f'data.{field}={config[field]!r} is not a file; set --config.data.{field} to one'
            )
    return list(files.values())


def _read(files, label_column, conversion):
    """Returns the RawImages in the files. Raises what `read` does, and for unusual labels."""
    path = files[0]
    splits, notes = read(files, label_column, conversion)
    labels = [label for label in splits['train'][1] if label is not None]
    raw.check_counts(path, labels)
    classes = {number: label for label, number in enumerate(sorted(set(labels)))}
    for split, (_, labels) in splits.items():
        unknown = set(labels).difference(classes, [None])
        if unknown:
            raise UserError(f'{path}, {split}: training has no class {min(unknown)}')
    values = {split: white.values_of_arrays(found) for split, (found, _) in splits.items()}
    conversion, guesses = white.resolve(path, conversion, values, numbered)
    return raw.RawImages(
        class_names=[str(number) for number in classes],
        splits={
            split: [(image, classes.get(label)) for image, label in zip(*part, strict=True)]
            for split, part in splits.items()
            if len(part[1])
        },
        load=load_array,
        conversion=raw.resolve(conversion, splits['train'][0], shape_of_array, path),
        content=content_of_array,
        notes=[*notes, *guesses, *_note_classes(list(classes))],
    )


def read(
    files: Sequence[Path], label_column: str, conversion: Conversion, only_test: bool = False
) -> tuple[dict[str, tuple[np.ndarray, list[int | None]]], list[str]]:
    """Returns images and labels of each split, and notes for the screen.

    Args:
        files: of `files_of`.
        label_column: of a .csv file.
        conversion: Conversion; its `size` and `channels` say how pixels lie in a .csv file.
        only_test: whether an .npz may lack training images.

    Raises:
        UserError: a file that cannot be read or does not hold images and labels, ragged rows,
            labels that are not whole numbers from 0.
    """
    path = files[0]
    notes: list[str] = []
    try:
        if path.suffix == '.csv':
            *pair, notes = csv_table.read(path, label_column, conversion)
            splits = {'train': tuple(pair)}
        elif path.suffix == '.npz':
            splits = _read_npz(path, only_test)
        else:
            splits = {'train': tuple(map(_read_npy, files))}
    except _DAMAGE as error:
        problem = csv_table.shortened(' '.join(str(error).split()), 200) or 'out of memory'
        raise UserError(f'{" or ".join(map(str, files))} cannot be read: {problem}') from error
    return {
        split: (found, _check_arrays(f'{path}, {split}', found, labels))
        for split, (found, labels) in splits.items()
    }, notes


def _note_classes(numbers):
    """Returns a note if the labels are not all numbers from 0 on."""
    rest = numbers[-1] + 1 - len(numbers)
    if not rest:
        return []
    shown = ', '.join(map(str, numbers[:10])) + (', ...' if len(numbers) > 10 else '')
    return [
        f'the {len(numbers):,} classes are the labels that occur, {shown}; {rest:,} other '
        f'number(s) from 0 to {numbers[-1]} do not occur'
    ]


def load_array(
    item: tuple[np.ndarray, int | None], conversion: Conversion
) -> tuple[images.Converted, int | None]:
    """Returns the Converted of the array of an (array, label), and the label."""
    array, label = item
    return images.convert(array, conversion), label


def content_of_array(item: tuple[np.ndarray, int | None]) -> bytes:
    """Returns the type, the shape and the values of the array of an (array, label), as bytes."""
    array = item[0]
    return f'{array.dtype.str}{array.shape}'.encode() + array.tobytes()


def shape_of_array(array: np.ndarray, conversion: Conversion) -> tuple[tuple[int, int], int]:
    """Returns the (height, width) of an array of pixels, and the number of channels to give it."""
    del conversion
    return array.shape[:2], 1 if array.ndim == 2 or array.shape[2] == 1 else 3


def _read_npy(path):
    with path.open('rb') as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(path, only_test):
    # np.load itself would leave a file open that it cannot read.
    with path.open('rb') as file:
        found = np.load(file)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError('it is no .npz file')
        if {'images', 'labels'} <= set(found):
            return {'train': (found['images'], found['labels'])}
        pairs = {split: (f'x_{split}', f'y_{split}') for split in SPLITS}
        splits = {split: pair for split, pair in pairs.items() if not {*pair}.isdisjoint(found)}
        needed = {name for pair in splits.values() for name in pair}
        is_enough = bool(splits) if only_test else 'train' in splits
        if not (is_enough and needed <= {*found}):
            raise UserError(
                f'{path} holds {", ".join(found) or "nothing"}; expected images and labels, or '
                'x_train and y_train, maybe also x_val and y_val, x_test and y_test'
            )
        return {split: (found[x], found[y]) for split, (x, y) in splits.items()}


def _check_arrays(where, found, labels):
    """Returns the labels as a list of ints, with None where one is missing."""
    if found.ndim not in (3, 4) or found.dtype.kind not in 'buif':
        raise UserError(
            f'{where}: images of shape {found.shape} and type {found.dtype} cannot be used; '
            'expected numbers [N, H, W] or [N, H, W, C]'
        )
    if found.ndim == 4 and found.shape[-1] not in (1, 3, 4):
        raise UserError(f'{where}: images of shape {found.shape}; the last number must be 1, 3, 4')
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in 'buif':
        raise UserError(
            f'{where}: labels of shape {labels.shape} and type {labels.dtype}; expected one whole '
            'number for each image'
        )
    if len(found) != len(labels):
        raise UserError(f'{where}: {len(found)} images and {len(labels)} labels')
    wrong = ~np.isnan(labels) & ~(np.isin(labels, np.arange(MAX_CLASSES)))
    if wrong.any():
        i = wrong.argmax()
        raise UserError(
            f'{where}: label {labels[i]} of example {i} is not a whole number from 0 to '
            f'{MAX_CLASSES - 1}'
        )
    return [None if label != label else int(label) for label in labels]  # NaN differs from itself
