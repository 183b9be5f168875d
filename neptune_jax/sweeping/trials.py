"""A trial: a run directory of a sweep, its state, and the claim of the process that trains it.

The state is that of the run directory, and no file beside it keeps another. A claim is the lock of
a file, which the system releases when all processes that hold it have ended.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neptune_jax.errors import UserError, one_line
from neptune_jax.runs import files, reader

KEEP = ('all', 'best', 'last', 'none')
DONE = ('finished', 'pruned')

_LOCK = '.trial.lock'
_REMOVED = '.removed-'


class Trial:
    """A trial of a sweep. It need not have a directory yet."""

    def __init__(
        self, out: str | Path, name: str, number: int, overrides: dict[str, Any] | None
    ) -> None:
        # Those of a search are None until the trial starts.
        self.directory = Path(out) / name
        self.name = name
        self.number = number
        self.overrides: Any = overrides

    def path(self, name: str) -> Path:
        """Returns the path of a file in the trial's directory."""
        return self.directory / name

    @property
    def status(self) -> str:
        """That of summary.json, or 'waiting'. A trial whose process was killed is 'running'."""
        status = self.summary.get('status')
        return status or ('failed' if self.failures else 'waiting')

    @property
    def summary(self) -> dict:
        """summary.json; a damaged one counts as none, and the run writes it again."""
        try:
            summary = reader.read_summary(self.directory)
        except (OSError, ValueError):
            return {}
        return summary if isinstance(summary, dict) else {}

    @property
    def last_step(self) -> int:
        """The step of the last checkpoint, 0 if there is none."""
        return max(reader.checkpoint_steps(self.directory), default=0)

    @property
    def failures(self) -> list[dict]:
        """`time`, `error` and `final` (whether it would fail again) of each start that failed."""
        return read_description(self.directory).get('failures', [])

    def read_overrides(self) -> bool:
        """Gets the fields from trial.json, for a trial of a search; returns whether it has them."""
        self.overrides = read_description(self.directory).get('overrides', self.overrides)
        return self.overrides is not None

    def describe(self, failures: list[dict] | None = None) -> None:
        """Writes trial.json. Only the process that holds the claim may do so."""
        failures = self.failures if failures is None else failures
        value = {
            'sweep': self.directory.parent.name,
            'number': self.number,
            'overrides': self.overrides,
        }
        if failures:
            value['failures'] = failures
        self.directory.mkdir(parents=True, exist_ok=True)
        files.write_json(self.path('trial.json'), value)

    def note_failure(self, error: str, final: bool) -> None:
        """Adds a failure to trial.json, and sees that the status is 'failed'.

        The training must have ended. If it was killed, it could not say so itself.

        Args:
            error: one line.
            final: whether it would fail again.
        """
        failure = {'time': round(time.time(), 3), 'error': error, 'final': final}
        self.describe([*self.failures, failure])
        summary = self.summary
        if summary and summary.get('status') != 'failed':
            files.write_json(
                self.path('summary.json'), summary | {'status': 'failed', 'error': error}
            )

    def prune(self, reason: str) -> None:
        """Sets the status to 'pruned'. The training must have ended."""
        files.write_json(
            self.path('summary.json'), self.summary | {'status': 'pruned', 'error': reason}
        )

    def discard(self) -> None:
        """Removes the directory if it holds nothing but the claim of this process."""
        if os.listdir(self.directory) == [_LOCK]:
            self.path(_LOCK).unlink()
            with contextlib.suppress(OSError):  # another process claims it at this moment
                self.directory.rmdir()

    def claim(self) -> 'Claim | None':
        """Returns the claim to train this trial, or None if another process has it.

        Raises:
            UserError: the directory cannot be written, or its file system has no locks.
        """
        try:
            return _claim(self.directory)
        except OSError as error:
            raise unusable(self.directory.parent, error) from error

    def is_written(self) -> bool:
        """Whether a process writes the run, such as a training that was started by hand.

        To be asked by the process that holds the claim: to ask disturbs a training that starts.
        """
        try:
            with self.path('.lock').open('r+') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def remove_checkpoints(self, keep: str) -> None:
        """Removes the checkpoints of a trial that is done, except the best or the last one.

        Only the process that holds the claim may do so. If it is killed, no half of a checkpoint
        remains that looks like a whole one.

        Args:
            keep: one of KEEP.
        """
        if keep == 'all' or self.status not in DONE:
            return
        kept = {
            'best': reader.best_step(self.directory),
            'last': self.last_step,
            'none': None,
        }[keep]
        checkpoints = self.path('checkpoints')
        for step in reader.checkpoint_steps(self.directory):
            if step != kept:
                (checkpoints / str(step)).rename(checkpoints / f'{_REMOVED}{step}')
        for folder in checkpoints.glob(f'{_REMOVED}*'):
            shutil.rmtree(folder, ignore_errors=True)
        for checksums in checkpoints.glob('*.crc32'):
            if not checksums.with_suffix('').exists():
                checksums.unlink()


def read_description(directory: Path) -> dict:
    """Returns trial.json, or {} if there is none that can be read."""
    try:
        value = files.read_json(directory / 'trial.json')
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get('overrides'), dict) else {}


def descriptions(out: Path) -> dict[str, dict]:
    """Returns the trial.json of each trial of a sweep that has one, by the names of the trials."""
    with contextlib.suppress(FileNotFoundError), os.scandir(out) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
        found = {name: read_description(out / name) for name in names}
        return {name: value for name, value in found.items() if value}
    return {}


class Claim:
    """The right to train a trial. It ends when all processes that have its file have ended."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Gives the right up, as far as this process has it."""
        os.close(self.descriptor)


def _claim(directory):
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the directory was removed a moment ago
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(descriptor, path):
                return Claim(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a directory that was removed and made again


def _is_file(descriptor, path):
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


@contextlib.contextmanager
def planning(out: Path) -> Iterator[None]:
    """Inside, no other process changes sweep.json or adds a trial to a search."""
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(out / '.sweep.lock', wait=True))
        except OSError as error:
            raise unusable(out, error) from error
        yield


def unusable(out: Path, error: OSError) -> UserError:
    """Returns what to say of a folder in which no sweep can be kept."""
    return UserError(
        f'--out={out} cannot be used: {one_line(error)}; choose a folder that can be written, in a '
        'file system with locks'
    )
