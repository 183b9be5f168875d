"""Tables of one run, as CSV and NumPy files."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from neptune_jax.data.dataset import Dataset
from neptune_jax.learning import metrics
from neptune_jax.runs.writer import Run


def write(run: Run, dataset: Dataset, examples: np.ndarray, totals: dict, outputs: dict) -> None:
    """Writes the tables of a test into artifacts/.

    predictions.npz holds `index`, `label`, `prediction`, `confidence` and `loss` of each example.

    Args:
        run: the run.
        dataset: the data that the test belongs to.
        examples: int[n], the numbers of the tested examples.
        totals: summed statistics of the test (`metrics.statistics`).
        outputs: `loss`, `prediction` and `confidence` of each example, arrays [n].
    """
    confusion, names = totals['confusion'], dataset.class_names
    np.savez(
        run.path('artifacts/predictions.npz'),
        index=examples,
        label=dataset.labels[examples],
        **outputs,
    )
    _write_csv(
        run.path('artifacts/confusion_matrix.csv'),
        ['label \\ prediction', *names],
        ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True)),
    )
    columns = metrics.per_class(confusion)
    _write_csv(
        run.path('artifacts/classification_report.csv'),
        ['class', 'precision', 'recall', 'f1', 'support'],
        (
            [names[c], f'{precision:.6f}', f'{recall:.6f}', f'{f1:.6f}', support]
            for c, precision, recall, f1, support in zip(*columns.values(), strict=True)
        ),
    )


def _write_csv(path: Path, header: list[str], rows: Iterable[list]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
