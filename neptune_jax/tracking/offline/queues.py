"""Reads the queues that the Neptune client leaves on a disk, without the client.

In its modes `offline` and `async`, the client (1.x) writes what it has not sent yet to

    .neptune/{offline,async}/run__<container id>__<process id>__<random>/
        data-<first version>.log    one operation per line; versions number them from 1
        last_put_version            of the last operation that the program made
        last_ack_version            of the last one that a server has acknowledged; may be empty
        metadata.json               version of the client, operating system, time of the start
        upload_path/                contents of files that the program gave without a path

All queues with one container id belong to one run: a program that forks leaves several.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from neptune_jax.errors import UserError

# What reading raises for content of a shape that the client does not write.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)

_Kind = TypeVar('_Kind', int, dict)


class Operation(NamedTuple):
    """One line of a queue: a change to one attribute of a run."""

    at: float  # when the program made it, in seconds since 1970
    type: str  # the client's name for the kind of change, such as 'LogFloats'
    key: str  # the attribute, such as 'train/loss'
    fields: dict[str, Any]  # the rest, which depends on the type
    folder: Path  # of the queue


class Queue:
    """A folder of operations.

    Attributes:
        folder: its path.
        metadata: the content of metadata.json.
        container: the container id, which identifies the run.
        operations: how many operations have been read.
        ended: when the last of them was made, in seconds since 1970.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = read_json(folder / 'metadata.json', dict)
        self.container = str(self.metadata.get('containerId') or folder.name.split('__')[:2][-1])
        self.operations = 0
        self.ended = 0.0
        self._last_put = read_json(folder / 'last_put_version', int)
        self._last_acknowledged = read_json(folder / 'last_ack_version', int)
        self._last_read = 0
        self._lines_repeated = 0
        self._lines_unreadable = 0

    def read(self) -> Iterator[Operation]:
        """Yields the operations in their order, each of them once."""
        logs = self.folder.glob('data-[0-9]*.log')
        for log in sorted(logs, key=lambda path: (len(path.name), path.name)):
            with log.open('rb') as file:
                for line in file:
                    if operation := self._parse(line):
                        yield operation

    def _parse(self, line):
        """Returns the Operation in a line; None if it cannot be read or is there already."""
        try:
            data = json.loads(line)
            version, fields = int(data['version']), data['obj']
            at, key = float(data.get('at') or 0), '/'.join(fields['path'])
            operation = Operation(at, str(fields['type']), key, fields, self.folder)
        except MALFORMED:
            self._lines_unreadable += 1
            return None
        if version <= self._last_read:
            # After os.fork(), the child also writes what the parent had in its buffer.
            self._lines_repeated += 1
            return None
        self._last_read = version
        self.operations += 1
        self.ended = max(self.ended, at)
        return operation

    @property
    def lost(self) -> int:
        """How many operations at the end are neither in the queue nor on a server."""
        return max(self._last_put - max(self._last_read, self._last_acknowledged), 0)

    def describe(self) -> dict[str, Any]:
        """Returns what import.json says about the queue, once it has been read."""
        return {
            'folder': str(self.folder),
            'created': self.metadata.get('createdAt'),
            'operations': self.operations,
            'operations_lost': self.lost,
            'operations_sent': self._last_acknowledged,  # the client has deleted some or all
            'lines_repeated': self._lines_repeated,
            'lines_unreadable': self._lines_unreadable,
        }


def find(source: Path) -> dict[str, list[Queue]]:
    """Returns the queues in a folder by container id, the oldest first.

    Raises:
        UserError: there is none.
    """
    queues = [Queue(path.parent) for path in sorted(source.rglob('last_put_version'))]
    if not queues:
        raise UserError(
            f'{source} holds no queue of the Neptune client (a folder with last_put_version); '
            'give a .neptune folder, or a queue in it'
        )
    by_container: dict[str, list[Queue]] = {}
    for queue in sorted(queues, key=lambda queue: str(queue.metadata.get('createdAt'))):
        by_container.setdefault(queue.container, []).append(queue)
    return by_container


def read_json(path: Path, kind: type[_Kind]) -> _Kind:
    """Returns the int or dict in a JSON file; 0 or {} if the file does not have one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()
