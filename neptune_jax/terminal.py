"""Lines and tables on a terminal, optionally copied into a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
_copies: list[Console] = []  # consoles that write to files


@contextlib.contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Appends everything that is printed inside the context to a file as well."""
    with path.open('a') as file:
        _copies.append(Console(file=file, highlight=False, width=100))
        try:
            yield
        finally:
            _copies.pop()


def line(text: str) -> None:
    """Prints a line."""
    for each in (console, *_copies):
        each.print(text, soft_wrap=True, markup=False)


def progress_line(text: str) -> None:
    """Prints a line of progress, except on a terminal, where a progress bar shows the same."""
    for each in _copies if console.is_terminal else (console, *_copies):
        each.print(text, soft_wrap=True, markup=False)


def table(content: Table) -> None:
    """Prints a rich Table."""
    for each in (console, *_copies):
        each.print(content)
