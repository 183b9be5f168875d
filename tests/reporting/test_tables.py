"""Tables of a test: a row for each class, names as they are, the mistakes of many classes."""

import csv
import types

import numpy as np
import pytest
import sklearn.metrics

from neptune_jax.reporting import tables

LABELS, PREDICTIONS = [0, 0, 2, 2, 2], [0, 1, 2, 0, 2]  # none is of class 1 or of class 3


@pytest.fixture
def write(tmp_path):
    """Writes the tables of some test examples, and returns a function that reads one of them."""

    def write(labels, predictions, class_names):
        folder = tmp_path / 'artifacts'
        folder.mkdir()
        labels, predictions = np.array(labels), np.array(predictions)
        confusion = sklearn.metrics.confusion_matrix(
            labels, predictions, labels=range(len(class_names))
        )
        tables.write(
            folder,
            types.SimpleNamespace(labels=labels, class_names=class_names),
            np.arange(len(labels)),
            {'confusion': confusion},
            {'prediction': predictions},
        )

        def read(name):
            with (folder / name).open(newline='', encoding='utf-8') as file:
                return list(csv.reader(file))

        return read

    return write


def test_each_class_has_a_row_in_the_report(write):
    header, *rows = write(LABELS, PREDICTIONS, ['a', 'b', 'c', 'd'])('classification_report.csv')
    assert header == ['class', 'precision', 'recall', 'f1', 'support']
    assert rows == [
        ['a', '0.500000', '0.500000', '0.500000', '2'],
        ['b', '0.000000', '0.000000', '0.000000', '0'],  # predicted once
        ['c', '1.000000', '0.666667', '0.800000', '3'],
        ['d', '0.000000', '0.000000', '0.000000', '0'],
    ]


def test_names_in_tables_are_as_they_are(write):
    names = ['$5_$10', '"a", b', 'two\nlines', '猫 😀 שלום']
    read = write(LABELS, PREDICTIONS, names)
    assert [row[0] for row in read('classification_report.csv')[1:]] == names
    matrix = read('confusion_matrix.csv')
    assert matrix[0][1:] == names
    assert [row[0] for row in matrix[1:]] == names
    assert matrix[3][1:] == ['1', '0', '2', '0']


def test_many_classes_have_a_table_of_mistakes(write, tmp_path):
    names = [f'class {number}' for number in range(61)]
    labels, predictions = [5, 5, 5, 5, 60, 60, 3], [5, 7, 7, 7, 60, 4, 3]
    assert write(labels, predictions, names)('confused_pairs.csv') == [
        ['label', 'prediction', 'count', 'share of the label'],
        ['class 5', 'class 7', '3', '0.750000'],
        ['class 60', 'class 4', '1', '0.500000'],
    ]


def test_few_classes_have_none_beside_the_matrix(write, tmp_path):
    write(LABELS, PREDICTIONS, [f'class {number}' for number in range(60)])
    assert {path.name for path in (tmp_path / 'artifacts').iterdir()} == {
        'predictions.npz',
        'confusion_matrix.csv',
        'classification_report.csv',
    }
