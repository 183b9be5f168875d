"""What an evaluation leaves and shows: metrics with intervals, tables, figures."""

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from neptune_jax import terminal
from neptune_jax.data.given import GivenImages
from neptune_jax.errors import UserError
from neptune_jax.learning import metrics
from neptune_jax.reporting import figures, resampling, statistics, tables
from neptune_jax.runs import files

LEVEL = 0.95
HEADER = ('metric', 'value', 'low', 'high')  # of `table`
MAX_CLASSES_SHOWN = 60
METHODS = {
    'accuracy': 'Wilson',
    'others': f'percentile bootstrap over the images, {resampling.DRAWS:,} draws, seed 0',
}


class Measured(NamedTuple):
    """What an evaluation computes of some examples."""

    totals: dict[str, np.ndarray]  # metrics.statistics
    outputs: dict[str, np.ndarray]  # of each example, with logits


def metrics_of(measured: Measured) -> dict[str, float]:
    """Returns `metrics.summarize` of an evaluation."""
    return metrics.summarize(measured.totals)


def summarize(measured: Measured, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns metrics with their intervals, and those of each class: a JSON value.

    Args:
        measured: the evaluation.
        labels: int[n].
        classes: names of all K classes.
    """
    totals, outputs = measured
    summary = metrics.summarize(totals)
    outputs = {name: outputs[name] for name in ('prediction', 'loss', 'confidence')} | (
        {'in_top5': metrics.in_top(measured.outputs['logits'], labels)}
        if 'top5_accuracy' in summary
        else {}
    )
    with terminal.counted(resampling.DRAWS, 'draws of the bootstrap') as advance:
        intervals = resampling.bootstrap(
            labels, outputs, len(classes), level=LEVEL, advance=advance
        )
    correct = int(np.trace(totals['confusion']))
    intervals['accuracy'] = statistics.wilson(correct, len(labels), LEVEL)
    ratios = metrics.per_class(totals['confusion'])
    columns = ('precision', 'recall', 'f1', 'support')
    return {
        'metrics': summary,
        'level': LEVEL,
        'methods': METHODS,
        'intervals': {name: list(intervals[name]) for name in summary if name in intervals},
        'per_class': [
            {'class': name} | {column: ratios[column][label].item() for column in columns}
            for label, name in enumerate(classes)
        ],
    }


def write(
    folder: Path, examples: Any, measured: Measured, before: Measured | None, found: dict
) -> None:
    """Writes the results of an evaluation into a folder: first tables, then figures.

    Args:
        folder: for the files; it is made.
        examples: the evaluation.Examples.
        measured: their evaluation.
        before: the same without the temperature, if there is one.
        found: the content of metrics.json.

    Raises:
        UserError: the folder cannot be written.
    """
    outputs = {name: values for name, values in measured.outputs.items() if name != 'logits'}
    if isinstance(examples.data, GivenImages):
        outputs['name'] = np.array(examples.data.names)
    with writing(folder):
        tables.write(folder, examples.data, examples.numbers, measured.totals, outputs)
        files.write_json(folder / 'metrics.json', found)
    figures.write(
        folder,
        examples.data,
        examples.numbers,
        measured.totals,
        outputs,
        what=examples.what,
        before=before.outputs if before else None,
    )


def show(found: Mapping[str, Any], folder: Path) -> None:
    """Prints the results of an evaluation, and where they are."""
    images, summary = found['images'], found['metrics']
    split = f', {images["split"]} split' if images['split'] else ''
    terminal.line(f'run      {found["run"]}, checkpoint of step {found["step"]:,}')
    terminal.line(f'images   {images["data"]}{split}: {summary["count"]:,} images')
    if found['tta']['names']:
        terminal.line(
            f'views    {found["tta"]["views"]} of each image ({", ".join(found["tta"]["names"])})'
        )
    rows = Table('metric', title='evaluation')
    rows.add_column('value', justify='right')
    rows.add_column(f'{LEVEL:.0%} interval', justify='right')
    for name, value in summary.items():
        shown = f'{value:,}' if isinstance(value, int) else f'{value:.4f}'
        if name == 'classes':
            shown += f' of {len(found["per_class"]):,}'
        interval = found['intervals'].get(name)
        rows.add_row(name, shown, f'{interval[0]:.4f} to {interval[1]:.4f}' if interval else '')
    terminal.table(rows)
    _show_classes(found['per_class'])
    if 'temperature' in found:
        _show_temperature(found)
    terminal.line(f'results  {folder}')


def _show_classes(per_class):
    if len(per_class) > MAX_CLASSES_SHOWN:
        terminal.line('classes  classification_report.csv has a row for each')
        return
    rows = Table('class')
    for column in ('precision', 'recall', 'f1', 'support'):
        rows.add_column(column, justify='right')
    for each in per_class:
        ratios = [f'{each[column]:.4f}' for column in ('precision', 'recall', 'f1')]
        rows.add_row(each['class'], *ratios, f'{each["support"]:,}')
    terminal.table(rows)


def _show_temperature(found):
    temperature = found['temperature']
    terminal.line(f'logits   are divided by the temperature {temperature["value"]:.4f}')
    rows = Table('temperature scaling')
    for column in ('ECE before', 'ECE after', 'loss before', 'loss after'):
        rows.add_column(column, justify='right')
    before, after, fit = temperature['before'], found['metrics'], temperature['fit']
    if fit:
        values = (fit[f'{name}_{when}'] for name in ('ece', 'loss') for when in ('before', 'after'))
        rows.add_row('validation, for the fit', *(f'{value:.4f}' for value in values))
    values = (each[name] for name in ('ece', 'loss') for each in (before, after))
    rows.add_row('these images', *(f'{value:.4f}' for value in values))
    terminal.table(rows)


def table(found: Mapping[str, Any]) -> list[tuple]:
    """Returns (metric, value, low, high) for each metric of an evaluation."""
    return [
        (name, value, *found['intervals'].get(name, ('', '')))
        for name, value in found['metrics'].items()
    ]


def print_as(
    form: str, found: Mapping[str, Any], header: Sequence[str], rows: Sequence[Sequence]
) -> None:
    """Prints results on stdout: all of them as JSON, or rows as CSV. 'text': nothing more."""
    if form == 'json':
        print(files.dumps(found, indent=2))
    elif form == 'csv':
        csv.writer(sys.stdout, lineterminator='\n').writerows([header, *rows])


def file_name(text: str) -> str:
    """Returns a text as the name of a file."""
    return re.sub(r'[^\w.=-]+', '_', text)[:100]


def is_of(folder: Path, source: str) -> bool:
    """Whether a folder has no results, or those of images of a source."""
    try:
        found = files.read_json(folder / 'metrics.json')
    except (OSError, ValueError):
        return False
    return not found or found['images']['data'] == source


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes a folder. An OSError inside the context becomes a UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f'{folder} cannot be written: {error}; set --out to another folder'
        ) from error


def writable(folder: Path, otherwise: str = 'set --out to another folder') -> Path:
    """Returns a folder; raises UserError unless it can be made and written."""
    existing = next(filter(os.path.exists, (folder, *folder.absolute().parents)))
    if not (os.path.isdir(existing) and os.access(existing, os.W_OK)):
        raise UserError(f'{folder} cannot be written; {otherwise}')
    return folder
