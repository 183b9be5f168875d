"""Where the records of a run can be replayed: a small file each, with one interface.

A sink's module has `open_sink(record)`, a context manager that yields an object with

    address             where a person finds the run
    has(key)            whether a series or a value of this name is there already
    log(key, points)    appends points (step, seconds since 1970, finite number) to a series
    assign(values)      sets values by key: None, bool, int, float, str or list
    upload(key, path)   copies a file there
    flush()             returns when all of this has arrived

`open_sink` and `flush` raise Unreachable for what time may mend, and UserError for what it will
not. Whatever a sink is given may be given again after a crash; it is to be there once. Another sink
is another such file and a line in SINKS.
"""

import contextlib
import importlib
from pathlib import Path
from typing import NamedTuple

from neptune_jax.errors import UserError

# What each needs to have installed.
SINKS = {
    'neptune': 'neptune>=1.14,<2',
    'tensorboard': 'tensorboardX',
    'mlflow': 'mlflow',
}


class Unreachable(UserError):
    """The sink cannot be reached now."""


class Record(NamedTuple):
    """What a sink is told of a run."""

    workdir: Path
    id: str  # of at most 36 characters; the same whenever the run is replayed
    name: str
    description: str
    tags: list
    project: str  # '': as the environment says
    hardware: bool  # whether to watch the processor and the memory of this machine meanwhile
    checkpoint: bool  # whether the best checkpoint is sent too


@contextlib.contextmanager
def open_sink(name, record):
    """Opens the sink `name` for a Record; UserError where its package is not installed."""
    with contextlib.ExitStack() as stack:
        try:
            module = importlib.import_module(f'neptune_jax.tracking.sinks.{name}')
            sink = stack.enter_context(module.open_sink(record))
        except ModuleNotFoundError as error:
            raise UserError(
                f'--to={name} needs a package that is not installed ({error.name}); '
                f"pip install '{SINKS[name]}'"
            ) from error
        yield sink
