"""What a training records: rows of metrics, and the time that it takes."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from neptune_jax.errors import UserError
from neptune_jax.experiment import Experiment
from neptune_jax.runs.writer import Run
from neptune_jax.training.progress import Progress

# (step, metrics) of each step.
Steps = list[tuple[int, dict[str, float]]]


class Clock:
    """Counts the seconds of training, without the pauses for evaluation and checkpoints."""

    def __init__(self, run: Run, experiment: Experiment, step: int) -> None:
        """Starts counting after `step` steps; earlier parts of the run are in its summary."""
        self._run, self._experiment, self._start = run, experiment, step
        self._seconds_before = run.summary.get('train_seconds', 0.0)
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training since the start of this process's part."""
        return time.perf_counter() - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def report(self, step: int) -> None:
        """Writes the progress of the run into its summary."""
        if step == self._start:
            return
        seconds = self.seconds
        images = (step - self._start) * self._experiment.config.train.batch_size
        self._run.update_summary(
            step=step,
            epochs=round(step / self._experiment.steps_per_epoch, 3),
            train_seconds=round(self._seconds_before + seconds, 3),
            images_per_second=round(images / seconds, 1),
        )


class Rows:
    """Writes a row of metrics for each log interval: the means over its steps.

    Fetching metrics waits for the device. A row is therefore written one interval late: by then the
    device has computed it, and the steps of the next interval are in its queue.
    """

    def __init__(
        self, run: Run, progress: Progress, clock: Clock, step: int, unwritten: Steps
    ) -> None:
        """Starts recording.

        Args:
            run: the run whose rows these are.
            progress: shows each row.
            clock: of the training.
            step: the steps taken before.
            unwritten: those of them that are in no row yet.
        """
        self._run, self._progress, self._clock = run, progress, clock
        # (last step, metrics of all its steps) of each call in the current log interval.
        self._interval: list[tuple[int, dict[str, Any]]] = list(unwritten)
        self._waiting: list[tuple[int, dict[str, Any]]] = []  # the same of the interval before
        # A thread notes when the interval before is computed; the training does not wait for it.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._computed: Future[float] | None = None
        self._last = step, clock.seconds  # of the last row: its step, and when it was computed

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        """Adds the metrics of a call that ended with `step`."""
        self._interval.append((step, values))

    def end_interval(self) -> None:
        """Ends the current log interval, and writes the row of the one before."""
        self.write()
        self._waiting, self._interval = self._interval, []
        self._computed = self._thread.submit(self._seconds_when_computed, self._waiting[-1])

    def _seconds_when_computed(self, call):
        jax.block_until_ready(call)
        return self._clock.seconds

    def write(self) -> None:
        """Writes the row that waits: means over its steps, but the last learning rate.

        Raises:
            UserError: a loss is not finite; the message names the first such step.
        """
        if not self._waiting or self._computed is None:
            return
        waiting, self._waiting = self._waiting, []
        seconds, steps = self._computed.result(), _fetch(waiting)
        step, last = steps[-1]
        means = {
            name: float(np.mean([values[name] for _, values in steps]))
            for name in last
            if name != 'learning_rate'
        }
        means['learning_rate'] = last['learning_rate']
        self._run.write(step, {f'train/{name}': value for name, value in means.items()})
        (last_step, last_seconds), self._last = self._last, (step, seconds)
        steps_per_second = (step - last_step) / max(seconds - last_seconds, 1e-9)
        self._progress.logged(step, means, steps_per_second)
        for step, values in steps:
            if not np.isfinite(values['loss']):
                raise UserError(
                    f'the loss is {values["loss"]} at step {step}; try a lower '
                    'optim.learning_rate, some optim.warmup, or optim.clip_norm'
                )

    def unwritten(self) -> Steps:
        """Returns the steps that are in no row yet, for a checkpoint."""
        steps = _fetch(self._interval)
        if not all(np.isfinite(values['loss']) for _, values in steps):
            self.end_interval()
            self.write()
        return steps


def _fetch(calls):
    """Returns (step, metrics as floats) of each step of some calls."""
    steps = []
    for last_step, values in jax.device_get(calls):
        values = {name: np.atleast_1d(value) for name, value in values.items()}
        count = len(values['loss'])
        for i in range(count):
            floats = {name: float(value[i]) for name, value in values.items()}
            steps.append((last_step - count + 1 + i, floats))
    return steps
