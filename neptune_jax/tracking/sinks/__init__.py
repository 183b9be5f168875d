"""Trackers that runs can be sent to: one module each, behind the interface `Sink`.

To add a tracker, write a module here with a context manager `open_sink(record)` that yields a
Sink, and add a line to SINKS. A tracker that is not part of this package needs no line:
`--to=package.module:open_sink` uses it. docs/tracking.md has an example.
"""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from neptune_jax.errors import UserError, choose_or_import

# By name: what pip has to install for it.
SINKS = {
    'neptune': 'neptune>=1.14,<2',
    'tensorboard': 'tensorboardX',
    'mlflow': 'mlflow',
}

Value = None | bool | int | float | str | list


class Point(NamedTuple):
    """A point of a series."""

    step: float
    time: float  # seconds since 1970
    value: float  # finite


class Record(NamedTuple):
    """What `open_sink` is told about a run."""

    workdir: Path
    id: str  # at most 36 characters; always the same for the same run directory
    name: str
    description: str
    tags: list[str]
    project: str  # empty: the environment decides
    hardware: bool  # whether to record the load of this machine while the sink is open
    checkpoint: bool  # whether the best checkpoint will be sent


class Sink(Protocol):
    """A run on a tracker, open for writing.

    A sender that was killed sends again what had perhaps arrived: with the same Record.id, and the
    same points, values and files. The tracker must hold each of them once.

    `open_sink` and the methods raise Unreachable if a later attempt may succeed, and UserError if
    the user has to do something first.
    """

    address: str  # where a person finds the run

    def has(self, key: str) -> bool:
        """Whether the tracker already holds a series or a value with this key."""

    def log(self, key: str, points: Sequence[Point]) -> None:
        """Appends points to a series."""

    def assign(self, values: dict[str, Value]) -> None:
        """Sets values by key. None replaces a value that the run no longer has."""

    def upload(self, key: str, path: Path) -> None:
        """Copies a file to the tracker."""

    def flush(self) -> None:
        """Waits until everything above has arrived."""


class Unreachable(UserError):
    """The tracker does not answer at the moment."""


@contextlib.contextmanager
def open_sink(name: str, record: Record) -> Iterator[Sink]:
    """Opens a run on a tracker.

    Args:
        name: a key of SINKS, or 'package.module:open_sink'.
        record: what the tracker is told about the run.

    Raises:
        Unreachable: the tracker does not answer at the moment.
        UserError: it cannot be used, or its package is not installed.
    """
    with contextlib.ExitStack() as stack:
        try:
            if name in SINKS:
                opener = importlib.import_module(f'{__name__}.{name}').open_sink
            else:
                opener = choose_or_import(SINKS, name, '--to')
            sink = stack.enter_context(opener(record))
        except ModuleNotFoundError as error:
            hint = f"; pip install '{SINKS[name]}'" if name in SINKS else ''
            raise UserError(
                f'--to={name} needs a package that is not installed ({error.name}){hint}'
            ) from error
        yield sink
