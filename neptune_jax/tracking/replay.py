"""Replays run directories to a tracker: rows, values and artifacts, each of them once.

Sent again, a run gets what is new. So a replay may be killed at any time and repeated as often as
one likes. Nothing is deleted.
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
import uuid
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader
from neptune_jax.tracking import sinks

_INTERVAL = 2  # seconds between two looks at a run that is followed
_RETRY = 10  # seconds after which to look for a server that was not there
_PATIENCE = 60  # seconds without an answer after which a run that is over is left
_SLOWEST = 100_000  # bytes per second of an upload that is not given up
_SETTLED = 10  # seconds after which a file that nobody has changed is taken to be complete
_ROWS_AT_ONCE = 2000

# Artifacts that stay here: this one names files of the user's.
_LOCAL = ('data_report.json',)

_console = Console(highlight=False, soft_wrap=True)


def command(workdir: str | Path, to: str = 'neptune') -> str:
    """Returns the command line that sends a run, or the rest of it."""
    option = '' if to == 'neptune' else f' --to={to}'
    return f'python -m neptune_jax.sync {shlex.quote(str(workdir))}{option}'


def send(workdirs: Sequence[str], to: str, follow: bool = False) -> int:
    """Sends runs one after another; returns the exit status.

    Args:
        workdirs: run directories.
        to: a key of `sinks.SINKS`.
        follow: whether to go on until the run is over; for one run.
    """
    columns = (
        TextColumn('{task.description}'),
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
            error = replay.error or f'nothing has answered for {_PATIENCE} s'
            print(f'error: {workdir}: {error}; to go on: {command(workdir, to)}', file=sys.stderr)
            if replay.is_stuck():
                break  # the client's threads would disturb the next run
    return status


class _Replay:
    """The sending of a run, in a thread of its own: a sink may never answer.

    error     why it has ended without having sent all, or None.
    summary   what was sent where, or None.
    """

    def __init__(self, workdir, to, follow, bar):
        self.workdir, self._to, self._follow = Path(workdir), to, follow
        self._folder = self.workdir / 'sync'
        self._bar, self._task = bar, bar.add_task(str(workdir), total=0)
        self._over = threading.Event()  # nobody writes the run any more
        self._moved, self._patience = time.monotonic(), _PATIENCE
        self._sent, self._not_finite = collections.Counter(), set()
        self.error = self.summary = None

    def start(self):
        """Starts to send; returns the thread."""
        if self._follow:
            os.nice(10)  # the run itself comes first
            threading.Thread(target=self._wait_for_the_end, daemon=True).start()
        else:
            self._over.set()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def is_stuck(self):
        """Whether the run is over and nothing has been heard for long."""
        return self._over.is_set() and time.monotonic() - self._moved > self._patience

    def _wait_for_the_end(self):
        reader.wait_for_writer(self.workdir)
        self._moved = time.monotonic()
        self._over.set()

    def _run(self):
        try:
            self._record = _record(self.workdir, self._follow)
            busy = '%s sends it already; wait for it'
            with (
                files.locked(self._folder / f'{self._to}.lock', busy, wait=self._follow),
                contextlib.ExitStack() as stack,
            ):
                self._replay(self._open(stack))
        except UserError as error:
            self.error = str(error)
        except OSError as error:
            self.error = f'{error.filename or self._folder}: {error.strerror}'
        except Exception as error:
            traceback.print_exc()
            self.error = f'{type(error).__name__}: {error}'

    def _open(self, stack):
        """Returns the open sink. While a run goes on, one that is not there is tried again."""
        while True:
            is_last = self._over.is_set()
            try:
                return stack.enter_context(sinks.open_sink(self._to, self._record))
            except sinks.Unreachable as error:
                if is_last:
                    raise
                _console.print(f'{error}; trying again', markup=False)
                self._over.wait(_RETRY)

    def _replay(self, sink):
        self._sink = sink
        self._cursor = _Cursor(self._folder / f'{self._to}.json', sink)
        rows, is_last = reader.follow_rows(self.workdir), False
        while not is_last:
            is_last = self._over.is_set()  # asked first: whatever is written then is read below
            self._send_values()
            self._send_rows(next(rows))
            self._send_files(is_last)
            self._over.wait(0 if is_last else _INTERVAL)
        sent = ', '.join(
            f'{count:,} {name}{"" if count == 1 else "s"}' for name, count in self._sent.items()
        )
        self.summary = f'sent {sent or "nothing new"} to {sink.address}'
        if self._not_finite:
            count = len(self._not_finite)
            self.summary += f'; {count:,} numbers that are not finite stay in {self.workdir}'

    def _send_values(self):
        contents = {
            'config': reader.read_config(self.workdir),
            'environment': files.read_json(self.workdir / 'environment.json'),
            'summary': reader.read_summary(self.workdir),
        }
        values = {
            f'{name}/{key}': value
            for name, content in contents.items()
            for key, value in files.flatten(content).items()
        }
        values = {key: value for key, value in values.items() if self._is_finite(key, value)}
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
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            series = self._new_points(some)
            for key, points in series.items():
                self._sink.log(key, points)
                self._sent['point'] += len(points)
            if series:
                self._flush(steps={key: points[-1][0] for key, points in series.items()})
            self._bar.advance(self._task, len(some))

    def _new_points(self, rows):
        """Returns the points that are not sent yet: (step, time, value) by key."""
        series = {}
        for row in rows:
            for key, value in row.items():
                if key in ('step', 'time') or not self._is_finite(f'{key} {row["step"]}', value):
                    continue
                if row['step'] > self._cursor.steps.get(key, -math.inf):
                    series.setdefault(key, []).append((row['step'], row['time'], value))
        return series

    def _is_finite(self, name, value):
        if isinstance(value, float) and not math.isfinite(value):
            self._not_finite.add(name)
            return False
        return True

    def _send_files(self, is_last):
        for key, path in _artifacts(self.workdir):
            if is_last or time.time() - path.stat().st_mtime > _SETTLED:
                with path.open('rb') as file:
                    self._send_file(key, path, hashlib.file_digest(file, 'sha256').hexdigest())
        if is_last and self._record.checkpoint:
            self._send_checkpoint(reader.best_step(self.workdir))

    def _send_checkpoint(self, step):
        if step is not None:
            checkpoint = self.workdir / f'checkpoints/{step}'
            path = Path(shutil.make_archive(self._folder / 'best_checkpoint', 'zip', checkpoint))
            self._send_file('artifacts/best_checkpoint.zip', path, f'step {step}')
            path.unlink()

    def _send_file(self, key, path, mark):
        """Sends a file, unless one with the same mark is there."""
        if self._cursor.files.get(key) == mark:
            return
        self._patience = _PATIENCE + path.stat().st_size / _SLOWEST
        self._sink.upload(key, path)
        self._flush(files={key: mark})
        self._patience = _PATIENCE
        self._sent['file'] += 1

    def _flush(self, **sent):
        """Waits until what was given to the sink is there, then notes it."""
        self._sink.flush()
        self._moved = time.monotonic()
        self._cursor.save(**sent)


class _Cursor:
    """What a sink has got of a run: the last step of each series, values, marks of files.

    It counts only where the sink still has what it names.
    """

    def __init__(self, path, sink):
        self._path, self._address = path, sink.address
        found = files.read_json(path)
        fits = found.get('address') == sink.address
        if not (fits and all(sink.has(key) for key in (*found['steps'], *found['values']))):
            found = {}
        self.steps, self.values, self.files = (
            found.get(name, {}) for name in ('steps', 'values', 'files')
        )

    def save(self, **sent):
        """Adds to `steps`, `values` or `files`."""
        for name, content in sent.items():
            getattr(self, name).update(content)
        content = {'address': self._address, 'steps': self.steps}
        files.write_json(self._path, content | {'values': self.values, 'files': self.files})


def _record(workdir, follow=False):
    """Returns the sinks.Record of a run directory."""
    config = reader.read_config(workdir)
    if not config:
        raise UserError('it holds no run: there is no config.json')
    fields = config.get('neptune', {})
    return sinks.Record(
        workdir=workdir,
        id=_run_id(workdir),
        name=fields.get('name') or workdir.absolute().name,
        description=fields.get('description', ''),
        tags=list(fields.get('tags') or reader.read_summary(workdir).get('tags', [])),
        project=fields.get('project', ''),
        hardware=follow and fields.get('capture_hardware', False),
        checkpoint=fields.get('upload_checkpoint', False),
    )


def _run_id(workdir):
    """Returns the id by which a run is known elsewhere; drawn when it is first sent."""
    (workdir / 'sync').mkdir(exist_ok=True)
    with files.locked(workdir / 'sync/id.lock', wait=True):
        path = workdir / 'sync/id'
        if not path.is_file():
            name = workdir.absolute().name[:23]  # the client drops an id of more than 36
            files.replace(path, f'{name}-{uuid.uuid4().hex[:12]}')
        return path.read_text()


def _artifacts(workdir):
    """Yields the key and the path of each file that is sent."""
    if not (workdir / 'artifacts/config.json').exists():  # one of an imported run's own
        yield 'artifacts/config.json', workdir / 'config.json'
    for path in sorted((workdir / 'artifacts').rglob('*')):
        if path.is_file() and path.name not in _LOCAL and not path.name.startswith('.'):
            yield path.relative_to(workdir).as_posix(), path
