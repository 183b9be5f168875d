"""Rows of predictions: any file name comes back, and a file that was cut anywhere is continued."""

import csv
import io
import json
import os

import numpy as np
import pytest

from neptune_jax.errors import UserError
from neptune_jax.predicting import outputs
from neptune_jax.predicting.rows import FORMATS, Prediction, top_classes

CLASSES = ('cat', 'dog, "big"', 'Füchse')
NAMES = [
    b'plain.png',
    b' blank first.png',
    b'comma, "quotes" and \'more\'.png',
    b'line\nfeed.png',
    b'carriage\rreturn.png',
    b'"',
    b'=1+1.png',
    b'\xff\xfe not UTF-8.png',
    'grüße/日本.png'.encode(),
]
FILES = [os.fsdecode(name) for name in NAMES]


def predictions():
    random = np.random.default_rng(0).dirichlet((0.1, 0.1, 0.1), len(FILES)).astype(np.float32)
    tops = top_classes(random, CLASSES, 2)
    rows = [Prediction(*pair) for pair in zip(FILES, tops, strict=True)]
    rows[1] = Prediction(FILES[1], [], 'no image: "\n", by\rany reader')
    return rows, random


def write(path, rows, *, files=FILES, batch_size=2, resume=False, top=2):
    """Writes rows in batches, and returns the Output."""
    with outputs.open_output(
        str(path), 'text', top, files, batch_size=batch_size, resume=resume
    ) as output:
        for start in range(output.start, len(rows), batch_size):
            output.write(rows[start : start + batch_size])
        return output


def read_with_csv(content):
    """Returns (file, top, error) of each row as Python's csv module reads them."""
    text = io.StringIO(content.decode('utf-8', 'surrogateescape'), newline='')
    rows = []
    for row in csv.DictReader(text):
        top = [(row[f'class_{i}'], row[f'probability_{i}']) for i in (1, 2) if row['class_1']]
        rows.append((row['file'], top, row['error']))
    return rows


def read_with_json(content):
    return [
        (
            row['file'],
            [(each['class'], each['probability']) for each in row.get('top', [])],
            row.get('error', ''),
        )
        for row in map(json.loads, content.splitlines())
    ]


@pytest.mark.parametrize(('ending', 'read'), [('csv', read_with_csv), ('jsonl', read_with_json)])
def test_other_programs_read_each_name_and_each_float32(tmp_path, ending, read):
    rows, probabilities = predictions()
    path = tmp_path / f'rows.{ending}'
    write(path, rows)
    found = read(path.read_bytes())
    assert [os.fsencode(file) for file, _, _ in found] == NAMES
    for number, (row, (_, top, error)) in enumerate(zip(rows, found, strict=True)):
        assert error == row.error
        expected = np.sort(probabilities[number])[::-1][:2] if not error else []
        np.testing.assert_array_equal([np.float32(value) for _, value in top], expected)
        labels = [CLASSES.index(name) for name, _ in top]
        np.testing.assert_array_equal(probabilities[number][labels], expected)


def test_of_equal_classes_the_first_comes_first():
    assert top_classes(np.float32([[0.2, 0.4, 0.4]]), CLASSES, 3) == [
        [(CLASSES[1], 0.4), (CLASSES[2], 0.4), (CLASSES[0], 0.2)]
    ]


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_a_file_cut_at_any_byte_is_continued_to_the_same_bytes(tmp_path, ending):
    rows, _ = predictions()
    path = tmp_path / f'rows.{ending}'
    write(path, rows)
    whole = path.read_bytes()
    starts = set()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        output = write(path, rows, resume=True)
        assert path.read_bytes() == whole, length
        assert output.errors == 1
        starts.add(output.start)
    assert starts == {0, 2, 4, 6}  # at least a batch is computed again, if a row was there
    path.write_bytes(whole[: whole.index(b'quotes')] + b'x' * len(whole))
    write(path, rows, resume=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_rows_of_other_inputs_or_of_another_model_are_not_continued(tmp_path, ending):
    rows, _ = predictions()
    path = tmp_path / f'rows.{ending}'
    write(path, rows[:6])
    before = path.read_bytes()

    def refused(match, rows=rows, **options):
        with pytest.raises(UserError, match=match):
            write(path, rows, **{'resume': True} | options)
        assert path.read_bytes() == before

    refused('exists; give another name, or --resume', resume=False)
    refused('its row 1 is of', files=FILES[::-1])
    refused('its row 5 is of .* there is no such file', files=FILES[:4])
    (name, value), second = rows[5].top
    for top in ([(name, value - 1e-4), second], [('other', value), second]):
        refused('of another model', [*rows[:5], rows[5]._replace(top=top), *rows[6:]])
    refused('of another model', [*rows[:5], Prediction(FILES[5], [], 'gone'), *rows[6:]])
    refused('other columns|of another model', [r._replace(top=r.top[:1]) for r in rows], top=1)
    # Of another machine, the last bits may differ.
    near = [(name, value - 2e-6), second]
    write(path, [*rows[:5], rows[5]._replace(top=near), *rows[6:]], resume=True)
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize('line', ['{"file": 3}\n', '[]\n', 'x\n', '{"file": "a", "top": 7}\n'])
def test_a_file_of_something_else_is_refused(tmp_path, line):
    path = tmp_path / 'rows.jsonl'
    path.write_text(line)
    with pytest.raises(UserError, match=r'cannot be continued|a row that this command did not'):
        write(path, predictions()[0], resume=True)
    assert path.read_text() == line


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / 'rows.csv'
    with (
        outputs.open_output(str(path), 'text', 2, FILES, batch_size=2, resume=False),
        pytest.raises(UserError, match='being written by another process'),
    ):
        write(path, [], resume=True)


def test_classes_that_are_equally_probable_may_change_places():
    one = Prediction('a', [('cat', 0.4), ('dog', 0.4), ('fox', 0.2)])
    other = Prediction('a', [('dog', 0.4), ('cat', 0.4), ('fox', 0.2)])
    assert outputs.is_same(one, other)
    nan = Prediction('a', [('cat', float('nan'))])
    assert not outputs.is_same(one._replace(top=one.top[:1]), nan)


def test_no_file_is_a_header_alone(tmp_path):
    with outputs.open_output(
        str(tmp_path / 'rows.csv'), 'text', 1, [], batch_size=2, resume=False
    ) as output:
        output.write([])
    assert (tmp_path / 'rows.csv').read_text() == FORMATS['csv'].header(1)
