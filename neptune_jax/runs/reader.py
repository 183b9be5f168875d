"""Reading a run directory: rows of metrics, config, summary, and which checkpoint is the best."""

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from neptune_jax import defaults
from neptune_jax.errors import UserError, one_line
from neptune_jax.runs import files


def read_rows(workdir: str | Path) -> list[dict]:
    """Returns the rows of metrics.jsonl; [] if there is no such file.

    A last line without its newline was torn when the writer died. It is skipped.
    """
    path = Path(workdir) / 'metrics.jsonl'
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [files.loads(line) for line in lines if line.endswith('\n')]


def follow_rows(workdir: str | Path) -> Iterator[list[dict]]:
    """Yields, without end, the rows that are new since the last time.

    After a resumed run has rewritten the file, all rows are new.
    """
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
        yield [files.loads(line) for line in lines]


def read_summary(workdir: str | Path) -> dict:
    """Returns summary.json, or {} if there is none."""
    path = Path(workdir) / 'summary.json'
    return files.loads(path.read_text()) if path.is_file() else {}


def read_config(workdir: str | Path) -> dict:
    """Returns config.json as nested dicts, or {} if there is none.

    JSON has no NaN and no infinity; they are strings there. A text field that holds 'NaN', such as
    the name of a run, stays text.
    """
    return _restore_numbers(files.read_json(Path(workdir) / 'config.json'))


def read_run_config(workdir: str | Path) -> dict:
    """Returns what `read_config` does. Raises UserError if the directory holds no run."""
    try:
        config = read_config(workdir)
    except (OSError, ValueError) as error:
        raise UserError(f'{str(workdir)!r} holds no run: {one_line(error)}') from error
    if not config:
        raise UserError(f'{str(workdir)!r} holds no run: there is no config.json')
    return config


def _restore_numbers(config, prefix=''):
    restored = {}
    for key, value in config.items():
        field = defaults.FIELDS.get(prefix + key)
        if isinstance(value, dict):
            value = _restore_numbers(value, f'{prefix}{key}.')
        elif field is None or field.type is float:
            value = files.restore(value)
        restored[key] = value
    return restored


def read_calibration(workdir: str | Path, step: int) -> dict:
    """Returns calibration.json, or {} if there is none for the checkpoint of `step`.

    Its `temperature` was fitted on the validation split (inference/calibration.py).
    """
    calibration = files.read_json(Path(workdir) / 'calibration.json')
    return calibration if calibration.get('step') == step else {}


def validation_accuracies(workdir: str | Path) -> dict[int, float]:
    """Returns the validation accuracy of each step at which the run was validated.

    It is NaN where the loss is not finite.
    """
    return {
        row['step']: row['val/accuracy'] if math.isfinite(row.get('val/loss', 0.0)) else math.nan
        for row in read_rows(workdir)
        if 'val/accuracy' in row
    }


def split_metrics(workdir: str | Path, step: int, split: str) -> dict[str, float]:
    """Returns the metrics of a split ('val') at a step, by their names without the split's."""
    prefix = f'{split}/'
    return {
        key.removeprefix(prefix): value
        for row in read_rows(workdir)
        if row['step'] == step
        for key, value in row.items()
        if key.startswith(prefix)
    }


def best(accuracies: Mapping[int, float]) -> int | None:
    """Returns the step with the highest validation accuracy; of equal ones the last.

    This is the one definition of the best checkpoint. An accuracy is NaN if the loss is not finite:
    such a step is never the best. None if no other step was validated.
    """
    steps = [step for step, accuracy in accuracies.items() if not math.isnan(accuracy)]
    return max(steps, key=lambda step: (accuracies[step], step), default=None)


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """Returns the steps of a run's checkpoints, in increasing order."""
    folders = Path(workdir).glob('checkpoints/[0-9]*')
    return sorted(int(path.name) for path in folders if path.name.isdigit())


def best_step(workdir: str | Path) -> int | None:
    """Returns the step of a run's best checkpoint.

    Where none was validated with a finite loss, it is the last that was not validated. None if the
    run has no checkpoint, or none but those whose loss is not finite.
    """
    steps = checkpoint_steps(workdir)
    accuracies = validation_accuracies(workdir)
    kept = {step: accuracies[step] for step in steps if step in accuracies}
    found = best(kept)
    return found if found is not None else max(set(steps) - kept.keys(), default=None)


def wait_for_writer(workdir: str | Path) -> None:
    """Returns when no process writes the run directory."""
    with contextlib.suppress(FileNotFoundError), (Path(workdir) / '.lock').open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
