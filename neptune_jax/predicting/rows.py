"""Rows of predictions as CSV and as JSON lines: written, read back, continued after a kill.

File names may hold any bytes. They become text as Python's `os.fsdecode` does it; in CSV the bytes
are written as they are.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from neptune_jax.errors import UserError
from neptune_jax.runs.files import dumps

_SPECIAL = re.compile('[",\r\n]')  # what CSV needs quotes for


class Prediction(NamedTuple):
    """What is predicted for a file."""

    file: str
    top: list[tuple[str, float]]  # classes with their probabilities, the largest first
    error: str = ''  # why the file cannot be read; then `top` is empty


def top_classes(
    probabilities: np.ndarray, classes: Sequence[str], count: int
) -> list[list[tuple[str, float]]]:
    """Returns the most probable classes of each image; of equal ones, the first.

    Args:
        probabilities: float32[n, K].
        classes: the names of the K classes.
        count: how many at most.
    """
    order = np.argsort(-probabilities, axis=1, kind='stable')[:, :count]
    found = np.take_along_axis(probabilities, order, axis=1)
    # The shortest decimals that give back the float32.
    values = found.astype(str).astype(np.float64).tolist()
    return [
        [(classes[label], value) for label, value in zip(*row, strict=True)]
        for row in zip(order.tolist(), values, strict=True)
    ]


class Format(NamedTuple):
    """How rows are written. All texts end with a line feed."""

    header: Callable[[int], str]  # of the number of classes in a row
    render: Callable[[Prediction, int], str]
    parse: Callable[[str], Prediction]  # raises ValueError
    is_whole: Callable[[bytes], bool]  # whether a row ends at the end of these lines


def _csv_line(cells):
    return ','.join(map(_csv_cell, cells)) + '\n'


def _csv_cell(cell):
    # Not csv.writer: it leaves a carriage return without quotes, which readers take for a new row.
    text = str(cell)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _csv_header(count):
    columns = [f'{name}_{i}' for i in range(1, count + 1) for name in ('class', 'probability')]
    return _csv_line(['file', 'error', *columns])


def _csv_row(prediction, count):
    cells = [cell for pair in prediction.top for cell in pair] or [''] * (2 * count)
    return _csv_line([prediction.file, prediction.error, *cells])


def _csv_parse(text):
    ((file, error, *cells),) = csv.reader([text])
    pairs = zip(cells[::2], cells[1::2], strict=True)
    top = [] if error else [(name, float(value)) for name, value in pairs]
    return Prediction(file, top, error)


def _json_row(prediction, count):
    if prediction.error:
        return dumps({'file': prediction.file, 'error': prediction.error}) + '\n'
    top = [{'class': name, 'probability': value} for name, value in prediction.top]
    return dumps({'file': prediction.file, 'top': top}) + '\n'


def _json_parse(text):
    try:
        row = json.loads(text)
        top = [(each['class'], float(each['probability'])) for each in row.get('top', [])]
        return Prediction(row['file'], top, row.get('error', ''))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError from error


FORMATS = {
    # A line feed inside quotes does not end a row.
    'csv': Format(_csv_header, _csv_row, _csv_parse, lambda lines: lines.count(b'"') % 2 == 0),
    'json': Format(lambda count: '', _json_row, _json_parse, lambda lines: True),
}
ENDINGS = {'.csv': 'csv', '.jsonl': 'json'}


def read_rows(
    stream: BinaryIO, form: Format, count: int, name: str
) -> Iterator[tuple[Prediction, int]]:
    """Yields each whole row of a file of rows, and the byte at which it ends.

    Args:
        stream: the file.
        form: its Format.
        count: of the classes in a row.
        name: of the file, for messages.

    Raises:
        UserError: it holds other columns, or what is no row.
    """
    header = form.header(count).encode()
    start = stream.read(len(header))
    if start != header:
        if header.startswith(start):  # torn
            return
        raise UserError(
            f'{name} has other columns than this command writes: {header.decode().strip()}; give '
            'the same --top as before, or another --out'
        )
    end, lines = len(header), b''
    for line in stream:
        lines += line
        if not (line.endswith(b'\n') and form.is_whole(lines)):
            continue
        end += len(lines)
        try:
            yield form.parse(lines.decode('utf-8', 'surrogateescape')), end
        except ValueError as error:
            raise UserError(
                f'{name} has a row that this command did not write, before byte {end:,}; give '
                'another --out'
            ) from error
        lines = b''
