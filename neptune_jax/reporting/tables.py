"""Tables of a test, as CSV and NumPy files."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from neptune_jax.data.dataset import Dataset
from neptune_jax.data.given import GivenImages
from neptune_jax.learning import metrics
from neptune_jax.reporting.figures import MAX_NUMBERED_CLASSES

PAIRS = 1000  # in confused_pairs.csv


def write(
    folder: Path,
    data: Dataset | GivenImages,
    examples: np.ndarray,
    totals: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
) -> None:
    """Writes the tables of a test into a folder.

    predictions.npz holds `index`, `label`, `prediction`, `confidence`, `probabilities` [n, K] and
    `loss` of each example.
    classification_report.csv has a row for each class of the data, in the order of the labels.
    confused_pairs.csv lists the most frequent mistakes, if the classes are too many for a picture
    of the confusion matrix with numbers.

    Args:
        folder: for the files.
        data: that the examples belong to.
        examples: int[n], the numbers of the tested examples.
        totals: summed statistics of the test (`metrics.statistics`).
        outputs: `loss`, `prediction`, `confidence` and `probabilities` of each example.
    """
    confusion, names = totals['confusion'], data.class_names
    np.savez(
        folder / 'predictions.npz',
        allow_pickle=False,
        index=examples,
        label=data.labels[examples],
        **outputs,
    )
    _write_csv(
        folder / 'confusion_matrix.csv',
        ['label \\ prediction', *names],
        ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True)),
    )
    ratios = metrics.per_class(confusion)
    columns = [ratios[name].tolist() for name in ('precision', 'recall', 'f1', 'support')]
    _write_csv(
        folder / 'classification_report.csv',
        ['class', 'precision', 'recall', 'f1', 'support'],
        (
            [name, f'{precision:.6f}', f'{recall:.6f}', f'{f1:.6f}', support]
            for name, precision, recall, f1, support in zip(names, *columns, strict=True)
        ),
    )
    if len(names) > MAX_NUMBERED_CLASSES:
        _write_csv(
            folder / 'confused_pairs.csv',
            ['label', 'prediction', 'count', 'share of the label'],
            (
                [names[label], names[prediction], count, f'{share:.6f}']
                for label, prediction, count, share in metrics.confused_pairs(confusion, PAIRS)
            ),
        )


def _write_csv(path: Path, header: list[str], rows: Iterable[list]) -> None:
    # A folder's name may hold bytes that are no characters; they are written as they are.
    with path.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
