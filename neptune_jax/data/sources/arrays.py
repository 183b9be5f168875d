"""Images and labels in NumPy files, or in a CSV of pixels."""

import csv
import warnings
import zipfile
import zlib

import numpy as np

from neptune_jax.data.sources import images
from neptune_jax.data.sources.builder import Raw, check_counts, fingerprint, resolve
from neptune_jax.errors import UserError

SPLITS = ('train', 'val', 'test')
MOST_CLASSES = 100_000  # a higher label is a mistake


def array_files(path, labels_path, label_column, conversion):
    """Returns the Raw of an .npz, of a pair of .npy files, or of a CSV of pixels.

    An .npz holds `images` and `labels`, or `x_train`, `y_train` and maybe `x_test`, `y_test`. A CSV
    has a header; the column `label_column` holds the labels, all others pixels, row by row.

    Raises:
        UserError: a file that does not exist or does not hold that, ragged rows, labels that are
            no whole numbers from 0 or that training lacks.
    """
    files = [path]
    if path.suffix == '.npy':
        files.append(labels_path)
    elif path.suffix not in ('.npz', '.csv'):
        raise UserError(f'data.path={str(path)!r} must end in .npz, .npy or .csv')
    for field, file in zip(('path', 'labels_path'), files, strict=False):
        if not file.is_file():
            raise UserError(
                f'data.{field}={str(file)!r} is no file; set --config.data.{field} to one'
            )
    try:
        if path.suffix == '.csv':
            splits = {'train': _read_csv(path, label_column, conversion)}
        elif path.suffix == '.npz':
            splits = _read_npz(path)
        else:
            splits = {'train': (_read_npy(path), _read_npy(labels_path))}
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        problem = ' '.join(str(error).split())
        raise UserError(f'{" or ".join(map(str, files))} cannot be read: {problem}') from error
    splits = {
        split: (found, _check_arrays(f'{path}, {split}', found, labels))
        for split, (found, labels) in splits.items()
    }
    numbers = [label for label in splits['train'][1] if label is not None]
    check_counts(path, numbers)
    for split, (_, labels) in splits.items():
        unknown = set(labels).difference(numbers, [None])
        if unknown:
            raise UserError(f'{path}, {split}: training has no class {min(unknown)}')
    conversion = conversion._replace(white=_white([found for found, _ in splits.values()]))
    conversion = resolve(conversion, splits['train'][0], size_of_array, path)
    return Raw(
        name='arrays',
        fingerprint=fingerprint(files, conversion, label_column),
        class_names=[str(number) for number in range(max(numbers) + 1)],
        splits={
            split: [
                (split, i, image, label) for i, (image, label) in enumerate(zip(*part, strict=True))
            ]
            for split, part in splits.items()
            if len(part[1])
        },
        load=load_array,
        describe=lambda item: f'{item[0]}[{item[1]}]',
        conversion=conversion,
    )


def load_array(item, conversion):
    """Returns the image of a (split, number, array, label), the label, and the rules applied."""
    _, _, array, label = item
    image, rules = images.convert(array, conversion)
    return image, label, rules


def size_of_array(array, conversion):
    """Returns the (height, width) of an array of pixels and how many channels it will have."""
    del conversion
    return array.shape[:2], 1 if array.ndim == 2 or array.shape[2] == 1 else 3


def _read_npy(path):
    with path.open('rb') as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(path):
    # Opened here, because np.load leaves a file open that it cannot read.
    with path.open('rb') as file:
        found = np.load(file)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError('it is no .npz file')
        if {'images', 'labels'} <= set(found):
            return {'train': (found['images'], found['labels'])}
        pairs = {split: (f'x_{split}', f'y_{split}') for split in SPLITS}
        splits = {split: pair for split, pair in pairs.items() if not {*pair}.isdisjoint(found)}
        if 'train' not in splits or not {name for pair in splits.values() for name in pair} <= {
            *found
        }:
            raise UserError(
                f'{path} holds {", ".join(found) or "nothing"}; expected images and labels, or '
                'x_train and y_train, maybe also x_val and y_val, x_test and y_test'
            )
        return {split: (found[x], found[y]) for split, (x, y) in splits.items()}


def _read_csv(path, label_column, conversion):
    with path.open(newline='', encoding='utf-8-sig') as file:  # Excel begins with a signature
        header = next(csv.reader(file), [])
    if label_column not in header:
        raise UserError(
            f'{path} has no column {label_column!r}; set --config.data.label_column to one of: '
            + ', '.join(header[:10])
        )
    column = header.index(label_column)
    table = _read_table(path, len(header))
    labels, pixels = table[:, column], np.delete(table, column, axis=1)
    count = len(header) - 1
    channels = conversion.channels or 1
    height, width = conversion.size or (round((count / channels) ** 0.5),) * 2
    if not count or count != height * width * channels:
        raise UserError(
            f'{path} has {count} pixels a row, which is not {height}x{width}x{channels}; '
            'set --config.data.image_size and --config.data.channels'
        )
    return pixels.reshape(-1, height, width, channels), labels


def _read_table(path, columns):
    """Returns the numbers of a CSV below its header, float32[rows, columns]; NaN where none is."""
    options = {'delimiter': ',', 'quotechar': '"', 'comments': None, 'encoding': 'utf-8-sig'}
    try:
        with warnings.catch_warnings(action='error'):
            table = np.loadtxt(path, np.float32, skiprows=1, ndmin=2, **options)
        if table.shape[1] == columns:
            return table
    except (ValueError, UserWarning):
        pass
    # Something is missing or wrong. Python's reader is five times slower and can say where.
    rows = []
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.reader(file)
        next(reader)
        for row in filter(None, reader):  # without empty lines
            if len(row) != columns:
                raise UserError(
                    f'{path}, line {reader.line_num}: {len(row)} columns where the header has '
                    f'{columns}'
                )
            try:
                rows.append(np.array([value or 'nan' for value in row], np.float32))
            except ValueError as error:
                raise UserError(f'{path}, line {reader.line_num}: {error}') from error
    return np.array(rows, np.float32).reshape(-1, columns)


def _check_arrays(where, found, labels):
    """Returns the labels as a list of ints, with None where one is missing."""
    if found.ndim not in (3, 4) or found.dtype.kind not in 'buif':
        raise UserError(
            f'{where}: images of shape {found.shape} and type {found.dtype} are none; expected '
            'numbers [N, H, W] or [N, H, W, C]'
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
    wrong = ~np.isnan(labels) & ~(np.isin(labels, np.arange(MOST_CLASSES)))
    if wrong.any():
        i = wrong.argmax()
        raise UserError(
            f'{where}: label {labels[i]} of example {i} is no whole number from 0 to '
            f'{MOST_CLASSES - 1}'
        )
    return [None if label != label else int(label) for label in labels]  # NaN differs from itself


def _white(arrays):
    """Returns which value is white in arrays of floats: 255 where most images go beyond 1.

    One image does not tell: a black one with noise has no pixels above 1 either.
    """
    largest = [
        np.nanmax(array, axis=tuple(range(1, array.ndim)), initial=0)
        for array in arrays
        if array.dtype.kind == 'f'
    ]
    return (255 if np.median(np.concatenate(largest)) > 1 else 1) if largest else 0
