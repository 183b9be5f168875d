"""Writing a run directory: opening it, rows of metrics, the summary and its status."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from neptune_jax import defaults
from neptune_jax.errors import Preempted, UserError
from neptune_jax.runs import files, reader

# Fields that a resumed run may change, because the results do not depend on them. A field that
# ends in a dot is a group.
_FREE_FIELDS = tuple(
    'data.dir data.archive_dir data.mode data.workers checkpoint.every checkpoint.keep log. '
    'parallel.driver parallel.num_devices parallel.distributed parallel.wait_seconds '
    'report. train.debug_nans train.profile_steps neptune.'.split()
)

# What a start leaves if it is killed before config.json is complete.
_BEFORE_CONFIG = {'.lock', '.config.json.unfinished', 'environment.json', 'artifacts'}
_BEFORE_CONFIG.add('.environment.json.unfinished')
# What a sweep puts there before it starts a trial.
_BEFORE_CONFIG |= {'trial.json', '.trial.json.unfinished', 'trial.log', '.trial.lock'}


class Run:
    """Writes a run directory. `open_run` creates one."""

    def __init__(self, workdir: str | Path) -> None:
        self.workdir = Path(workdir)
        self.summary = reader.read_summary(workdir)
        self._rows = None  # metrics.jsonl, once it is open

    def path(self, name: str) -> Path:
        """Returns the path of a file of the run."""
        return self.workdir / name

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends a row to metrics.jsonl: `values` maps 'split/name' to numbers."""
        row = {'step': step, 'time': round(time.time(), 3)} | values
        self._open_rows().write(f'{files.dumps(row)}\n'.encode())

    def flush(self) -> None:
        """Waits until the rows are on the disk. A checkpoint that relies on them comes after."""
        os.fsync(self._open_rows().fileno())

    def _open_rows(self):
        if not self._rows:
            self._rows = self.path('metrics.jsonl').open('ab', buffering=0)  # a row is one write
        return self._rows

    def close(self) -> None:
        """Closes metrics.jsonl. The next row opens it again."""
        if self._rows:
            self._rows.close()
            self._rows = None

    def write_artifact(self, name: str, value: Any) -> None:
        """Writes a value as a JSON file into artifacts/."""
        files.write_json(self.path('artifacts') / name, value)

    def rewind(self, step: int) -> None:
        """Removes the rows after `step`: a run that resumes there writes them again."""
        self.close()
        rows = [row for row in reader.read_rows(self.workdir) if row['step'] <= step]
        text = ''.join(files.dumps(row) + '\n' for row in rows)
        files.replace(self.path('metrics.jsonl'), text)

    def update_summary(self, **fields: Any) -> None:
        """Sets fields of summary.json, atomically."""
        self.summary |= fields
        files.write_json(self.path('summary.json'), self.summary)

    @contextlib.contextmanager
    def status(self) -> Iterator[None]:
        """Keeps `status` in the summary: 'running' inside; then how the context was left.

        That is 'finished', 'preempted' or 'failed'.
        """
        self.summary.pop('error', None)
        self.update_summary(status='running')
        try:
            yield
        except BaseException as error:
            full = files.is_disk_full(error)
            if full:
                error = UserError(
                    f'the disk of {self._full_folder(error)} is full; free some space and start '
                    'the same command again: it continues from the last checkpoint'
                )
            status = 'preempted' if isinstance(error, Preempted) else 'failed'
            self.update_summary(status=status, error=str(error))
            if full:
                raise error from None
            raise
        self.update_summary(status='finished')

    def _full_folder(self, error):
        """Returns the folder that an error says is full; the run directory if it names none."""
        path = getattr(error, 'filename', None)
        if not isinstance(path, str) or Path(path).absolute().is_relative_to(
            self.workdir.absolute()
        ):
            return self.workdir
        return Path(path).parent


@contextlib.contextmanager
def open_run(workdir: str | Path, config: ConfigDict, environment: dict) -> Iterator[Run]:
    """Yields a Run that writes a directory, a new one or one of the same config.

    Args:
        workdir: its path.
        config: the whole ConfigDict.
        environment: the content of environment.json.

    Raises:
        UserError: the directory holds a run of another config or on other data, holds something
            else, cannot be written, or is being written by another process.
    """
    workdir = Path(workdir)
    files.check_characters(workdir, '--workdir=')
    resolved = json.loads(config.to_json())
    with contextlib.ExitStack() as stack:
        try:
            if (workdir / 'config.json').is_file():
                _refuse_other_config(workdir, resolved)
                _refuse_other_data(workdir, environment.get('data', {}))
            elif workdir.is_dir() and not _is_unstarted(workdir):
                raise UserError(f'--workdir={workdir} holds files but no run; choose another')
            workdir.mkdir(parents=True, exist_ok=True)
            busy = (
                f'--workdir={workdir} is being written by %s; wait for it, stop it, or choose '
                'another --workdir'
            )
            stack.enter_context(files.locked(workdir / '.lock', busy))
            files.write_json(workdir / 'config.json', resolved)
            files.write_json(workdir / 'environment.json', environment)
            (workdir / 'artifacts').mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f'--workdir={workdir} cannot be written: {error}') from error
        run = Run(workdir)
        stack.callback(run.close)
        yield run


def _refuse_other_data(workdir, now):
    """Raises UserError if the run is on other data, as far as its environment.json tells."""
    before, now = _recorded_data(workdir), files.encode(now)
    differences = []
    for split, digest in before.get('sha256', {}).items():
        if digest != now.get('sha256', {}).get(split, digest):
            sizes = [data.get('sizes', {}).get(split) for data in (before, now)]
            differences.append(f'{split} split: {sizes[0]} images there, {sizes[1]} here')
            if sizes[0] == sizes[1]:
                differences[-1] += ', not the same or in another order'
    for name in ('classes', 'image_shape'):
        there, here = before.get(name), now.get(name)
        if there and here and there != here:
            if name == 'classes':  # there may be a thousand: the first that differs
                pairs = itertools.zip_longest(there, here)
                there, here = next(pair for pair in pairs if pair[0] != pair[1])
            differences.append(f'{name}: {there!r} there, {here!r} here')
    if differences:
        raise UserError(
            f'--workdir={workdir} holds a run on other data ({"; ".join(differences)}); put the '
            'data back as they were to continue it, or choose another --workdir for a new run'
        )


def _recorded_data(workdir):
    """Returns what environment.json says of the data; {} if it is missing, damaged or older."""
    try:
        data = files.read_json(workdir / 'environment.json').get('data')
    except (AttributeError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _is_unstarted(workdir):
    """Whether a directory holds nothing but what a start leaves that was killed at once."""
    found = {path.name for path in workdir.iterdir()}
    artifacts = workdir / 'artifacts'
    return found <= _BEFORE_CONFIG and not (artifacts.is_dir() and any(artifacts.iterdir()))


def decisive_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config that the results depend on, by their full names.

    The values are as they stand in a file, where NaN equals NaN. A field that the config does not
    have yet, because it is newer than a run, has its default.

    Args:
        config: nested dicts, as in config.json.
    """
    added = {name: field.default for name, field in defaults.FIELDS.items()}
    fields = files.encode(added) | files.flatten(files.encode(config), '.')
    return {name: value for name, value in fields.items() if not name.startswith(_FREE_FIELDS)}


def config_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns 'FIELD: VALUE there, VALUE here' for fields of `decisive_fields` that differ."""
    return [
        f'{field}: {before.get(field)!r} there, {now.get(field)!r} here'
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    ]


def _refuse_other_config(workdir, config):
    before = decisive_fields(files.read_json(workdir / 'config.json'))
    found = config_differences(before, decisive_fields(config))
    if found:
        raise UserError(
            f'--workdir={workdir} holds a run of another config ({"; ".join(found)}); choose '
            'another --workdir, or use the config of that run to continue it'
        )
