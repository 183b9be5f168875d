"""Turns the queues that the Neptune client left on a disk into run directories.

Beside what every run directory holds, these have

import.json        the queues, how much of them is lost or left out, where each artifact comes from
"""

import errno
import os
import re
import shutil
from pathlib import Path

from neptune_jax.errors import UserError
from neptune_jax.runs import files
from neptune_jax.tracking.offline.queues import find, read
from neptune_jax.tracking.offline.replay import Replay


def import_offline(source, out):
    """Writes a run directory for each run whose queue is found.

    Series of numbers become the rows of metrics.jsonl. Values and sets of strings go into
    config.json where they are under `config/` or `parameters/`, else into summary.json. Images,
    series of texts, and files that still exist become artifacts. A key that has the name of
    something else there gets an underscore behind it: `step`, `time`, `status`.

    Importing again brings the same directories up to date. What was copied then stays as it is,
    even where its original has changed or is gone. The source is only read.

    Args:
        source: a `.neptune` folder, or the folder of one queue in it.
        out: the folder for the run directories. They are named by sys/name and container id.

    Returns:
        The run directories, a list of Paths.

    Raises:
        UserError: there is no queue; something cannot be read or written; a directory is taken, or
            holds more than there is to import now. The runs before that one are written.
    """
    source, out = Path(source).resolve(), Path(out).resolve()
    if out.is_relative_to(source):
        raise UserError(f'{out} is inside of {source}, which is left as it is; choose another')
    try:
        found = find(source)
        files = sorted(out.glob('*/import.json'))
        earlier = {str(read(path, dict).get('container')): path.parent for path in files}
        folders = {queue.folder for queues in found.values() for queue in queues}
        skipped = folders | {*earlier.values()}
        return [
            _import(container, queues, out, earlier.get(container), skipped)
            for container, queues in found.items()
        ]
    except OSError as error:
        reason = f'{error.filename or out}: {error.strerror}'
        raise UserError(f'the import ended at {reason}; mend that and import again') from error


def _import(container, queues, out, target, skipped):
    """Writes the directory of a run, `target` where an earlier import has made it; returns it."""
    before = read(target / 'import.json', dict) if target else {}
    run = Replay(queues, skipped)
    name = str(run.values.pop('sys/name', ''))
    name = '' if name == 'Untitled' else name  # what the client gives to a run without one
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


def _new_target(out, name, queue):
    """Makes the directory of a run that has never been imported to there."""
    name = _file_name(name)[:60] if name else 'run'
    target = out / f'{name}-{_file_name(queue.container)[:8]}'
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f'{target} exists and is no import of {queue.folder}; move it away')
    target.mkdir(parents=True, exist_ok=True)
    return target


def _refuse_less(queues, before):
    """Raises UserError where an earlier import had operations that there are no more."""
    operations = {queue.folder.name: queue.operations for queue in queues}
    for queue in before.get('queues', []):
        if operations.get(Path(queue['folder']).name, 0) < queue['operations']:
            raise UserError(
                f'an earlier import had more of {queue["folder"]}; give the folder that holds all '
                'queues of the run, or import what is left to another folder'
            )


def _rows(numbers):
    """Returns the rows of metrics.jsonl: those points of all series that have one step."""
    rows = {}
    for key, points in numbers.items():
        name = _free(f'{key}_', numbers) if key in ('step', 'time') else key
        for step, time, value in points:
            row = rows.setdefault(step, {'step': step, 'time': time})
            row['time'] = min(row['time'], time)
            row[name] = value
    return [rows[step] for step in sorted(rows)]


def _status(run, queues):
    """Returns what summary.json says of the end of the run, as far as it can be known."""
    if run.values.pop('sys/failed', False) is True:
        tracebacks = [key for key in run.texts if re.fullmatch('monitoring/[^/]+/traceback', key)]
        lines = [point.value for key in tracebacks for point in run.texts[key]]
        # The lines of the message follow the entries of the stack.
        stack = [i for i, line in enumerate(lines) if line.startswith('  File "')]
        message = ' '.join(lines[stack[-1] + 1 :] if stack else lines)
        return {'status': 'failed', 'error': ' '.join(message.split())}
    lost = max(queues, key=lambda queue: queue.ended).lost
    if lost:
        error = f'killed, or still running; operations that never reached the disk: {lost}'
        return {'status': 'failed', 'error': error}
    return {'status': 'finished'}


def _config_and_summary(run):
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
    """Turns {'a/b': 1} into {'a': {'b': 1}}; what is below a value keeps its key."""
    nested = {}
    for key in sorted(values):
        group, names = nested, key.split('/')
        while len(names) > 1 and isinstance(group.setdefault(names[0], {}), dict):
            group = group[names.pop(0)]
        group['/'.join(names)] = values[key]
    return nested


def _with_fields(values, **fields):
    """Returns the values with more fields; what has the name of one gets another."""
    for name in sorted(fields.keys() & values.keys()):
        values[_free(f'{name}_', values)] = values.pop(name)
    return fields | values


def _write_artifacts(run, folder, before):
    """Writes the files of a run. What an earlier import has copied stays.

    Returns:
        What is known of each artifact, a dict by name, and of the files that are lost, a list.
    """
    before = {name: about for name, about in before.items() if (folder / name).is_file()}
    copied = {_origin(about) for about in before.values()}
    written, lost = {}, []
    for name, about, data in run.files():
        name = _free('/'.join(map(_file_name, name.split('/'))), written)
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
    """Writes a file atomically: the data, or a copy of the source."""
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
    """Returns a text as a file's name that is not hidden: no slashes, nothing unprintable."""
    return re.sub(r'^\.+|[\0-\x1f\x7f/\\\ud800-\udfff]', '_', text) or '_'


def _free(name, taken):
    """Returns a name that is not taken: the name, or with underscores before its extension."""
    stem, ext = os.path.splitext(name)
    while f'{stem}{ext}' in taken:
        stem += '_'
    return f'{stem}{ext}'
