"""Reading many runs for a report: run directories, sweeps, and files of records.

A run is read while it trains, and nothing of it is written or locked. What is damaged or foreign
becomes a Record with a `problem`.
"""

import contextlib
import functools
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from neptune_jax import defaults
from neptune_jax.errors import UserError, one_line
from neptune_jax.reporting import compact
from neptune_jax.reporting.compact import from_json, to_json
from neptune_jax.reporting.grouping import Group, differing, group
from neptune_jax.reporting.run_record import Record
from neptune_jax.runs import files

__all__ = ['Group', 'Record', 'differing', 'from_json', 'group', 'read', 'to_json']

ROWS, ROWS_OF_ALL = 1000, 100_000  # that are read of a run of each kind, and of all runs together
_DEPTH = 6  # folders below a given one in which runs are searched
_ENVIRONMENT = 'command python processor cpu_count packages platform devices driver git'.split()
_DATA = 'source mode sizes sha256 classes image_shape'.split()


def read(paths: Iterable[str | os.PathLike[str]]) -> list[Record]:
    """Returns the records of run directories, of folders of runs, and of files of records.

    A run that is found twice is read once. Long runs are thinned.

    Args:
        paths: directories of runs, folders in which runs are searched, or .jsonl files.

    Raises:
        UserError: there is no such path, or a file of records cannot be read.
    """
    found: list[Record | tuple[str, bool]] = []
    seen: set[str] = set()
    for path in [os.fspath(each) for each in paths]:
        if os.path.isdir(path):
            found += _search(path, seen)
        elif not os.path.exists(path):
            raise UserError(f'{path}: there is no such directory or file')
        elif not path.endswith('.jsonl'):  # as `runs/*` may name it
            found.append(Record(path, problem='is neither a directory nor a .jsonl file'))
        else:
            try:
                found += compact.read(Path(path))
            except OSError as error:
                raise UserError(f'{path} cannot be read: {one_line(error)}') from error
    count = sum(not isinstance(each, Record) for each in found)
    rows = max(50, min(ROWS, ROWS_OF_ALL // max(count, 1)))
    return [each if isinstance(each, Record) else _read_run(*each, rows) for each in found]


def _search(folder: str, seen: set[str], depth: int = 0) -> Iterator[tuple[str, bool]]:
    """Yields (path, whether it is a run) of the runs in a folder.

    A folder in which there is none, directly below a given one, is yielded as well.
    """
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            names = {entry.name: entry.is_dir() for entry in entries}
    except OSError:  # not for us, or gone meanwhile
        names = {}
    if 'config.json' in names or 'trial.json' in names:
        yield folder, True
        return
    below = [name for name in sorted(names) if names[name] and not name.startswith('.')]
    inside: list[tuple[str, bool]] = []
    for name in below if depth < _DEPTH else ():
        inside += _search(os.path.join(folder, name), seen, depth + 1)
    yield from inside
    if depth <= 1 and not inside:
        yield folder, False


def _read_run(folder: str, is_run: bool, limit: int) -> Record:
    """Returns the Record of a directory, with at most `limit` rows of each kind."""
    if not is_run:
        return Record(folder, folder, problem='holds no run: there is no config.json')
    workdir, problems = Path(folder), []

    def read_object(name: str) -> dict:
        try:
            value = files.read_json(workdir / name)
            if not isinstance(value, dict):
                raise ValueError('it holds no JSON object')
            return value
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f'{name} cannot be read: {one_line(error, 120)}')
            return {}

    config = _config(read_object('config.json'))
    summary = files.restore(read_object('summary.json'))
    environment = read_object('environment.json')
    trial = _trial(workdir, read_object('trial.json'))
    try:
        rows, problem = _read_rows(workdir / 'metrics.jsonl', limit, summary)
    except OSError as error:
        rows, problem = (), f'metrics.jsonl cannot be read: {one_line(error, 120)}'
    problems += [problem] if problem else []
    if not config and not problems:
        problems.append('has not begun: there is no config.json')
    if not (config.keys() & defaults.FIELDS.keys() or summary or rows) and not problems:
        config, problems = {}, ['holds no run: config.json is of something else']
    return Record(
        name=folder,
        workdir=folder,
        status=_status(workdir, summary),
        updated=_updated(workdir, rows),
        config=config,
        summary=summary,
        environment=_compact_environment(environment),
        rows=rows,
        artifacts=_artifacts(workdir),
        trial=trial,
        problem='; '.join(problems),
    )


def _config(nested):
    """Returns the flat config. A field that is newer than the run has its default."""
    flat = files.flatten(nested, '.')
    special = ('NaN', 'Infinity', '-Infinity')
    for field, value in flat.items():
        known = defaults.FIELDS.get(field)
        if isinstance(value, list) or (value in special and not (known and known.type is str)):
            flat[field] = files.restore(value)
    return _defaults() | flat if flat.keys() & defaults.FIELDS.keys() else flat


@functools.cache
def _defaults():
    return {
        field: value
        for name, known in defaults.FIELDS.items()
        for field, value in files.flatten({name: files.encode(known.default)}, '.').items()
        if field != 'model.name'
    }


def _read_rows(path: Path, limit: int, summary: dict) -> tuple[tuple[dict, ...], str]:
    """Returns the rows, thinned before they are parsed, and what is wrong with them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return (), ''
    lines = content.split(b'\n')[:-1]  # a last line without its newline is torn
    best = summary.get('best')
    step = best.get('step') if isinstance(best, dict) else None
    start = f'{{"step": {step},'.encode()
    lines = compact.thinned(lines, limit, _is_validation, lambda line: line.startswith(start))
    problem = ''
    try:
        rows = json.loads(b'[' + b','.join(lines) + b']')
    except (ValueError, RecursionError):
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
    good = [row for row in rows if isinstance(row, dict) and isinstance(row.get('step'), int)]
    if len(good) < len(lines):
        problem = f'metrics.jsonl has lines that are no rows: {len(lines) - len(good)}'
    if b'NaN"' in content or b'Infinity"' in content:
        good = [files.restore(row) for row in good]
    return tuple(good), problem


def _is_validation(line):
    return b'"val/' in line


def _compact_environment(environment):
    compacted = {name: environment[name] for name in _ENVIRONMENT if name in environment}
    data = environment.get('data')
    if isinstance(data, dict):
        compacted['data'] = {name: data[name] for name in _DATA if name in data}
    return compacted


def _trial(workdir, trial):
    """Returns trial.json with the objective of the sweep, if it has one."""
    if not trial:
        return {}
    path = workdir.parent / 'sweep.json'
    with contextlib.suppress(OSError, ValueError, RecursionError):
        objective = _objective(path, path.stat().st_mtime_ns)
        return {**trial, 'objective': objective} if objective else trial
    return trial


@functools.lru_cache(maxsize=8)  # that of a large sweep takes time to read, and has many trials
def _objective(path: Path, changed: int) -> Any:
    value = files.read_json(path)
    return value.get('objective') if isinstance(value, dict) else None


def _status(workdir, summary):
    """Returns the status; 'interrupted' if the process that wrote the run is dead."""
    status = summary.get('status')
    if not isinstance(status, str):
        return 'waiting'
    if status != 'running':
        return status
    # To try the lock would disturb a run that starts at this moment.
    with contextlib.suppress(OSError, ValueError):
        _, process, _, host = (workdir / '.lock').read_text().split(' ', 3)
        if host == socket.gethostname():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                return 'interrupted'
    return status


def _updated(workdir, rows):
    """Returns when a run last wrote a row or its summary, in seconds since 1970."""
    times = [rows[-1].get('time')] if rows else []
    times = [each for each in times if isinstance(each, int | float)]
    for name in () if times else ('summary.json', 'config.json', 'trial.json'):
        with contextlib.suppress(OSError):
            times.append((workdir / name).stat().st_mtime)
    return float(max(times, default=0.0))


def _artifacts(workdir):
    with contextlib.suppress(OSError), os.scandir(workdir / 'artifacts') as entries:
        return tuple(sorted(f'artifacts/{entry.name}' for entry in entries))
    return ()
