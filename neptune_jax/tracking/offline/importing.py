"""Makes run directories from the queues of the Neptune client.

Each of them has one file more than other run directories:

import.json        the queues, what was lost or left out, and the origin of each artifact
"""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

from neptune_jax.errors import UserError
from neptune_jax.runs import files
from neptune_jax.tracking.offline.content import Content
from neptune_jax.tracking.offline.queues import Queue, find, read_json


def import_offline(source: str | Path, out: str | Path) -> list[Path]:
    """Writes a run directory for each run that has a queue in a folder.

    Series of numbers become the rows of metrics.jsonl. Values and sets of strings go into
    config.json if their key starts with `config/` or `parameters/`, otherwise into summary.json.
    Images, series of texts, and uploaded files that still exist become artifacts. If a key is the
    name of something that these files have anyway (`step`, `time`, `status`), it gets an
    underscore at its end.

    A second import updates the same directories. Artifacts that were copied then stay as they are,
    even if the original has changed or no longer exists. The source is only read.

    Args:
        source: a `.neptune` folder, or the folder of one queue in it.
        out: the folder for the run directories. Their names are sys/name and the container id.

    Returns:
        The run directories.

    Raises:
        UserError: there is no queue; something cannot be read or written; a directory is taken, or
            an earlier import had more operations. Runs before that one have been written.
    """
    source, out = Path(source).resolve(), Path(out).resolve()
    if out.is_relative_to(source):
        raise UserError(f'{out} is inside of {source}, which is only read; choose another folder')
    try:
        found = find(source)
        reports = sorted(out.glob('*/import.json'))
        earlier = {str(read_json(path, dict).get('container')): path.parent for path in reports}
        folders = {queue.folder for queues in found.values() for queue in queues}
        skipped = folders | {*earlier.values()}
        return [
            _import(container, queues, out, earlier.get(container), skipped)
            for container, queues in found.items()
        ]
    except OSError as error:
        reason = f'{error.filename or out}: {error.strerror}'
        raise UserError(f'the import ended at {reason}; correct that and import again') from error


def _import(container, queues, out, target, skipped):
    """Writes the directory of one run and returns it.

    `target` is the directory that an earlier import has made, or None.
    """
    before = read_json(target / 'import.json', dict) if target else {}
    run = Content(queues, skipped)
    name = str(run.values.pop('sys/name', ''))
    name = '' if name == 'Untitled' else name  # the client's name for a run without one
    _refuse_less(queues, before)
    if not target:
        target = _new_target(out, name, queues[0])
        files.write_json(target / 'import.json', {'container': container})
    (target / 'artifacts').mkdir(exist_ok=True)

    artifacts, lost = _write_artifacts(run, target / 'artifacts', before.get('artifacts', {}))
    rows = _rows(run.numbers)
    files.replace(target / 'metrics.jsonl', ''.join(files.dumps(row) + '\n' for row in rows))
    neptune = {
        'name': name or target.name,
        'description': run.values.pop('sys/description', ''),
        'tags': sorted(run.sets.pop('sys/tags', ())),
    }
    status = _status(run, queues)
    config, summary = _config_and_summary(run)
    files.write_json(target / 'config.json', _with_fields(config, neptune=neptune))
    files.write_json(target / 'summary.json', _with_fields(summary, **status))
    metadata = queues[0].metadata
    environment = {
        'python': metadata.get('pythonVersion'),
        'packages': {'neptune': metadata.get('neptuneClientVersion')},
        'platform': metadata.get('os'),
    }
    files.write_json(target / 'environment.json', environment)
    report = {
        'container': container,
        'queues': [queue.describe() for queue in queues],
        'operations_left_out': run.left_out,
        'points_left_out': run.points_left_out,
        'files_lost': lost,
        'artifacts': artifacts,
    }
    files.write_json(target / 'import.json', report)
    return target


def _new_target(out: Path, name: str, queue: Queue) -> Path:
    """Creates the directory of a run that was never imported to `out`."""
    name = _file_name(name)[:60] if name else 'run'
    target = out / f'{name}-{_file_name(queue.container)[:8]}'
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f'{target} exists and is no import of {queue.folder}; move it away')
    target.mkdir(parents=True, exist_ok=True)
    return target


def _refuse_less(queues: list[Queue], before: dict[str, Any]) -> None:
    """Raises UserError if an earlier import had operations that the queues no longer have."""
    operations = {queue.folder.name: queue.operations for queue in queues}
    for queue in before.get('queues', []):
        if operations.get(Path(queue['folder']).name, 0) < queue['operations']:
            raise UserError(
                f'an earlier import had more of {queue["folder"]}; give the folder that holds all '
                'queues of the run, or import what is left to another folder'
            )


def _rows(numbers):
    """Returns the rows of metrics.jsonl: a row holds the points of all series at one step."""
    rows = {}
    for key, points in numbers.items():
        name = _free_name(f'{key}_', numbers) if key in ('step', 'time') else key
        for step, time, value in points:
            row = rows.setdefault(step, {'step': step, 'time': time})
            row['time'] = min(row['time'], time)
            row[name] = value
    return [rows[step] for step in sorted(rows)]


def _status(run, queues):
    """Returns the fields of summary.json that say how the run ended, as far as that is known."""
    if run.values.pop('sys/failed', False) is True:
        tracebacks = [key for key in run.texts if re.fullmatch('monitoring/[^/]+/traceback', key)]
        lines = [point.value for key in tracebacks for point in run.texts[key]]
        # The message follows the last entry of the stack.
        stack = [i for i, line in enumerate(lines) if line.startswith('  File "')]
        message = ' '.join(lines[stack[-1] + 1 :] if stack else lines)
        return {'status': 'failed', 'error': ' '.join(message.split())}
    lost = max(queues, key=lambda queue: queue.ended).lost
    if lost:
        error = f'killed, or still running; operations that never reached the disk: {lost}'
        return {'status': 'failed', 'error': error}
    return {'status': 'finished'}


def _config_and_summary(run):
    """Returns the values of a run as two nested dicts: the config, and the rest."""
    config, summary = {}, {}
    values = run.values | {key: sorted(texts) for key, texts in run.sets.items()}
    for key, value in sorted(values.items()):
        group, _, name = key.partition('/')
        if group in ('config', 'parameters') and name:
            config[key if name in config else name] = value
        else:
            summary[key] = value
    return _nest(config), _nest(summary)


def _nest(values):
    """Turns {'a/b': 1} into {'a': {'b': 1}}. A key below a value stays whole: 'a/b' if 'a' is 1."""
    nested = {}
    for key in sorted(values):
        group, names = nested, key.split('/')
        while len(names) > 1 and isinstance(group.setdefault(names[0], {}), dict):
            group = group[names.pop(0)]
        group['/'.join(names)] = values[key]
    return nested


def _with_fields(values, **fields):
    """Returns the values and the fields; a value with the name of a field gets another name."""
    for name in sorted(fields.keys() & values.keys()):
        values[_free_name(f'{name}_', values)] = values.pop(name)
    return fields | values


def _write_artifacts(run, folder, before):
    """Writes the files of a run. Files that an earlier import has copied stay.

    Returns:
        What is known about each artifact, a dict by name; what is known about lost files, a list.
    """
    before = {name: about for name, about in before.items() if (folder / name).is_file()}
    copied = {_origin(about) for about in before.values()}
    written, lost = {}, []
    for name, about, data in run.files():
        name = _free_name('/'.join(map(_file_name, name.split('/'))), written)
        if data is None and about.items() <= before.get(name, {}).items():
            written[name] = before[name]
            continue
        try:
            _write(folder / name, data, about.get('file'))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if data is not None or _origin(about) not in copied:
                lost.append(about | {'reason': error.strerror})
            continue
        if data is None and 0 < about['at'] < os.path.getmtime(about['file']):
            about['changed_since'] = True
        written[name] = about
    return dict(sorted((before | written).items())), lost


def _origin(about):
    return about['attribute'], about.get('pattern'), about.get('at')


def _write(path, data, source):
    """Writes a file atomically: the data, or a copy of the file `source` if there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name('.unfinished')
    try:
        if data is not None:
            unfinished.write_bytes(data)
        elif os.path.isfile(source):
            shutil.copyfile(source, unfinished)
        else:
            raise FileNotFoundError(errno.ENOENT, 'there is no such file')
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _file_name(text):
    """Returns a text as the name of a visible file, without slashes and control characters."""
    return re.sub(r'^\.+|[\0-\x1f\x7f/\\\ud800-\udfff]', '_', text) or '_'


def _free_name(name, taken):
    """Returns a name that is not taken; it may get underscores before its extension."""
    stem, ext = os.path.splitext(name)
    while f'{stem}{ext}' in taken:
        stem += '_'
    return f'{stem}{ext}'
