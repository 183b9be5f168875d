"""Lines, tables and progress on a terminal, optionally copied into a file."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Table

_MIN_WIDTH = 40  # characters; a table shows nothing in less
_SILENT_SECONDS = 2  # what takes no longer shows no progress
_LINE_SECONDS = 10  # between two lines of progress


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


def to_stderr() -> None:
    """From now on everything is printed on stderr: stdout is left to what programs read."""
    console.stderr = True


@contextlib.contextmanager
def counted(total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many more are done, and shows the progress.

    A bar on a terminal, a line now and then elsewhere; nothing in the first two seconds.

    Args:
        total: how many there are; None if that is not known.
        unit: what they are, such as 'images'.
    """
    began, shown_at, done = time.monotonic(), time.monotonic(), 0
    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=console, transient=True)
    task = bar.add_task('', total=total)

    def advance(count: int) -> None:
        nonlocal shown_at, done
        done += count
        now = time.monotonic()
        bar.update(task, completed=done)
        if now - began < _SILENT_SECONDS:
            return
        if shows_bars():
            bar.start()
        elif now - shown_at >= _LINE_SECONDS or shown_at == began:
            shown_at = now
            of_all = f' of {total:,}' if total is not None else ''
            line(f'{done:,}{of_all} {unit}, {done / (now - began):,.0f} a second')

    try:
        yield advance
    finally:
        if bar.live.is_started:  # else it would print an empty line
            bar.stop()
