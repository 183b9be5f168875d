"""What ends a command early: a mistake that the user can correct, or a signal."""

import importlib
from collections.abc import Iterable, Mapping
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
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, ValueError) as error:
        raise UserError(f'{field}={name!r}: cannot import {module_name!r}: {error}') from error
    except AttributeError as error:
        raise UserError(f'{field}={name!r}: {module_name} has no {attribute!r}') from error
