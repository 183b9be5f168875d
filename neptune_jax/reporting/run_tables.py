"""Tables of runs, of groups and of comparisons, as texts that any format can take."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from neptune_jax.reporting.comparisons import Comparison, Summary
from neptune_jax.reporting.grouping import SEED, named_fields, shown
from neptune_jax.reporting.run_record import Record

_SEEDS_SHOWN = 20
_NOTHING = '-'
_METHODS = {
    'paired': 'pairs',  # of the same seeds
    'welch': 'Welch',
    'mcnemar': 'McNemar',
    '': _NOTHING,
}


class Column(NamedTuple):
    """A column of a table."""

    name: str
    is_number: bool = False
    is_detail: bool = False  # left out where there is little room


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of plain texts.

    Attributes:
        title: what its rows are.
        columns: their names.
        rows: a text for each column.
    """

    title: str
    columns: tuple[Column, ...]
    rows: list[list[str]]


def runs_table(records: Sequence[Record], metric: str, now: float) -> Table:
    """Returns the table of runs: what differs, the status, the progress, results, the age.

    Args:
        records: of runs.
        metric: a result that is shown, such as 'test/accuracy'.
        now: the time in seconds since 1970.
    """
    names = short_names(records)
    fields = [
        field
        for field in (*named_fields(records), SEED)
        if not all(f'{field}=' in name for name in names)
        and len({shown(record.value(field)) for record in records}) > 1
    ]
    numbers = [field for field in fields if _is_numeric(records, field)]
    columns = [Column('run'), *(Column(field, field in numbers) for field in fields)]
    columns += [Column('status'), Column('done', True), Column('best val/accuracy', True)]
    if metric != 'val/accuracy':
        columns.append(Column(metric, True))
    is_live = any(record.workdir for record in records)  # the age of a record tells nothing
    columns += [Column('age', True)] if is_live else []
    rows = []
    for name, record in zip(names, records, strict=True):
        row = [name, *(shown(record.value(field)) for field in fields)]
        row += [record.status, percent(record.progress), number(record.best_validation)]
        if metric != 'val/accuracy':
            row.append(number(record.value(metric)))
        if is_live:
            row.append(age(now - record.updated) if record.updated else _NOTHING)
        rows.append(row)
    return Table('runs', tuple(columns), rows)


def groups_table(summaries: Sequence[Summary]) -> Table:
    """Returns the table of groups: mean, deviation, interval and each value by its seed."""
    metric = summaries[0].metric if summaries else ''
    named = summaries[0].group.named if summaries else ()
    records = [record for each in summaries for record in each.group.records]
    columns = [Column(field, _is_numeric(records, field)) for field in named] or [Column('group')]
    # A narrow terminal shows the values of the seeds in the table of the runs.
    columns += [Column('runs', True), Column(metric, True), Column('95% interval', True)]
    columns.append(Column('by seed', is_detail=True))
    has_error = any(not math.isnan(each.binomial_error) for each in summaries)
    has_between = any(not math.isnan(each.between.distribution) for each in summaries)
    columns += [Column('error of the images', True)] if has_error else []
    columns += [Column('deviation of the true accuracy', True)] if has_between else []
    rows = []
    for each in summaries:
        group, mean = each.group, each.mean
        spread = '' if math.isnan(mean.deviation) else f' ± {number(mean.deviation)}'
        runs = f'{mean.n} of {mean.n + each.unfinished}' if each.unfinished else str(mean.n)
        row = [shown(group.fields[field]) for field in named] or [group.label]
        row += [runs, f'{number(mean.mean)}{spread}', interval(mean.low, mean.high)]
        row.append(_by_seed(each.values))
        row += [number(each.binomial_error)] if has_error else []
        row += [number(each.between.distribution)] if has_between else []
        rows.append(row)
    return Table('groups', tuple(columns), rows)


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Returns the table of comparisons, without those that are refused."""
    made = [each for each in comparisons if not each.refusal]
    named = {each.a.named for each in made} | {each.b.named for each in made}
    # Where one field makes the groups, its values are enough.
    field = next(iter(named))[0] if len(named) == 1 and len(next(iter(named))) == 1 else ''
    columns = [Column(f'{field}: {side}' if field else side) for side in 'AB']
    columns += [Column('A - B', True), Column('95% interval', True)]
    has_many = sum(not math.isnan(each.p_value) for each in made) > 1
    columns += [Column('test'), Column('p', True, has_many)]
    columns += [Column('p (Holm)', True)] if has_many else []
    has_pairs = any(each.method == 'paired' for each in made)
    has_runs = any(not math.isnan(each.superiority) for each in made)
    columns += [Column('p (sign flips)', True, True)] if has_pairs else []
    columns += [Column('P(A better)', True)] if has_runs else []
    rows = []
    for each in made:
        sides = (each.a, each.b)
        row = [shown(side.fields[field]) if field else side.label for side in sides]
        row.append(number(each.difference, sign=True))
        row.append(interval(each.low, each.high, sign=True))
        row += [_METHODS[each.method], p_value(each.p_value)]
        row += [p_value(each.adjusted)] if has_many else []
        row += [p_value(each.sign_flip_p)] if has_pairs else []
        if has_runs:
            text = interval(each.superiority_low, each.superiority_high, digits=2)
            share = number(each.superiority, digits=2)
            row.append(_NOTHING if share == _NOTHING else f'{share} ({text})')
        rows.append(row)
    return Table('comparisons', tuple(columns), rows)


def short_names(records: Sequence[Record]) -> list[str]:
    """Returns the names of runs without the folder that all of them share."""
    names = [record.name for record in records]
    if len(names) < 2:
        return names
    folders = zip(*(name.split('/')[:-1] for name in names), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, folders))
    return ['/'.join(name.split('/')[shared:]) for name in names]


def number(value: Any, *, sign: bool = False, digits: int = 4) -> str:
    """Returns a number with a fixed number of digits, or less of them if it is large."""
    if not isinstance(value, int | float) or math.isnan(value):
        return _NOTHING
    plus = '+' if sign else ''
    return f'{value:{plus}.{digits}f}' if abs(value) < 100 else f'{value:{plus},.1f}'


def interval(low: float, high: float, *, sign: bool = False, digits: int = 4) -> str:
    """Returns an interval such as '0.9012 to 0.9100'."""
    if math.isnan(low) or math.isnan(high):
        return _NOTHING
    low_text, high_text = (number(each, sign=sign, digits=digits) for each in (low, high))
    return f'{low_text} to {high_text}'


def p_value(value: float) -> str:
    """Returns a p-value with two significant digits."""
    if math.isnan(value):
        return _NOTHING
    if value >= 0.1:
        return f'{value:.2f}'
    return f'{value:.2g}' if value >= 0.0001 else '<0.0001'


def percent(share: float) -> str:
    """Returns a share as a percentage. It is 100% for nothing less than all."""
    return _NOTHING if math.isnan(share) else f'{math.floor(100 * share)}%'


def age(seconds: float) -> str:
    """Returns a length of time in its largest unit: '3 min'."""
    for unit, length in (('d', 86400), ('h', 3600), ('min', 60)):
        if seconds >= length:
            return f'{int(seconds / length):,} {unit}'
    return f'{max(0, int(seconds))} s'


def _by_seed(values):
    parts = [f'{key}: {number(value)}' for key, value in values.items()]
    more = f', {len(parts) - _SEEDS_SHOWN} more' if len(parts) > _SEEDS_SHOWN else ''
    return ', '.join(parts[:_SEEDS_SHOWN]) + more


def _is_numeric(records, field):
    values = [record.value(field) for record in records]
    return all(value is None or isinstance(value, int | float) for value in values)
