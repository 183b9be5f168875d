"""Record: what a report knows of a run, read from its directory or from a file of records."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

# Where a run keeps and sends things. Neither makes it another experiment.
PLACES = ('data.dir', 'data.archive_dir', 'neptune.', 'report.')

# Results of the summary that stand beside the metrics of its splits.
_RESULTS = ('step', 'epochs', 'train_seconds', 'images_per_second', 'params')


@dataclasses.dataclass(frozen=True)
class Record:
    """A run, or a directory that holds none. Nobody changes what it holds."""

    name: str  # its path, as given or as found below a given one; a name to show
    workdir: str = ''  # its directory; '' if the record is from a file of records
    status: str = ''  # 'finished', 'failed', 'running', 'interrupted', 'waiting', ...
    updated: float = 0.0  # when it last wrote something, in seconds since 1970; 0: unknown
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # 'optim.name': 'adam'
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as in summary.json
    # Of environment.json: command, python, processor, cpu_count, packages, platform, devices,
    # driver, git, data (source, mode, sizes, sha256, classes, image_shape).
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()  # as in metrics.jsonl, maybe thinned
    artifacts: tuple[str, ...] = ()  # files that exist, such as 'artifacts/predictions.npz'
    correct: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # reporting/predictions.py
    trial: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # trial.json of a sweep
    problem: str = ''  # one line: what is damaged, or why this is no run

    @property
    def is_run(self) -> bool:
        """Whether there is a config, so that this is a run, and not a foreign directory."""
        return bool(self.config)

    @property
    def progress(self) -> float:
        """The share of the training that is done, from 0 to 1; NaN if that is unknown."""
        if self.status == 'finished':
            return 1.0
        total, done = self.config.get('train.steps'), self.summary.get('step', 0)
        if not total:
            total, done = self.config.get('train.epochs'), self.summary.get('epochs', 0)
        try:
            return min(done / total, 1.0)
        except (TypeError, ZeroDivisionError):
            return math.nan

    @property
    def checkpoint(self) -> str:
        """The parameters that `val/...` and `test/...` are of: 'best', 'last' or '' (no result)."""
        if 'best' in self.summary:
            return 'best'
        return 'last' if 'test' in self.summary or 'val' in self.summary else ''

    @property
    def best_validation(self) -> float:
        """The accuracy of the best checkpoint on the validation split, so far; NaN if unknown."""
        best = self.summary.get('best')
        accuracy = best.get('accuracy') if isinstance(best, Mapping) else None
        if isinstance(accuracy, int | float):
            return accuracy
        found = [value for _, value in self.series('val/accuracy')]
        numbers = [value for value in found if isinstance(value, int | float)]
        return max((value for value in numbers if not math.isnan(value)), default=math.nan)

    def images(self, split: str) -> str:
        """Returns the sha256 of the images of a split, such as 'test'; '' if it is unknown."""
        data = self.environment.get('data')
        digests = data.get('sha256') if isinstance(data, Mapping) else None
        return str(digests.get(split) or '') if isinstance(digests, Mapping) else ''

    @property
    def test_images(self) -> str:
        """The sha256 of the images it was tested on; '' if it is unknown."""
        return self.images('test')

    def value(self, name: str) -> Any:
        """Returns what the run has under a name, or None.

        Args:
            name: a result ('test/accuracy', 'val/loss', 'best/step'), the last value of a series
                ('last/val/accuracy'), another part of the summary ('train_seconds', 'params'),
                of the environment ('git/commit', 'packages/jax'), 'name', 'status', 'progress', or
                a field of the config ('optim.learning_rate').
        """
        if name in ('name', 'status', 'progress', 'updated'):
            return getattr(self, name)
        if name in _RESULTS:
            return self.summary.get(name)
        part, _, key = name.partition('/')
        if part == 'last':
            return next((row[key] for row in reversed(self.rows) if key in row), None)
        if key:
            source = self.environment if part in ('git', 'packages') else self.summary
            results = source.get(part)
            return results.get(key) if isinstance(results, Mapping) else None
        return self.config.get(name)

    def metrics(self) -> list[str]:
        """Returns the names of the results in the summary: 'test/accuracy', 'val/loss', ..."""
        return [
            f'{part}/{key}'
            for part in ('test', 'val')
            if isinstance(self.summary.get(part), Mapping)
            for key, value in self.summary[part].items()
            if isinstance(value, int | float)
        ]

    def series(self, name: str) -> list[tuple[int, Any]]:
        """Returns (step, value) of each row that has a key such as 'train/loss'."""
        return [(row['step'], row[name]) for row in self.rows if name in row]


def is_place(field: str) -> bool:
    """Whether a config field says no more than where something lies or is sent."""
    return field.startswith(PLACES)
