"""What ends a command early: a mistake that the user can correct, or a signal."""

import contextlib
import errno
import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Exit status of a run that a signal ended: EX_TEMPFAIL of sysexits.h. A scheduler may start the
# same command again; the run then continues.
PREEMPTED_STATUS = 75


class UserError(Exception):
    """A mistake that the user can correct. The message says what, where, and what to do."""


class Preempted(BaseException):
    """The run was asked to stop and has saved its state. The message names the signal.

    Like KeyboardInterrupt it is no Exception: it may be raised anywhere, and code that handles the
    errors of a library must not take it for one.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of NumPy, JAX or the system says that memory is used up."""
    if isinstance(error, MemoryError) or getattr(error, 'errno', None) == errno.ENOMEM:
        return True
    # JAX's errors are RuntimeErrors with the text of XLA, which has several forms.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        'RESOURCE_EXHAUSTED' in text or 'out of memory' in text.lower()
    )


def one_line(error: BaseException, limit: int = 300) -> str:
    """Returns the message of an exception of any library as one short line; else its type."""
    return ' '.join(str(error).split())[:limit] or type(error).__name__


def check_choice(name: str, names: Iterable[str], field: str) -> None:
    """Raises UserError, listing the choices, unless `name` is one of `names`."""
    names = tuple(names)
    if name not in names:
        raise UserError(f'{field}={name!r} is unknown; choose one of: {", ".join(names)}')


def choose(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Returns `table[name]`; raises UserError, listing the choices, for an unknown name."""
    check_choice(name, table, field)
    return table[name]


def choose_or_import(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Returns `table[name]`, or the object that a name such as 'package.module:name' refers to.

    Args:
        table: the objects that the package itself offers.
        name: a key of the table, or a module's import path and a name in it.
        field: the config field that holds the name, for error messages.

    Raises:
        UserError: an unknown key, a module that cannot be imported, or a name that it lacks.
    """
    if ':' not in name:
        if name not in table:
            raise UserError(
                f'{field}={name!r} is unknown; choose one of: {", ".join(table)}; or write '
                "'package.module:name' for one of your own"
            )
        return table[name]
    module_name, _, attribute = name.partition(':')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the module, which may raise anything
        raise UserError(
            f'{field}={name!r}: cannot import {module_name!r}: {one_line(error)}'
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise UserError(f'{field}={name!r}: {module_name} has no {attribute!r}')
    if not callable(found):
        raise UserError(f'{field}={name!r} is of type {type(found).__name__}; it cannot be called')
    return found


@contextlib.contextmanager
def using(field: str, name: str) -> Iterator[None]:
    """Turns an exception of an object that a config names into a UserError with its file and line.

    Args:
        field: the config field that holds the name.
        name: 'package.module:name'. What has no colon is the package's own, whose exceptions pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if ':' not in name:
            raise
        frames = traceback.extract_tb(error.__traceback__)
        module = sys.modules.get(name.partition(':')[0])
        own = [frame for frame in frames if frame.filename == getattr(module, '__file__', None)]
        where = (own or frames)[-1]
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:500]
        raise UserError(
            f'{field}={name!r} does not work: {reason} ({where.filename}, line {where.lineno})'
        ) from error
