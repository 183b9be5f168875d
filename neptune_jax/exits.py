"""How the process of a command starts and ends: standard streams, Ctrl-C, exit status.

`python -m neptune_jax.NAME` prepares its process before it imports anything else. The package does
nothing of this kind to a process that imports it.
"""

import atexit
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

CTRL_C_STATUS = 130  # what a shell reports for a program that Ctrl-C has ended

_interrupted: list[tuple[int, BaseException]] = []  # the exit status, and why the command ends


def prepare() -> None:
    """Prepares the process of a command.

    Output that cannot be written is dropped, because nobody who reads it, or has stopped reading
    it, should end a training. Ctrl-C ends the process at once; `interruptible` changes that.
    """
    if isinstance(sys.stdout, _Output):
        return
    _open_standard_files()
    sys.stdout = _Output.instead_of(sys.stdout, 1)
    sys.stderr = _Output.instead_of(sys.stderr, 2)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup may have set it
        signal.signal(signal.SIGINT, _end_at_once)
    sys.unraisablehook = _end_if_interrupted
    atexit.register(_end_interrupted)  # the first to be registered is the last to run


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, so that what is half done is removed.

    Outside, while libraries are imported, it would not reach the top: some of them catch it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not _end_at_once:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_interrupted(status: int, error: BaseException) -> NoReturn:
    """Ends a command that was interrupted, without destroying what threads may still use.

    A signal does not stop XLA's threads. One of them may be compiling, and crashes with JAX 0.10 if
    its client is destroyed meanwhile. So the objects that the frames of `error` refer to are kept,
    and the process ends before Python destroys all objects; but after threads have been joined and
    the functions of `atexit` have run, which end child processes and remove temporary files.
    """
    _interrupted.append((status, error))
    sys.exit(status)


def at_once(status: int) -> NoReturn:
    """Ends the process now. Threads are not waited for, and functions of `atexit` do not run."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the signal may have interrupted a write
            stream.flush()
    os._exit(status)


def _end_interrupted():
    if _interrupted:
        at_once(_interrupted[0][0])


def _end_at_once(number, frame):
    at_once(CTRL_C_STATUS)


def _end_if_interrupted(unraisable):
    """Ends the process if KeyboardInterrupt was raised where Python lets no exception propagate."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        at_once(CTRL_C_STATUS)
    sys.__unraisablehook__(unraisable)


def _open_standard_files():
    """Opens /dev/null for each standard stream that is closed.

    Otherwise the next file that is opened, such as metrics.jsonl, would get the number of that
    stream, and what libraries print would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)


class _Output(io.TextIOWrapper):
    """A standard stream that drops what cannot be written: a closed pipe, a full disk."""

    @classmethod
    def instead_of(cls, stream: Any, number: int) -> '_Output':
        """Returns such a stream with the settings of `stream`, None if that was closed."""
        # The name of a class that a terminal cannot show must not end a training either.
        errors = 'backslashreplace'
        if stream is None:
            return cls(open(number, 'wb'), 'utf-8', errors)
        encoding, by_line, at_once = stream.encoding, stream.line_buffering, stream.write_through
        return cls(stream.detach(), encoding, errors, None, by_line, at_once)

    def write(self, text: str) -> int:
        """Writes text, or drops it."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error):
        if not isinstance(error, BlockingIOError):  # a slow reader may still read the next line
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
