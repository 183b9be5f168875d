"""Files of records: runs as compact lines of JSON that fit into a repository.

A file is made of blocks. The first line of a block has what all its runs share, `{"format": ...,
"shared": {"config": ..., "environment": ...}}`; each line after it is a run, without that. Files
can be joined with `cat`. Rows are kept as columns, thinned and rounded; a value that is in all rows
stands alone. What says where files lay on the machine, or where a run was sent, is left out.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neptune_jax.errors import one_line
from neptune_jax.reporting import predictions
from neptune_jax.reporting.run_record import Record, is_place
from neptune_jax.runs import files

FORMAT = 'neptune_jax records 1'
ROWS = 40  # of each kind, training and validation, that a record keeps
_DIGITS = 6  # significant ones, of the values in rows
_SHARED = ('config', 'environment')
# Fields that may name a folder of the machine; the last part of the path tells enough.
_PATHS = ('data.path', 'data.labels_path', 'checkpoint.restore_from')


def to_json(record: Record, rows: int = ROWS, with_correct: bool = True) -> dict[str, Any]:
    """Returns a record as a JSON value, complete in itself.

    Args:
        record: of a run, or of a directory that holds none.
        rows: how many of each kind are kept.
        with_correct: whether it tells which test images are classified correctly.
    """
    value = {
        'name': record.name,
        'status': record.status,
        'updated': round(record.updated, 3),
        'config': {
            field: _without_folder(field, item)
            for field, item in record.config.items()
            if not is_place(field)
        },
        'summary': dict(record.summary),
        'environment': _public(record.environment),
        'rows': _columns(thinned(record.rows, rows, _is_validation, _best_step(record.summary))),
        'correct': dict(predictions.pack(record)) if with_correct else {},
        'trial': _public_trial(record.trial),
        'problem': record.problem,
    }
    return {key: item for key, item in value.items() if item or key in ('name', 'config')}


def from_json(value: Any, shared: Mapping[str, Any] | None = None) -> Record:
    """Returns the Record that `to_json` wrote.

    Args:
        value: the JSON value.
        shared: what the first line of its block has.

    Raises:
        ValueError: it is no record.
    """
    value, shared = files.restore(value), files.restore(shared or {})
    if not isinstance(value, dict) or not isinstance(value.get('name'), str):
        raise ValueError('it has no name')
    for key in ('config', 'summary', 'environment', 'correct', 'trial'):
        if not isinstance(value.get(key, {}), dict) or not isinstance(shared.get(key, {}), dict):
            raise ValueError(f'its {key} is no object')
    is_run = 'config' in value  # a directory that holds no run shares nothing
    config, environment = (
        {**shared.get(key, {}), **value.get(key, {})} if is_run else {} for key in _SHARED
    )
    try:
        rows, updated = _rows(value.get('rows', [])), float(value.get('updated', 0))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'its rows are no columns: {one_line(error, 80)}') from error
    return Record(
        name=value['name'],
        status=str(value.get('status', '')),
        updated=updated,
        config=config,
        summary=value.get('summary', {}),
        environment=environment,
        rows=tuple(rows),
        correct=value.get('correct', {}),
        trial=value.get('trial', {}),
        problem=str(value.get('problem', '')),
    )


def lines(records: Iterable[Record], rows: int = ROWS) -> Iterator[str]:
    """Yields the lines of a file of records: a block of all of them."""
    values = [to_json(record, rows) for record in records]
    runs = [value for value in values if value['config']]
    shared = {key: _shared([value.get(key, {}) for value in runs]) for key in _SHARED}
    yield files.dumps({'format': FORMAT, 'shared': shared})
    for value in values:
        if not value['config']:
            del value['config']
        for key in _SHARED:
            own = value.get(key, {})
            if key in value:
                value[key] = {name: own[name] for name in own if name not in shared[key]}
        yield files.dumps(value)


def read(path: Path) -> list[Record]:
    """Returns the records in a file. A line that is none becomes a Record with a problem."""
    found, shared = [], {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if isinstance(value, dict) and 'format' in value:
                if value['format'] != FORMAT:
                    raise ValueError(f'its format is {value["format"]!r}, not {FORMAT!r}')
                shared = value['shared']
                continue
            found.append(from_json(value, shared))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            problem = f'line {number} is no record: {one_line(error, 120)}'
            found.append(Record(f'{path}:{number}', problem=problem))
    return found


def thinned(rows: Any, limit: int, is_validation: Any, best_step: Any = None) -> list:
    """Returns at most `limit` rows of each kind, evenly spaced, with the last ones and the best.

    Args:
        rows: rows, or their lines of text.
        limit: of the training's rows and, apart from them, of the validation's.
        is_validation: whether a row is of the validation.
        best_step: a function that says whether a row is the one of the best checkpoint.
    """
    if len(rows) <= limit or not limit:
        return list(rows) if limit else []
    kinds: tuple[list[int], list[int]] = [], []
    for number, row in enumerate(rows):
        kinds[is_validation(row)].append(number)
    chosen: set[int] = set()
    for numbers in kinds:
        step = max(1.0, len(numbers) / limit)
        # Counted from the end, so that the last row is one of them.
        chosen.update(numbers[-1 - int(i * step)] for i in range(int(len(numbers) / step)))
    if best_step:
        chosen.update(number for number in kinds[1] if best_step(rows[number]))
    return [rows[number] for number in sorted(chosen)]


def _is_validation(row):
    return any(key.startswith('val/') for key in row)


def _best_step(summary):
    best = summary.get('best')
    step = best.get('step') if isinstance(best, Mapping) else None
    return lambda row: row.get('step') == step


def _columns(rows):
    """Turns rows into one object of columns for each set of keys."""
    tables: dict[tuple, list] = {}
    for row in rows:
        tables.setdefault(tuple(row), []).append(row)
    return [
        {key: _column([_rounded(row[key], key) for row in own], key) for key in keys}
        for keys, own in tables.items()
    ]


def _column(values, key):
    is_constant = key != 'step' and all(value == values[0] for value in values)
    return values[0] if is_constant and not isinstance(values[0], list) else values


def _rows(tables):
    rows = []
    for table in tables:
        if not all(isinstance(step, int) for step in table['step']):
            raise ValueError('a step is no whole number')
        count = len(table['step'])
        columns = [
            value if isinstance(value, list) else [value] * count for value in table.values()
        ]
        rows += [dict(zip(table, values, strict=True)) for values in zip(*columns, strict=True)]
    return sorted(rows, key=lambda row: (row['step'], row.get('time', 0)))


def _rounded(value, key):
    if not isinstance(value, float) or key == 'time' or not math.isfinite(value):
        return value
    return float(f'{value:.{_DIGITS}g}')


def _shared(values):
    """Returns the items that all of some dicts have."""
    if not values:
        return {}
    first, *others = values

    def is_in(other, key, item):  # True is no 1 here
        return key in other and type(other[key]) is type(item) and other[key] == item

    return {
        key: item for key, item in first.items() if all(is_in(other, key, item) for other in others)
    }


def _without_folder(field, value):
    if field in _PATHS and isinstance(value, str) and os.path.isabs(value):
        return os.path.basename(value.rstrip('/'))
    return value


def _public(environment):
    """Returns an environment in which the command is as one types it, without places."""
    own = dict(environment)
    command = own.get('command')
    if isinstance(command, list) and command:
        program = Path(str(command[0]))
        start = [program.name]
        if program.suffix == '.py':
            start = ['python', '-m', f'{program.parent.name}.{program.stem}']
        own['command'] = [*start, *map(_without_folders, _without_places(command[1:]))]
    return own


def _without_places(arguments):
    """Yields the arguments of a command without the flags that say where something lies."""
    rest = iter(map(str, arguments))
    for argument in rest:
        name, sign, _ = argument.lstrip('-').replace('-', '_').partition('=')
        if name == 'workdir' or (name.startswith('config.') and is_place(name[7:])):
            if not sign:
                next(rest, None)  # its value
            continue
        yield argument


def _without_folders(argument):
    """Returns an argument whose absolute path has lost its folders, but the last of a program."""
    flag, sign, value = argument.rpartition('=')
    if not os.path.isabs(value):
        return argument
    path = Path(value)
    folder = f'{path.parent.name}/' if '.py' in path.name else ''
    return f'{flag}{sign}{folder}{path.name}'


def _public_trial(trial):
    own = {key: trial[key] for key in ('sweep', 'number', 'overrides', 'objective') if key in trial}
    if isinstance(own.get('overrides'), dict):
        own['overrides'] = {
            field: _without_folder(field, item)
            for field, item in own['overrides'].items()
            if not is_place(field)
        }
    return own
