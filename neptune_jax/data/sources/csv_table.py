"""A CSV file of pixels: one image in each row, and its label."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np

from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError


def read(
    path: Path, label_column: str, conversion: Conversion
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns the images float32[N, H, W, C], the labels float32[N], and notes for the screen.

    Args:
        path: of a file with a header and commas. An empty cell is NaN.
        label_column: the name of the column of labels; all others are pixels, row by row.
        conversion: its `size` and `channels` say how the pixels lie; unset, images are square and
            grey.

    Raises:
        UserError: no header, no such column, a row that is no row of numbers or of another length.
        OSError, ValueError, csv.Error: the file cannot be read.
    """
    with path.open(newline='', encoding='utf-8-sig') as file:  # Excel writes a byte order mark
        header = next(csv.reader(file), [])
    _check_header(path, header, label_column)
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
    notes = _note_order([name for i, name in enumerate(header) if i != column])
    return pixels.reshape(-1, height, width, channels), labels, notes


def _check_header(path, header, label_column):
    """Raises UserError unless the first line of a CSV file names the column of labels, once."""
    separator = _other_separator(header, label_column)
    if separator:
        raise UserError(
            f'{path} has {separator!r} between its columns; write it with commas there, and with a '
            'point in decimals'
        )
    if header and all(map(_is_number, header)) and not _are_numbered(header, label_column):
        raise UserError(
            f'{path} has no header: its first line holds numbers, as the others; put the names of '
            f'the columns above it, {shortened(label_column)} for the labels'
        )
    if header.count(label_column) > 1:
        raise UserError(f'{path} has two columns {shortened(label_column)!r}; rename one')
    if label_column not in header:
        more = f' and {len(header) - 10:,} more' if len(header) > 10 else ''
        raise UserError(
            f'{path} has no column {shortened(label_column)!r}; set --config.data.label_column to '
            f'one of: {", ".join(map(shortened, header[:10]))}{more}'
        )


def _other_separator(header, label_column):
    """Returns what is between the columns if that is no comma; None if it cannot be told."""
    line = ','.join(header)
    for separator in ';\t| ':
        names = line.split(separator)
        if label_column not in header and (
            label_column in names or (separator in ';\t' and len(names) > 1)
        ):
            return separator
    return None


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _are_numbered(header, label_column):
    """Whether columns have their numbers as names, from 0 or 1; that of the labels anywhere."""
    numbers = sorted(map(float, header))
    pixels = [float(name) for name in header if name != label_column]
    consecutive = [*range(len(header))], [*range(1, len(header) + 1)]
    return numbers in consecutive and pixels == sorted(pixels)


def shortened(text: str, length: int = 40) -> str:
    """Returns a text, cut if it is long."""
    return text if len(text) <= length else f'{text[:length]}...'


def _note_order(names):
    """Returns a note if the names of pixels have numbers that do not rise from left to right."""
    numbers = [tuple(map(int, re.findall(r'\d+', name))) for name in names]
    known = len({len(each) for each in numbers}) == 1 and numbers[0]
    if not known or numbers == sorted(numbers):
        return []
    return [
        f'the columns {", ".join(map(shortened, names[:4]))}, ... are taken as pixels row by row '
        'in this order; their numbers have another one'
    ]


def _read_table(path, columns):
    """Returns the numbers below the header of a CSV file, float32[rows, columns].

    An empty cell is NaN.
    """
    options = {'delimiter': ',', 'quotechar': '"', 'comments': None, 'encoding': 'utf-8-sig'}
    try:
        with warnings.catch_warnings(action='error'):
            table = np.loadtxt(path, np.float32, skiprows=1, ndmin=2, **options)
        if table.shape[1] == columns:
            return table
    except (ValueError, UserWarning):
        pass
    # A cell is empty or wrong. Python's reader is five times slower but can say where.
    rows = []
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.reader(file)
        next(reader)
        for row in filter(None, reader):  # skips empty lines
            if len(row) != columns:
                raise UserError(
                    f'{path}, line {reader.line_num}: {len(row)} columns where the header has '
                    f'{columns}'
                )
            try:
                rows.append(np.array([value or 'nan' for value in row], np.float32))
            except ValueError as error:
                reason = shortened(' '.join(str(error).split()), 200)
                raise UserError(f'{path}, line {reader.line_num}: {reason}') from error
    return np.array(rows, np.float32).reshape(-1, columns)
