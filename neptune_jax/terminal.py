"""Lines and tables on a terminal, optionally copied into a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_MIN_WIDTH = 40  # characters; a table shows nothing in less


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Drops all further output. Rich would end the process."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


def new_console(**options: Any) -> Console:
    """Returns a rich Console. It has the width that $COLUMNS gives, unless that shows nothing."""
    # Names of files and classes appear as they are: [red] is no colour and :cat: no picture.
    new = _Console(highlight=False, markup=False, emoji=False, **options)
    if new.width < _MIN_WIDTH:
        new.width = 80
    return new


console = new_console()
_copies: list[Console] = []  # consoles that write to files


@contextlib.contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Appends everything that is printed inside the context to a file as well."""
    with path.open('a', encoding='utf-8') as file:
        _copies.append(new_console(file=file, width=100))
        try:
            yield
        finally:
            _copies.pop()


def shows_bars() -> bool:
    """Whether the output can show a progress bar: it is a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def line(text: str) -> None:
    """Prints a line."""
    for each in (console, *_copies):
        each.print(text, soft_wrap=True)


def progress_line(text: str) -> None:
    """Prints a line of progress, except where a progress bar shows the same."""
    for each in _copies if shows_bars() else (console, *_copies):
        each.print(text, soft_wrap=True)


def table(content: Table) -> None:
    """Prints a rich Table."""
    for each in (console, *_copies):
        each.print(content)
