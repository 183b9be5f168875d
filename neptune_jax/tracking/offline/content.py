"""The content of a run, put together from the operations in its queues: values, series, files."""

import base64
import collections
import glob
import heapq
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from neptune_jax.runs import files
from neptune_jax.tracking.offline.queues import MALFORMED, Queue


class _Point(NamedTuple):
    step: float
    time: float  # seconds since 1970
    value: Any


class Content:
    """What the operations of a run result in.

    Args:
        queues: all queues of the run; they are read.
        skipped: folders that are no part of the run, even if a pattern of its uploads matches.

    Attributes:
        values: by key: bool, number or string; dates are strings.
        sets: by key: set of strings.
        numbers, texts, images: by key: list of points with strictly increasing steps.
        uploads: by key: a dict from the names of files to what is known about them.
        left_out: by type: how many operations have no effect on the above.
        points_left_out: by key: how many points were dropped because the step did not increase.
    """

    def __init__(self, queues: list[Queue], skipped: set[Path]) -> None:
        self.skipped = skipped
        self.values: dict[str, Any] = {}
        self.sets: dict[str, set[str]] = {}
        self.numbers: dict[str, list[_Point]] = {}
        self.texts: dict[str, list[_Point]] = {}
        self.images: dict[str, list[_Point]] = {}
        self.uploads: dict[str, dict[str, dict]] = {}
        self.left_out: collections.Counter[str] = collections.Counter()
        self.points_left_out: collections.Counter[str] = collections.Counter()
        for operation in heapq.merge(*(queue.read() for queue in queues), key=lambda op: op.at):
            try:
                _OPERATIONS[operation.type](self, operation)
            except MALFORMED:  # includes the KeyError of an unknown type
                self.left_out[operation.type] += 1

    def files(self) -> Iterator[tuple[str, dict[str, Any], bytes | None]]:
        """Yields each file: its name, what is known about it, its content.

        The content of an upload is None: `file` says where to copy it from.
        """
        for key, uploads in self.uploads.items():
            for name, about in uploads.items():
                yield name, {'attribute': key} | about, None
        for key, points in self.images.items():
            for step, time, (data, about) in points:
                about = {'attribute': key, 'step': step, 'time': time} | about
                yield f'{key}/{step}.png', about, data
        for key, points in self.texts.items():
            lines = ''.join(files.dumps(point._asdict()) + '\n' for point in points)
            yield f'{key}.jsonl', {'attribute': key}, lines.encode()


def _assign(run, operation):
    value = operation.fields['value']
    if not isinstance(value, str | int | float):
        raise TypeError(value)
    run.values[operation.key] = value


def _assign_datetime(run, operation):
    time = datetime.fromtimestamp(operation.fields['value'] / 1000, UTC)
    run.values[operation.key] = time.isoformat(timespec='milliseconds')


def _add_strings(run, operation):
    run.sets.setdefault(operation.key, set()).update(map(str, operation.fields['values']))


def _remove_strings(run, operation):
    run.sets[operation.key].difference_update(operation.fields['values'])


def _log(kind, convert):
    """Returns a function that applies an operation to the series of one kind."""

    def apply(run, operation):
        points = getattr(run, kind).setdefault(operation.key, [])
        for point in operation.fields['values']:
            step, time, value = point.get('step'), float(point['ts']), convert(point['value'])
            if step is None:  # the server would number the points
                step = points[-1].step + 1 if points else 0
            step = int(step) if step == int(step) else float(step)
            if points and step <= points[-1].step:
                run.points_left_out[operation.key] += 1
            else:
                points.append(_Point(step, time, value))

    return apply


def _image(value):
    data = base64.b64decode(value['data'], validate=True)
    if not data:
        raise ValueError('the image was too large for the client')
    return data, {name: value[name] for name in ('name', 'description') if value.get(name)}


def _upload_file(run, operation):
    fields, key = operation.fields, operation.key
    path = fields['file_path'] or operation.folder / 'upload_path' / fields['tmp_file_name']
    ext = f'.{fields["ext"]}' if fields.get('ext') else ''
    name = key if key.endswith(ext) else key + ext
    run.uploads[key] = {name: {'file': str(path), 'at': operation.at}}


def _upload_files(run, operation):
    fields, key = operation.fields, operation.key
    uploads = run.uploads.setdefault(key, {})
    if fields.get('reset') == 'True':
        uploads.clear()
    # The client names the files relative to the working directory of the program. That is usually
    # the folder which holds .neptune.
    home = operation.folder.parent.parent.parent
    for pattern in fields['file_globs']:
        for path in _matches(pattern, run.skipped) or [Path(pattern)]:
            name = path.relative_to(home if path.is_relative_to(home) else path.anchor)
            about = {'pattern': pattern, 'file': str(path), 'at': operation.at}
            uploads[f'{key}/{name}'] = about


def _matches(pattern, skipped):
    """Returns the files that match a pattern. A folder stands for all files below it."""
    paths = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        paths += sorted(Path(path).rglob('*')) if os.path.isdir(path) else [Path(path)]
    return [path for path in paths if path.is_file() and skipped.isdisjoint(path.parents)]


def _remove(run, operation):
    for kind in (run.values, run.sets, run.numbers, run.texts, run.images, run.uploads):
        kind.pop(operation.key, None)


# By the client's name for the type. These are missing, because their content is on a server only or
# has no place in a run directory: CopyAttribute, AssignArtifact, TrackFilesToArtifact, DeleteFiles,
# ConfigFloatSeries.
_OPERATIONS = {
    'AssignFloat': _assign,
    'AssignInt': _assign,
    'AssignBool': _assign,
    'AssignString': _assign,
    'AssignDatetime': _assign_datetime,
    'AddStrings': _add_strings,
    'RemoveStrings': _remove_strings,
    'ClearStringSet': _remove,
    'LogFloats': _log('numbers', float),
    'LogStrings': _log('texts', str),
    'LogImages': _log('images', _image),
    'ClearFloatLog': _remove,
    'ClearStringLog': _remove,
    'ClearImageLog': _remove,
    'UploadFile': _upload_file,
    'UploadFileSet': _upload_files,
    'DeleteAttribute': _remove,
}
