"""The queues that the Neptune client leaves on a disk, read without the client.

In its modes `offline` and `async` the client (1.x) keeps what it has yet to send in

    .neptune/{offline,async}/run__<container id>__<process id>__<random>/
        data-<first version>.log    an operation a line; versions count them from 1
        last_put_version            of the last operation that the program handed over
        last_ack_version            of the last one that a server has taken; it may be empty
        metadata.json               version of the client, system, when it began
        upload_path/                contents of files that had no path of their own

The queues of one container id are one run: a program that forks leaves several.
"""

import json
from pathlib import Path
from typing import NamedTuple

from neptune_jax.errors import UserError

# What reading raises where something does not have the shape that the client writes.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class Operation(NamedTuple):
    """A line of a queue."""

    at: float  # when the program handed it over, seconds since 1970
    type: str  # the client's name for what it does
    key: str  # what it does it to: 'train/loss'
    fields: dict  # the rest, which depends on the type
    folder: Path  # of the queue


class Queue:
    """A folder of operations. What it counts is known when they have been read."""

    def __init__(self, folder):
        self.folder = folder
        self.metadata = read(folder / 'metadata.json', dict)
        self.container = str(self.metadata.get('containerId') or folder.name.split('__')[:2][-1])
        self.operations = 0
        self.ended = 0.0  # when the last operation was handed over
        self._put = read(folder / 'last_put_version', int)
        self._acknowledged = read(folder / 'last_ack_version', int)
        self._last = self._repeated = self._unreadable = 0

    def read(self):
        """Yields the operations in their order, each once."""
        logs = self.folder.glob('data-[0-9]*.log')
        for log in sorted(logs, key=lambda path: (len(path.name), path.name)):
            with log.open('rb') as file:
                for line in file:
                    if operation := self._parse(line):
                        yield operation

    def _parse(self, line):
        try:
            data = json.loads(line)
            version, fields = int(data['version']), data['obj']
            at, key = float(data.get('at') or 0), '/'.join(fields['path'])
            operation = Operation(at, str(fields['type']), key, fields, self.folder)
        except MALFORMED:
            self._unreadable += 1
            return None
        if version <= self._last:
            # A child of os.fork() writes once more what its parent had yet to flush.
            self._repeated += 1
            return None
        self._last = version
        self.operations += 1
        self.ended = max(self.ended, at)
        return operation

    @property
    def lost(self):
        """How many operations at the end are neither here nor on a server."""
        return max(self._put - max(self._last, self._acknowledged), 0)

    def describe(self):
        return {
            'folder': str(self.folder),
            'created': self.metadata.get('createdAt'),
            'operations': self.operations,
            'operations_lost': self.lost,
            'operations_sent': self._acknowledged,  # of these, some or all are not here any more
            'lines_repeated': self._repeated,
            'lines_unreadable': self._unreadable,
        }


def find(source):
    """Returns the queues in a folder, oldest first: a dict of lists, by container id."""
    queues = [Queue(path.parent) for path in sorted(source.rglob('last_put_version'))]
    if not queues:
        raise UserError(
            f'{source} holds no queue of the Neptune client (a folder with last_put_version); '
            'give a .neptune folder, or a queue in it'
        )
    by_container = {}
    for queue in sorted(queues, key=lambda queue: str(queue.metadata.get('createdAt'))):
        by_container.setdefault(queue.container, []).append(queue)
    return by_container


def read(path, kind):
    """Returns the int or dict in a JSON file; an empty one where there is none to be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()
