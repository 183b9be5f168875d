"""Tables of groups and of runs, that scripts sort, filter and copy."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from neptune_jax.reporting import comparisons, statistics
from neptune_jax.reporting.grouping import shown
from neptune_jax.reporting.page import charts
from neptune_jax.reporting.page.markup import Markup, escape, fixed, join, name, number, tag
from neptune_jax.reporting.page.views import View, mark
from neptune_jax.reporting.run_record import Record

MAX_GROUPS, MAX_RUNS = 200, 1000
_STRIP_WIDTH = 180


def groups(view: View) -> Markup | None:
    """Returns the table of groups: every seed, mean, deviation, number and interval."""
    if not view.has_seeds:
        return None
    found = [comparisons.summarize(each, view.metric) for each in view.groups[:MAX_GROUPS]]
    everything = [value for each in found for value in each.values.values()]
    scale = charts.axis(everything, 6, _STRIP_WIDTH - 6)
    has_error = any(math.isfinite(each.binomial_error) for each in found)
    has_between = any(math.isfinite(each.between.distribution) for each in found)
    head = ['Group', view.metric, 'deviation', 'n', '95% interval', 'every run']
    head += ['± test images'] if has_error else []
    head += ['deviation, distribution'] if has_between else []
    is_complete = all(each.unfinished == 0 for each in found)
    head += [] if is_complete else ['not finished']
    rows = []
    for place, each in enumerate(found):
        mean, label = each.mean, each.group.label
        interval = f'{fixed(mean.low)} to {fixed(mean.high)}' if math.isfinite(mean.low) else '–'
        dots = [(value, f'{_run(key)}: {fixed(value)}') for key, value in each.values.items()]
        title = f'{label}: {", ".join(text for _, text in dots)}'
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
        note += ' ± test images: the standard error because these images are a sample.'
    if has_between:
        note += (
            ' Deviation, distribution: estimated between runs on all images that one could test '
            'on (Jordan, 2023).'
        )
    return table('groups', head, rows, note=note)


def runs(view: View) -> Markup:
    """Returns the table of runs, with their fields, seeds and results."""
    fields = [field for field in view.fields if _is_short(view, field)]
    standard_error = _standard_errors(view)
    head = ['Run', *fields, 'seed', 'status', 'best val accuracy', view.metric]
    head += ['± binomial'] if standard_error else []
    head += ['epochs', 'images/s', 'seconds']
    place_of = {id(run): place for place, each in enumerate(view.groups) for run in each.records}
    rows = []
    for record in view.runs[:MAX_RUNS]:
        color = view.color(place_of[id(record)])
        own = view.short_name(record)
        cells = [Cell(mark(color, own) if len(view.groups) > 1 else name(own), own)]
        for field in fields:
            value = record.value(field)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            cells.append(Cell(shown(value), value if is_number else shown(value), is_number))
        best = record.value('best/accuracy')
        result = record.value(view.metric)
        cells += [
            Cell(shown(record.config.get('seed')), record.config.get('seed'), is_number=True),
            Cell(_status(record), record.status),
            _number(best),
            _number(result),
        ]
        if standard_error:
            cells.append(Cell(fixed(standard_error.get(id(record))), None, is_number=True))
        for key, digits in (('epochs', 3), ('images_per_second', 4), ('train_seconds', 4)):
            value = record.value(key)
            cells.append(Cell(number(value, digits), value, is_number=True))
        rows.append(cells)
    count = len(view.runs)
    note = f'The first {MAX_RUNS:,} of {count:,} runs.' if count > MAX_RUNS else ''
    return table('runs', head, rows, note=note)


class Cell:
    """A cell of a table: what is shown, and the value by which rows are sorted and copied."""

    __slots__ = ('content', 'is_number', 'value')

    def __init__(self, content: Any, value: Any, is_number: bool = False) -> None:
        self.content, self.value, self.is_number = content, value, is_number


def table(
    key: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    note: str = '',
    class_: str = 'table tall',
) -> Markup:
    """Returns a table with what filters and copies it; the first cell of a row is its header.

    Args:
        key: names the table in the page.
        head: the names of the columns.
        rows: of cells. A value that says more than the cell shows goes with it.
        note: under the table.
        class_: of the box around the table.
    """
    rows, label = list(rows), key.capitalize()
    key = f'table-{key}'  # sections have names too
    numeric = [bool(rows) and rows[0][column].is_number for column in range(len(head))]
    titles = (
        tag('th', _breakable(text), scope='col', class_='n' if right else None)
        for text, right in zip(head, numeric, strict=True)
    )
    # Optional end tags are left out: a thousand rows have ten thousand of them.
    body = Markup(''.join(f'<tr>{"".join(map(_cell, range(len(row)), row))}' for row in rows))
    tools = tag(
        'div',
        tag('label', 'Filter', tag('input', type='search', size=16, data_filter=key)),
        tag('span', data_count=key, class_='quiet', role='status'),
        tag('span', class_='gap'),
        *(
            tag('button', f'Copy {form}', type='button', data_copy=key, data_form=form)
            for form in ('Markdown', 'LaTeX', 'CSV')
        ),
        class_='tools',
        hidden=True,
    )
    content = tag('table', tag('thead', tag('tr', *titles)), tag('tbody', body), id=key)
    box = tag('div', content, class_=class_, tabindex=0, role='region', aria_label=label)
    return join((tools, box, tag('p', note, class_='quiet') if note else None))


def _breakable(text: str) -> Markup:
    """Returns the name of a field or result, in which lines may break behind a dot or a slash."""
    return Markup(re.sub(r'(?<=[./])(?=\w{3})', '<wbr>', escape(text)))


def _number(value: float | None) -> Cell:
    return Cell(fixed(value), value, is_number=True)


def _cell(column: int, cell: Cell) -> str:
    shown_text, value = escape(cell.content), cell.value
    kind = ' class=n' if cell.is_number else ''
    extra = ''
    if isinstance(value, float) and math.isfinite(value):
        exact = f'{value:.6g}'
        extra = '' if exact == shown_text else f' data-v={exact}'
    elif isinstance(value, str) and isinstance(cell.content, Markup):
        extra = f' data-v="{escape(value)}"' if column and value else ''
    if column == 0:
        return f'<th scope=row{kind}{extra}>{shown_text}'
    return f'<td{kind}{extra}>{shown_text}'


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
