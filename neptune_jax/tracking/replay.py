"""Replays run directories to a tracker: rows, values and artifacts, each of them once.

A replay may be killed at any time and repeated at will: each time, the tracker gets what it does
not have yet. Nothing is deleted.
"""

import collections
import contextlib
import hashlib
import math
import os
import shlex
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from neptune_jax import terminal
from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader
from neptune_jax.tracking import contents, sinks

_INTERVAL = 2  # seconds between two looks at a run that is followed
_RETRY = 5  # seconds until a tracker that could not be reached is tried again
_PATIENCE = 60  # seconds without progress after which a finished run is given up
_MIN_UPLOAD_RATE = 100_000  # bytes per second; a file's upload may take as long as this rate needs
_UNCHANGED = 10  # seconds; an artifact that has not changed for so long is complete
_ROWS_PER_FLUSH = 2000

_console = terminal.new_console(soft_wrap=True)


def command(workdir: str | Path, to: str = 'neptune') -> str:
    """Returns the command line that sends a run, or the rest of it."""
    option = '' if to == 'neptune' else f' --to={to}'
    return f'python -m neptune_jax.sync {shlex.quote(str(workdir))}{option}'


def send(workdirs: Sequence[str | Path], to: str, follow: bool = False) -> int:
    """Sends runs one after another and prints a line for each.

    Args:
        workdirs: run directories.
        to: a key of sinks.SINKS, or 'package.module:open_sink'.
        follow: whether to continue until no process writes the run any more; for one run.

    Returns:
        The exit status: 0, or 2 if something could not be sent.
    """
    columns = (
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('rows'),
    )
    status = 0
    with Progress(*columns, console=_console, disable=not _console.is_terminal) as bar:
        for workdir in workdirs:
            replay = _Replay(workdir, to, follow, bar)
            thread = replay.start()
            while thread.is_alive() and not replay.is_stuck():
                thread.join(0.5)
            if replay.summary:
                _console.print(f'{workdir}: {replay.summary}', markup=False)
                continue
            status = 2
            error = replay.error or f'no answer for {_PATIENCE} s'
            print(f'error: {workdir}: {error}; to go on: {command(workdir, to)}', file=sys.stderr)
            if replay.is_stuck():
                break  # threads of the tracker's client are left that would disturb the next run
    return status


class _Replay:
    """Sends one run, in a thread of its own, because a tracker may never answer.

    Attributes:
        error: why the thread has ended before everything was sent, or None.
        summary: what was sent to which address, or None.
    """

    def __init__(self, workdir: str | Path, to: str, follow: bool, bar: Progress) -> None:
        self.workdir = Path(workdir)
        self._to = to
        self._follow = follow
        self._folder = self.workdir / 'sync'
        self._bar = bar
        self._task = bar.add_task(str(workdir), total=0)
        self._run_ended = threading.Event()  # no process writes the run any more
        self._last_progress = time.monotonic()
        self._patience = _PATIENCE
        self._sent: collections.Counter[str] = collections.Counter()  # values, points, files
        self._non_finite: set[str] = set()  # the keys of values, the keys and steps of points
        self.error: str | None = None
        self.summary: str | None = None

    def start(self):
        """Starts the thread and returns it."""
        if self._follow:
            os.nice(10)  # the training needs the processor more
            threading.Thread(target=self._wait_for_end_of_run, daemon=True).start()
        else:
            self._run_ended.set()
        thread = threading.Thread(target=self._send, daemon=True)
        thread.start()
        return thread

    def is_stuck(self):
        """Whether the run has ended and nothing has arrived for a long time."""
        waited = time.monotonic() - self._last_progress
        return self._run_ended.is_set() and waited > self._patience

    def _wait_for_end_of_run(self):
        reader.wait_for_writer(self.workdir)
        self._last_progress = time.monotonic()
        self._run_ended.set()

    def _send(self):
        try:
            self._record = contents.read_record(self.workdir, self._follow)
            busy = '%s sends it already; wait for it'
            with (
                files.locked(self._folder / f'{self._to}.lock', busy, wait=self._follow),
                contextlib.ExitStack() as stack,
            ):
                self._send_all(self._open_sink(stack))
        except UserError as error:
            self.error = str(error)
        except OSError as error:
            self.error = f'{error.filename or self._folder}: {error.strerror}'
        except Exception as error:
            traceback.print_exc()
            self.error = f'{type(error).__name__}: {error}'

    def _open_sink(self, stack):
        """Returns the open sink. As long as the run continues, an unreachable one is retried."""
        while True:
            is_last_try = self._run_ended.is_set()
            try:
                return stack.enter_context(sinks.open_sink(self._to, self._record))
            except sinks.Unreachable as error:
                if is_last_try:
                    raise
                _console.print(f'{error}; trying again', markup=False)
                self._run_ended.wait(_RETRY)

    def _send_all(self, sink):
        self._sink = sink
        self._cursor = _Cursor(self._folder / f'{self._to}.json', sink)
        rows = reader.follow_rows(self.workdir)
        is_last = False
        while not is_last:
            # Look at this first: what is written before the end of the run is then read below.
            is_last = self._run_ended.is_set()
            self._send_values()
            self._send_rows(next(rows))
            self._send_files(is_last)
            self._run_ended.wait(0 if is_last else _INTERVAL)
        sent = ', '.join(
            f'{count:,} {name}{"" if count == 1 else "s"}' for name, count in self._sent.items()
        )
        self.summary = f'sent {sent or "nothing new"} to {sink.address}'
        if self._non_finite:
            count = len(self._non_finite)
            numbers = 'number stays' if count == 1 else 'numbers stay'
            self.summary += f'; {count:,} non-finite {numbers} in {self.workdir}'

    def _send_values(self):
        values = {
            key: value
            for key, value in contents.read_values(self.workdir).items()
            if self._is_finite(key, value)
        }
        before = self._cursor.values
        changed = {key: value for key, value in values.items() if before.get(key, ...) != value}
        changed |= dict.fromkeys(
            key for key in before if key not in values and before[key] is not None
        )
        if changed:
            self._sink.assign(changed)
            self._flush(values=changed)
            self._sent['value'] += len(changed)

    def _send_rows(self, rows):
        self._bar.update(self._task, total=self._bar.tasks[self._task].total + len(rows))
        for start in range(0, len(rows), _ROWS_PER_FLUSH):
            some = rows[start : start + _ROWS_PER_FLUSH]
            series = self._new_points(some)
            for key, points in series.items():
                self._sink.log(key, points)
                self._sent['point'] += len(points)
            if series:
                self._flush(steps={key: points[-1].step for key, points in series.items()})
            self._bar.advance(self._task, len(some))

    def _new_points(self, rows):
        """Returns the points that are not sent yet: lists of sinks.Point by key."""
        series = {}
        for row in rows:
            step, time = row['step'], row['time']
            for key, value in row.items():
                if key in ('step', 'time') or not self._is_finite(f'{key} {step}', value):
                    continue
                if step > self._cursor.steps.get(key, -math.inf):
                    series.setdefault(key, []).append(sinks.Point(step, time, value))
        return series

    def _is_finite(self, name, value):
        """Whether a value can be sent. Numbers that are not finite are counted."""
        if isinstance(value, float) and not math.isfinite(value):
            self._non_finite.add(name)
            return False
        return True

    def _send_files(self, is_last):
        for key, path in contents.artifacts(self.workdir):
            if is_last or time.time() - path.stat().st_mtime > _UNCHANGED:
                with path.open('rb') as file:
                    digest = hashlib.file_digest(file, 'sha256').hexdigest()
                self._send_file(key, path, digest)
        if is_last and self._record.checkpoint:
            self._send_checkpoint(reader.best_step(self.workdir))

    def _send_checkpoint(self, step):
        if step is not None:
            checkpoint = self.workdir / f'checkpoints/{step}'
            path = Path(shutil.make_archive(self._folder / 'best_checkpoint', 'zip', checkpoint))
            self._send_file('artifacts/best_checkpoint.zip', path, f'step {step}')
            path.unlink()

    def _send_file(self, key, path, version):
        """Sends a file, unless the tracker has this version of it."""
        if self._cursor.files.get(key) == version:
            return
        self._patience = _PATIENCE + path.stat().st_size / _MIN_UPLOAD_RATE
        self._sink.upload(key, path)
        self._flush(files={key: version})
        self._patience = _PATIENCE
        self._sent['file'] += 1

    def _flush(self, **sent):
        """Waits until the sink has delivered everything, then records that."""
        self._sink.flush()
        self._last_progress = time.monotonic()
        self._cursor.save(**sent)


class _Cursor:
    """What a tracker has of a run, kept in a file: replaced after each flush.

    It is ignored if the tracker has lost what it lists. Then everything is sent again.

    Attributes:
        steps: the last step of each series, by key.
        values: by key.
        files: the version of each file, by key.
    """

    def __init__(self, path: Path, sink: sinks.Sink) -> None:
        self._path = path
        self._address = sink.address
        found = files.read_json(path)
        is_valid = found.get('address') == sink.address and all(
            sink.has(key) for key in (*found['steps'], *found['values'])
        )
        if not is_valid:
            found = {}
        self.steps = found.get('steps', {})
        self.values = found.get('values', {})
        self.files = found.get('files', {})

    def save(self, **sent):
        """Adds to `steps`, `values` or `files`, and writes the file."""
        for name, content in sent.items():
            getattr(self, name).update(content)
        cursor = {
            'address': self._address,
            'steps': self.steps,
            'values': self.values,
            'files': self.files,
        }
        files.write_json(self._path, cursor)
