"""What a sweep compares trials by: a validation metric, at the best checkpoint or over epochs."""

import math
from typing import NamedTuple

from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader
from neptune_jax.sweeping.trials import Trial

# The metrics of learning.metrics.summarize; of these, fewer is better for the first ones.
_LOWER = ('loss', 'ece')
_HIGHER = ('accuracy', 'precision_macro', 'recall_macro', 'f1_macro', 'top5_accuracy')


class Objective(NamedTuple):
    """A metric of the validation split, such as 'val/accuracy'."""

    key: str

    @property
    def name(self) -> str:
        """The metric without its split: 'accuracy'."""
        return self.key.removeprefix('val/')

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        return -1 if self.name in _LOWER else 1

    @property
    def worst(self) -> float:
        """The value of a trial that has failed: worse than any other."""
        return -self.sign * math.inf

    def of_best(self, summary: dict) -> float | None:
        """Returns the value of a finished run, which is always that of its best checkpoint."""
        value = summary.get('val', {}).get(self.name)
        return value if isinstance(value, int | float) else None


def parse(key: str) -> Objective:
    """Returns the Objective of a flag's value.

    Raises:
        UserError: it is no metric of the validation split.
    """
    split, _, name = key.partition('/')
    if split == 'test':
        raise UserError(
            f'--objective={key}: what is chosen by the test split has no test any more; choose '
            f'val/{name or "accuracy"}'
        )
    known = [f'val/{each}' for each in (*_HIGHER, *_LOWER)]
    if key not in known:
        raise UserError(f'--objective={key} is unknown; choose one of: {", ".join(known)}')
    return Objective(key)


class Curve(NamedTuple):
    """Values of the objective while a trial trains, by the epochs after which they were found."""

    points: tuple[tuple[float, float], ...]  # (epoch, value), in increasing order of epochs
    sign: int
    length: float = math.inf  # epochs of the whole training

    @property
    def epoch(self) -> float:
        """The last epoch, 0 if there is none."""
        return self.points[-1][0] if self.points else 0.0

    def best(self, epoch: float) -> float | None:
        """Returns the best value up to an epoch; None if the trial has not been that far.

        Trials may be validated more or less often, with batches of other sizes. So they are
        compared at the same epoch, by the best value up to there, and never by their rows' numbers.
        """
        if self.epoch < epoch - 1e-6:
            return None
        values = [value for at, value in self.points if at <= epoch + 1e-6]
        return self.sign * max(self.sign * value for value in values) if values else None


def read_curve(trial: Trial, objective: Objective) -> Curve:
    """Returns the Curve of a trial, so far. A loss that is not finite counts as the worst value."""
    try:
        rows = reader.read_rows(trial.directory)
        config = reader.read_config(trial.directory)
        sizes = files.read_json(trial.path('environment.json')).get('data', {}).get('sizes', {})
        steps_per_epoch = sizes['train'] // config['train']['batch_size']
        steps, length = config['train']['steps'], config['train']['epochs']
    except (OSError, ValueError, KeyError, AttributeError):  # not started, or damaged
        return Curve((), objective.sign)
    points = []
    for row in rows:
        value = row.get(objective.key)
        if isinstance(value, int | float):
            finite = math.isfinite(value) and math.isfinite(row.get('val/loss', 0.0))
            points.append((row['step'] / steps_per_epoch, value if finite else objective.worst))
    if steps:
        length = steps / steps_per_epoch
    return Curve(tuple(points), objective.sign, length)
