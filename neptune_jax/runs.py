"""The run directory: what a run leaves behind, how it is written and how it is read.

config.json        the resolved config
environment.json   versions, devices, git commit, command line, data
metrics.jsonl      one JSON object a line: `step`, `time` and values by key ('train/loss')
summary.json       status, where the run is, its results; replaced atomically
checkpoints/       Orbax
artifacts/         tables and figures
sync/              what was sent to a tracker, where it was; see sync.py
import.json        where the run comes from, if it is imported; see offline
damaged/           checkpoints that were set aside, where there were any
profile/           a trace of some steps, where it was asked for
.lock              held by the process that writes
"""

import contextlib
import fcntl
import functools
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from neptune_jax.errors import Preempted, UserError

# Where a run happens and what it prints may change when it is resumed; its results may not.
_FREE_FIELDS = tuple(
    'data.dir data.archive_dir data.mode data.workers checkpoint.every checkpoint.keep log. '
    'parallel.driver parallel.num_devices parallel.distributed train.debug_nans '
    'train.profile_steps neptune.'.split()
)


class Run:
    """Writes a run directory. `open_run` makes one."""

    def __init__(self, workdir):
        self.workdir = Path(workdir)
        self.summary = read_summary(workdir)
        self._rows = None  # the open file

    def path(self, name):
        return self.workdir / name

    def write(self, step, values):
        """Appends a row to metrics.jsonl: `values`, a dict from 'split/name' to numbers."""
        row = {'step': step, 'time': round(time.time(), 3)} | values
        self._open_rows().write(f'{dumps(row)}\n'.encode())

    def flush(self):
        """Waits until the rows are on the disk: before a checkpoint that counts on them."""
        os.fsync(self._open_rows().fileno())

    def _open_rows(self):
        if not self._rows:
            self._rows = self.path('metrics.jsonl').open('ab', buffering=0)  # a row is one write
        return self._rows

    def close(self):
        """Closes the file of rows; the next row opens it again."""
        if self._rows:
            self._rows.close()
            self._rows = None

    def write_artifact(self, name, value):
        """Writes a value as a JSON file into artifacts."""
        write_json(self.path('artifacts') / name, value)

    def rewind(self, step):
        """Removes the rows after `step`: a run that resumes there writes them again."""
        self.close()
        rows = [row for row in read_rows(self.workdir) if row['step'] <= step]
        replace(self.path('metrics.jsonl'), ''.join(dumps(row) + '\n' for row in rows))

    def update_summary(self, **fields):
        """Sets fields of summary.json, atomically."""
        self.summary |= fields
        write_json(self.path('summary.json'), self.summary)

    @contextlib.contextmanager
    def status(self):
        """Keeps the summary's `status` true: running inside, then finished, failed, preempted."""
        self.summary.pop('error', None)
        self.update_summary(status='running')
        try:
            yield
        except BaseException as error:
            full = _is_disk_full(error)
            if full:
                error = UserError(
                    f'the disk of {self.workdir} is full; free some space and start the same '
                    'command again: it goes on from the last checkpoint'
                )
            status = 'preempted' if isinstance(error, Preempted) else 'failed'
            self.update_summary(status=status, error=str(error))
            if full:
                raise error from None
            raise
        self.update_summary(status='finished')


@contextlib.contextmanager
def open_run(workdir, config, environment):
    """Yields the Run to write into a directory, a new one or that of the same config.

    Args:
        workdir: its path.
        config: the whole ConfigDict.
        environment: a dict for environment.json.

    Raises:
        UserError: the directory holds a run of another config, holds something else, cannot be
            written, or is being written by another process.
    """
    workdir = Path(workdir)
    resolved = json.loads(config.to_json())
    with contextlib.ExitStack() as stack:
        try:
            if (workdir / 'config.json').is_file():
                _refuse_other_config(workdir, resolved)
            elif workdir.is_dir() and any(path.name != '.lock' for path in workdir.iterdir()):
                raise UserError(f'--workdir={workdir} holds files but no run; choose another')
            (workdir / 'artifacts').mkdir(parents=True, exist_ok=True)
            busy = (
                f'--workdir={workdir} is being written by %s; wait for it, stop it, or choose '
                'another --workdir'
            )
            stack.enter_context(locked(workdir / '.lock', busy))
            write_json(workdir / 'environment.json', environment)
            write_json(workdir / 'config.json', resolved)
        except OSError as error:
            raise UserError(f'--workdir={workdir} cannot be written: {error}') from error
        run = Run(workdir)
        stack.callback(run.close)
        yield run


@contextlib.contextmanager
def locked(path, busy='%s holds the lock', wait=False):
    """Holds the lock of a file, which is made. The system gives it back when the process dies.

    Where another process holds it, waits, or raises UserError with `busy`, whose %s becomes the
    name of that process.
    """
    with path.open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or 'another process'
            raise UserError(busy.replace('%s', holder)) from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield


def wait_for_writer(workdir):
    """Returns when no process writes the run directory."""
    with contextlib.suppress(FileNotFoundError), (Path(workdir) / '.lock').open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def _refuse_other_config(workdir, config):
    before = flatten(json.loads((workdir / 'config.json').read_text()), '.')
    now = flatten(config, '.')
    differences = [
        f'{field}: {before.get(field)!r} there, {now.get(field)!r} here'
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field) and not field.startswith(_FREE_FIELDS)
    ]
    if differences:
        raise UserError(
            f'--workdir={workdir} holds a run of another config ({"; ".join(differences)}); choose '
            'another --workdir, or use the config of that run to go on with it'
        )


def environment(parallel, data):
    """Returns what environment.json holds.

    Args:
        parallel: parallel.Parallel.
        data: a dict that identifies the data.
    """
    devices = parallel.mesh.devices.tolist()
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets')
    return {
        'command': sys.argv,
        'python': platform.python_version(),
        'packages': {name: metadata.version(name) for name in (*packages, 'numpy')},
        'platform': platform.platform(),
        'processor': processor(),
        'cpu_count': os.cpu_count(),
        'devices': [device.device_kind for device in devices],
        'driver': parallel.driver,
        'git': _git(),
        'data': data,
    }


def processor():
    """Returns the processor's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _git():
    """Returns the commit and whether the files differ from it, or None outside a checkout."""

    def git(*args):
        command = ('git', '-C', str(Path(__file__).parent), *args)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {'commit': git('rev-parse', 'HEAD'), 'dirty': bool(git('status', '--porcelain'))}
    except (OSError, subprocess.CalledProcessError):
        return None


def read_rows(workdir):
    """Returns the rows of metrics.jsonl, a list of dicts; [] where there is no such file.

    A last line that was cut short when its writer died is no row.
    """
    path = Path(workdir) / 'metrics.jsonl'
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [loads(line) for line in lines if line.endswith('\n')]


def tail(workdir):
    """Yields, for ever, lists of the rows that are new; after a rewind, of all rows again."""
    path, inode, offset = Path(workdir) / 'metrics.jsonl', None, 0
    while True:
        lines = []
        with contextlib.suppress(FileNotFoundError), path.open('rb') as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != inode or stat.st_size < offset:
                inode, offset = stat.st_ino, 0
            file.seek(offset)
            lines = [line for line in file if line.endswith(b'\n')]
            offset += sum(map(len, lines))
        yield [loads(line) for line in lines]


def best_step(workdir):
    """Returns the step of a run's best checkpoint, of its last without validation, or None.

    The best has the highest validation accuracy; of equal ones it is the last.
    """
    folders = Path(workdir).glob('checkpoints/[0-9]*')
    steps = {int(path.name) for path in folders if path.name.isdigit()}
    validated = [
        row for row in read_rows(workdir) if 'val/accuracy' in row and row['step'] in steps
    ]
    if validated:
        return max(validated, key=lambda row: (row['val/accuracy'], row['step']))['step']
    return max(steps, default=None)


def read_summary(workdir):
    """Returns summary.json, or {} where there is none."""
    return read_json(Path(workdir) / 'summary.json')


def read_json(path):
    """Returns the value in a JSON file, or {} where there is no such file."""
    try:
        return loads(path.read_text())
    except FileNotFoundError:
        return {}


def write_json(path, value):
    """Writes a value as a JSON file, atomically."""
    replace(path, dumps(value, indent=2) + '\n')


def flatten(nested, separator='/'):
    """Turns {'a': {'b': 1}} into {'a/b': 1}; an empty dict in it has no key."""
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            below = flatten(value, separator).items()
            flat |= {f'{key}{separator}{name}': item for name, item in below}
        else:
            flat[key] = value
    return flat


def loads(text):
    """Returns a value from JSON as `dumps` writes it."""
    special = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}

    def restore(value):
        if isinstance(value, dict):
            return {key: restore(item) for key, item in value.items()}
        return special.get(value, value) if isinstance(value, str) else value

    return restore(json.loads(text))


def dumps(value, indent=None):
    """Returns a value as JSON. That has no NaN: it is a string here, as the infinities are."""
    encode = _encoder(indent).encode
    try:
        return encode(value)  # nearly always: a row is to cost little
    except (TypeError, ValueError):
        return encode(_plain(value))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, 'tolist'):  # arrays and scalars of NumPy and JAX
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return 'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'
    return value


@functools.cache
def _encoder(indent):
    return json.JSONEncoder(indent=indent, allow_nan=False)


def _is_disk_full(error):
    # Errors that come from TensorStore, below Orbax, have no number but the system's words.
    words = ('No space left on device', 'Disk quota exceeded')
    return any(text in str(error) for text in words)


def replace(path, text):
    """Writes a file, or replaces its content, atomically."""
    unfinished = path.with_name(f'.{path.name}.unfinished')
    try:
        with unfinished.open('w') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        if not (_is_disk_full(error) and path.is_file()):
            raise
        # No room for a second copy. A small file's own block has room for its new content.
        with path.open('r+') as file:
            file.write(text)
            file.truncate()
