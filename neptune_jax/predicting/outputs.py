"""Where rows of predictions go: a file that a killed command continues, or standard output."""

import collections
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Protocol

from neptune_jax import exits, terminal
from neptune_jax.data.sources.folders import printable
from neptune_jax.errors import UserError
from neptune_jax.predicting.rows import ENDINGS, FORMATS, Prediction, read_rows

SAME = 1e-5  # probabilities of one image on two machines differ by less
MAX_NAME = 60  # columns for a file's name on the screen
BROKEN_PIPE_STATUS = 128 + signal.SIGPIPE  # what a shell reports for `cat FILE | head`


class Output(Protocol):
    """Takes the predictions of the files from number `start` on, in their order."""

    start: int
    written: int  # rows that are there; those from `start` on are compared with new ones
    errors: int  # files that cannot be read, among all rows

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Writes rows, all of them at once."""
        ...


def check_flags(out: str | None, form: str, resume: bool) -> None:
    """Raises UserError for flags that cannot be followed, before anything is computed.

    Args:
        out: the file for the rows; None: standard output.
        form: of what is printed: 'text', 'json' or 'csv'.
        resume: whether to continue the file.
    """
    if not out:
        if resume:
            raise UserError('--resume needs --out, the file to go on with')
        return
    _format_of(out)
    if form != 'text':
        raise UserError('the ending of --out decides on the format; leave --format out')
    _check_new(out, resume)


def _format_of(path):
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        raise UserError(f'--out={path} must end with {" or ".join(ENDINGS)}')
    return FORMATS[ENDINGS[ending]]


def _check_new(path, resume):
    if os.path.lexists(path) and not resume:
        raise UserError(
            f'--out={path} exists; give another name, or --resume to go on after its last row'
        )


@contextlib.contextmanager
def open_output(
    out: str | None,
    form: str,
    count: int,
    files: Sequence[str],
    *,
    batch_size: int,
    resume: bool,
) -> Iterator[Output]:
    """Yields the Output to a new file, to one that a killed command has left, or to the screen.

    Args:
        out: the file; None: standard output.
        form: of what is printed: 'text', 'json' or 'csv'.
        count: of the classes in a row.
        files: the inputs, of which each gets a row.
        batch_size: files in a batch.
        resume: whether the file may exist.

    Raises:
        UserError: the file exists, is written by another process, has other rows than those of
            these inputs, or cannot be written.
    """
    if out is None:
        yield ScreenOutput(form, count, files)
        return
    _check_new(out, resume)
    flags = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL)
    try:
        descriptor = os.open(out, flags, 0o666)
    except OSError as error:
        raise UserError(f'--out={out} cannot be written: {error.strerror}') from error
    with open(descriptor, 'r+b', buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'--out={out} is being written by another process') from error
        except OSError:  # a file system without locks
            pass
        output = FileOutput(out, stream, count, batch_size)
        output.read(files)
        yield output


class FileOutput:
    """A file of rows."""

    def __init__(self, path: str, stream: BinaryIO, count: int, batch_size: int) -> None:
        self.start = self.written = self.errors = 0
        self._path, self._stream, self._batch_size = path, stream, batch_size
        self._format, self._count = _format_of(path), count
        self._end = 0  # of the last whole row
        self._positioned = False
        self._kept: collections.deque[Prediction] = collections.deque(maxlen=2 * batch_size)

    def read(self, files: Sequence[str]) -> None:
        """Reads the rows that are there; raises UserError unless they are those of the inputs."""
        number = 0
        with open(self._path, 'rb') as stream:
            for row, end in read_rows(stream, self._format, self._count, self._path):
                expected = files[number] if number < len(files) else None
                if row.file != expected:
                    theirs = 'there is no such file' if expected is None else repr(expected)
                    raise UserError(
                        f'{self._path} cannot be continued: its row {number + 1:,} is of '
                        f'{row.file!r}, here {theirs}; give the same files, or another --out'
                    )
                self._kept.append(row)
                self.errors += bool(row.error)
                self._end, number = end, number + 1
        # At least one whole batch is computed again, to compare: the rows may be of another model.
        self.written = number
        self.start = max(0, number // self._batch_size - 1) * self._batch_size
        while len(self._kept) > number - self.start:
            self._kept.popleft()

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Compares rows with those that are there already, then writes the others at the end."""
        for number, prediction in enumerate(predictions):
            if not self._kept:
                self._append(predictions[number:])
                return
            before = self._kept.popleft()
            if not is_same(before, prediction):
                raise UserError(
                    f'{self._path} cannot be continued: its row of {before.file!r} is of another '
                    'model or image; use the same run, --checkpoint and flags, or another --out'
                )
        if not self._kept:
            self._append(())

    def _append(self, predictions):
        text = ''.join(self._format.render(each, self._count) for each in predictions)
        if not self._positioned:
            self._positioned = True
            self._stream.seek(self._end)
            self._stream.truncate()
            text = (self._format.header(self._count) if self._end == 0 else '') + text
        self.errors += sum(bool(each.error) for each in predictions)
        rest = memoryview(text.encode('utf-8', 'surrogateescape'))
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            raise UserError(
                f'--out={self._path} cannot be written: {error.strerror}; make room, and start the '
                'same command again with --resume'
            ) from error


def is_same(one: Prediction, other: Prediction) -> bool:
    """Whether two predictions are those of one model for one image, on any machine."""
    if one.file != other.file or one.error != other.error or len(one.top) != len(other.top):
        return False
    pairs = list(zip(one.top, other.top, strict=True))
    if any(not abs(here - there) <= SAME for (_, here), (_, there) in pairs):
        return False
    # Classes that are equally probable may have changed their places.
    return [name for name, _ in one.top[:1]] == [name for name, _ in other.top[:1]] or (
        len(pairs) > 1 and one.top[0][1] - one.top[1][1] <= SAME
    )


class ScreenOutput:
    """Standard output: lines for a person, or rows for a program."""

    def __init__(self, form: str, count: int, files: Iterable[str]) -> None:
        self.start = self.written = self.errors = 0
        self._format, self._count = FORMATS.get(form), count
        self._width = min(MAX_NAME, max((len(printable(file)) for file in files), default=0))
        if self._format:
            self._print(self._format.header(count))

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Prints rows."""
        self.errors += sum(bool(each.error) for each in predictions)
        if self._format:
            self._print(''.join(self._format.render(each, self._count) for each in predictions))
            return
        for each in predictions:
            found = '  '.join(f'{name} {value:.1%}' for name, value in each.top)
            terminal.line(
                f'{printable(each.file):<{self._width}}  {found or f"error: {each.error}"}'
            )

    def _print(self, text):
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode('utf-8', 'surrogateescape'))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            exits.at_once(BROKEN_PIPE_STATUS)
        except OSError as error:
            raise UserError(f'rows cannot be written to standard output: {error}') from error
