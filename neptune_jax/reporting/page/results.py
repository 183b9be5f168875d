"""The tables of groups and of runs, and of the metrics of a single run."""

import math
import os
from collections.abc import Sequence
from typing import Any

from neptune_jax.reporting import comparisons, statistics
from neptune_jax.reporting.grouping import shown
from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, fixed, join, name, number, tag
from neptune_jax.reporting.page.table import MAX_EXACT, MAX_SIZE, Cell, table
from neptune_jax.reporting.page.views import View, mark
from neptune_jax.reporting.run_record import Record

MAX_GROUPS = 200
_MAX_NAMED = 60  # groups whose runs are named in the picture of a row
_MAX_SIZE_GROUPS = 65_000  # characters of the table
# Results beside the metrics: their names in the table of runs, and their formats.
_COLUMNS = {
    'epochs': ('epochs', '.3g'),
    'images_per_second': ('images/s', ',.0f'),
    'train_seconds': ('seconds', ',.1f'),
}
_STRIP_WIDTH = 180


def tables(view: View) -> Markup:
    """Returns the tables of groups and of runs. Together they have a limited size."""
    first = _groups(view)
    if first is None:
        return _runs(view, MAX_SIZE)
    return join((first, tag('h3', 'Runs'), _runs(view, max(MAX_SIZE // 2, MAX_SIZE - len(first)))))


def _groups(view: View) -> Markup | None:
    """Returns the table of groups: every seed, mean, deviation, number and interval."""
    if not view.has_seeds:
        return None
    found = [comparisons.summarize(each, view.metric) for each in view.groups[:MAX_GROUPS]]
    everything = [value for each in found for value in each.values.values()]
    scale = charts.axis(everything, 6, _STRIP_WIDTH - 6)
    has_error = any(math.isfinite(each.binomial_error) for each in found)
    has_between = any(math.isfinite(each.between.distribution) for each in found)
    head = ['Group', view.metric, 'deviation', 'n', '95% interval', 'every run']
    head += ['error of the images'] if has_error else []
    head += ['deviation of the true accuracy'] if has_between else []
    is_complete = all(each.unfinished == 0 for each in found)
    head += [] if is_complete else ['not finished']
    rows = []
    for place, each in enumerate(found):
        mean, label = each.mean, each.group.label
        interval = f'{fixed(mean.low)} to {fixed(mean.high)}' if math.isfinite(mean.low) else '–'
        dots = [(value, f'{_run(key)}: {fixed(value)}') for key, value in each.values.items()]
        title = label
        if len(found) <= _MAX_NAMED:
            title += f': {", ".join(text for _, text in dots)}'
        strip = charts.strip(
            dots,
            scale,
            title,
            mean=mean.mean,
            interval=(mean.low, mean.high),
            color=view.color(place),
        )
        cells = [
            Cell(mark(view.color(place), label), label),
            _number(mean.mean),
            _number(mean.deviation),
            Cell(mean.n, mean.n, is_number=True),
            Cell(interval, mean.low, is_number=True),
            Cell(strip, ' '.join(fixed(value) for value in each.values.values())),
        ]
        cells += [_number(each.binomial_error)] if has_error else []
        cells += [_number(each.between.distribution)] if has_between else []
        cells += [] if is_complete else [Cell(_others(each.group.records), '')]
        rows.append(cells)
    note = ''
    if len(view.groups) > MAX_GROUPS:
        note = f'The {MAX_GROUPS} best of {len(view.groups):,} groups. '
    note += "Interval of the mean: Student's t."
    if has_error:
        note += ' Error of the images: the binomial standard error, because they are a sample.'
    if has_between:
        note += (
            ' Deviation of the true accuracy: estimated for all images that one could test '
            'on (Jordan, 2023).'
        )
    return table('groups', head, rows, note=note, limit=_MAX_SIZE_GROUPS)


def _runs(view: View, limit: int) -> Markup:
    """Returns the table of runs: fields, seeds and results; `limit` is of its characters."""
    fields = [field for field in view.fields if _is_short(view, field)]
    standard_error = _standard_errors(view) if len(view.runs) <= MAX_EXACT else {}
    columns = [each for each in _COLUMNS if _differ(view, each)]
    has_seed = _differ(view, 'seed')
    head = ['Run', *fields, *(['seed'] if has_seed else []), 'status', 'best val accuracy']
    head += [view.metric, *(['error of the images'] if standard_error else [])]
    head += [_COLUMNS[each][0] for each in columns]
    place_of = {id(run): place for place, each in enumerate(view.groups) for run in each.records}
    rows = []
    for record in view.runs:
        color = view.color(place_of[id(record)])
        own = view.short_name(record)
        label = name(own) if color is None or len(view.groups) == 1 else mark(color, own)
        cells = [Cell(label, own)]
        for field in fields:
            value = record.value(field)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            text = number(value) if is_number else shown(value)
            cells.append(Cell(text, value if is_number else text, is_number))
        best = record.value('best/accuracy')
        result = record.value(view.metric)
        if has_seed:
            seed = record.config.get('seed')
            cells.append(Cell(shown(seed), seed, is_number=True))
        cells += [Cell(_status(record), record.status), _number(best), _number(result)]
        if standard_error:
            cells.append(Cell(fixed(standard_error.get(id(record))), None, is_number=True))
        for key in columns:
            value = record.value(key)
            text = format(value, _COLUMNS[key][1]) if isinstance(value, int | float) else '–'
            cells.append(Cell(text, None, is_number=True))
        rows.append(cells)
    return table('runs', head, rows, limit=limit)


def metrics(record: Record) -> Markup | None:
    """Returns the table of all metrics of a run, of each split; None if it has none."""
    splits = {'test': 'test', 'val': 'validation'}
    found = {split: record.summary.get(split) or {} for split in splits}
    names = list(dict.fromkeys(key for own in found.values() for key in own))
    if not names:
        return None
    head = ['metric', *(text for split, text in splits.items() if found[split])]
    rows = []
    for key in names:
        values = [own.get(key) for own in found.values() if own]
        shown = [f'{v:,}' if isinstance(v, int) else fixed(v) for v in values]
        cells = [Cell(text, v, is_number=True) for text, v in zip(shown, values, strict=True)]
        rows.append([Cell(key, key), *cells])
    note = f'Of the {record.checkpoint} checkpoint.' if record.checkpoint else ''
    return table('metrics', head, rows, note=note, class_='table narrow')


def _number(value: float | None) -> Cell:
    return Cell(fixed(value), value, is_number=True)


def _status(record: Record) -> Any:
    if record.status in ('failed', 'interrupted'):
        return tag('span', record.status, class_='bad')
    if record.status == 'running' and math.isfinite(record.progress):
        return f'running, {record.progress:.0%}'
    return record.status


def _others(records: Sequence[Record]) -> str:
    """Returns how many runs of a group are not finished, by status."""
    found: dict[str, int] = {}
    for record in records:
        if record.status != 'finished':
            found[record.status] = found.get(record.status, 0) + 1
    return ', '.join(f'{count} {status}' for status, count in found.items())


def _run(key: Any) -> str:
    return f'seed {key}' if isinstance(key, int) else os.path.basename(str(key))


def _differ(view: View, key: str) -> bool:
    """Whether runs have different values of a field or result."""
    return len({str(record.value(key)) for record in view.runs}) > 1


def _is_short(view: View, field: str) -> bool:
    """Whether the values of a field fit into a column."""
    return max(len(shown(record.value(field))) for record in view.runs) <= 40


def _standard_errors(view: View) -> dict[int, float]:
    """Returns the binomial standard error of each run's accuracy, by the id of its record."""
    split, _, key = view.metric.partition('/')
    found = {}
    for record in view.runs if key == 'accuracy' else ():
        value, count = record.value(view.metric), record.value(f'{split}/count')
        if value is not None and count:
            found[id(record)] = statistics.binomial_error(value, count)
    return found
