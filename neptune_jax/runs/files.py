"""JSON files of a run directory: written atomically, with NaN and infinities as strings; locks."""

import contextlib
import fcntl
import functools
import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neptune_jax.errors import UserError


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file as it stands there, or {} if there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def write_json(path: Path, value: Any) -> None:
    """Writes a value as a JSON file, atomically."""
    replace(path, dumps(value, indent=2) + '\n')


def replace(path: Path, text: str) -> None:
    """Writes a file, or replaces its content, atomically."""
    unfinished = path.with_name(f'.{path.name}.unfinished')
    try:
        with unfinished.open('w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        if not (is_disk_full(error) and path.is_file()):
            raise
        # The disk has no room for a second copy. The blocks of a small file have room for its new
        # content, so overwrite it in place.
        with path.open('r+', encoding='utf-8') as file:
            file.write(text)
            file.truncate()


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that the disk, or the user's quota, has no room left."""
    # TensorStore, which Orbax writes with, passes on the system's message without its number.
    messages = ('No space left on device', 'Disk quota exceeded')
    return any(message in str(error) for message in messages)


def expand_user(path: str, name: str) -> str:
    """Returns a path in which the home folder replaces a leading '~' or '~USER'.

    Args:
        path: the path, as the user has written it.
        name: the flag or field that holds it, for the message.

    Raises:
        UserError: a URL, there is no such user, nothing says where the home folder is, or no file
            can have such a path.
    """
    if '://' in path:
        raise UserError(f'{name}={path} is a URL; give a path in a file system of this machine')
    expanded = os.path.expanduser(path)
    if expanded.startswith('~'):
        user = path[1:].partition('/')[0]
        if not user:
            raise UserError(f'{name}={path}: the home folder is unknown; set {name} or HOME')
        raise UserError(
            f'{name}={path}: there is no user {user!r}; write ./{path} for a folder of that name'
        )
    try:
        os.stat(expanded)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links
        raise UserError(f'{name}={path} cannot be used: {error.args[-1]}') from error
    return expanded


def check_characters(path: str | Path, name: str = '') -> None:
    """Raises UserError for a folder whose absolute path has bytes that are no characters.

    Orbax and array_record can neither write nor read there.

    Args:
        path: the folder.
        name: what the message starts with, such as '--workdir='.
    """
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f'{name}{os.fspath(path)!a}: its path has bytes that are no characters (in UTF-8), '
            'which libraries cannot write to; choose another folder'
        ) from error


def flatten(nested: dict, separator: str = '/') -> dict[str, Any]:
    """Turns {'a': {'b': 1}} into {'a/b': 1}. Empty dicts disappear."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            below = flatten(value, separator).items()
            flat |= {f'{key}{separator}{name}': item for name, item in below}
        else:
            flat[key] = value
    return flat


def loads(text: str | bytes) -> Any:
    """Returns a value from JSON as `dumps` writes it."""
    return restore(json.loads(text))


_SPECIAL = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}


def restore(value: Any) -> Any:
    """Turns the strings 'NaN', 'Infinity' and '-Infinity' in a JSON value back into numbers."""
    if isinstance(value, dict):
        return {key: restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore(item) for item in value]
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


def encode(value: Any) -> Any:
    """Returns a value as `json.loads` would read it from what `dumps` writes."""
    return json.loads(dumps(value))


def dumps(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON. JSON has no NaN or infinity: they become strings of these names."""
    encoder = _encoder(indent)
    try:
        return encoder.encode(value)  # almost always enough, and a row of metrics must be cheap
    except (TypeError, ValueError):
        return encoder.encode(_plain(value))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, 'tolist'):  # arrays and scalars of NumPy and JAX
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return 'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'
    return value


@functools.cache
def _encoder(indent):
    return json.JSONEncoder(indent=indent, allow_nan=False)


@contextlib.contextmanager
def locked(path: Path, busy: str = '%s holds the lock', wait: bool = False) -> Iterator[None]:
    """Holds the lock of a file, which is created. The system releases it when the process dies.

    Args:
        path: the file.
        busy: the message if another process holds the lock; %s becomes the name of that process.
        wait: whether to wait for the lock instead.

    Raises:
        UserError: another process holds the lock.
    """
    with path.open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or 'another process'
            raise UserError(busy.replace('%s', holder)) from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield
