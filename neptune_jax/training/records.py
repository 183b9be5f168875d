"""What a training records: rows of metrics, and the time that it takes."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from neptune_jax.errors import UserError
from neptune_jax.experiment import Experiment
from neptune_jax.runs.writer import Run
from neptune_jax.training.progress import Display

Steps = list[tuple[int, dict[str, float]]]  # (step, metrics) of each step
Calls = list[tuple[int, dict[str, Any]]]  # (last step, metrics of all its steps) of each call


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


class _Waiting(NamedTuple):
    """Steps whose rows are to be written."""

    calls: Calls
    start: int  # the last step of the row before
    ends: list[int]  # the last step of each row


class Rows:
    """Writes a row of metrics for each log interval: the means over its steps.

    Fetching metrics waits for the device. A row is therefore written one interval late: by then the
    device has computed it, and the steps of the next interval are in its queue.

    A call of several steps may hold the end of an interval, or of several. The rows do not depend
    on how the steps are grouped into calls.
    """

    def __init__(
        self,
        run: Run,
        progress: Display,
        clock: Clock,
        step: int,
        unwritten: Steps,
        every: int | None = None,
    ) -> None:
        """Starts recording.

        Args:
            run: the run whose rows these are.
            progress: shows each row.
            clock: of the training.
            step: the steps taken before.
            unwritten: those of them that are in no row yet.
            every: a log interval ends at each multiple of this number of steps; None: it ends only
                where `end_interval` is called.
        """
        self._run, self._progress, self._clock, self._every = run, progress, clock, every
        self._calls: Calls = list(unwritten)  # those with steps that are in no row yet
        self._start = step - len(unwritten)  # the last step of the last row
        self._waiting: _Waiting | None = None
        # A thread notes when these steps are computed; the training does not wait for it.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._computed: Future[float] | None = None
        self._last = step, clock.seconds  # the last call of the last row: its step, when computed
        self._speed = 0.0  # steps a second between the last two of these calls

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        """Adds the metrics of a call that ended with `step`, and writes the rows before it."""
        self._calls.append((step, values))
        if self._every:
            steps = range(step - values['loss'].size + 1, step + 1)
            self._end([end for end in steps if end % self._every == 0])

    def end_interval(self) -> None:
        """Ends the current log interval, if it has any step, with the last call."""
        self._end([self._calls[-1][0]] if self._calls else [])

    def _end(self, ends):
        """Ends log intervals at steps of the last call, and writes the rows before them."""
        if not ends:
            return
        self.write()
        self._computed = self._thread.submit(self._seconds_when_computed, self._calls[-1])
        self._waiting = _Waiting(self._calls, self._start, ends)
        self._start = ends[-1]
        self._calls = [call for call in self._calls[-1:] if call[0] > self._start]

    def _seconds_when_computed(self, call):
        jax.block_until_ready(call)
        return self._clock.seconds

    def write(self) -> None:
        """Writes the rows that wait: means over their steps, but the last learning rate.

        Raises:
            UserError: a loss is not finite; the message names the first such step.
        """
        if self._waiting is None or self._computed is None:
            return
        waiting, self._waiting = self._waiting, None
        seconds, last_step = self._computed.result(), waiting.calls[-1][0]
        step_before, seconds_before = self._last
        if last_step > step_before:  # two rows may end in one call
            self._last = last_step, seconds
            self._speed = (last_step - step_before) / max(seconds - seconds_before, 1e-9)
        steps, start = _fetch(waiting.calls), waiting.start
        for end in waiting.ends:
            self._write_row([step for step in steps if start < step[0] <= end])
            start = end

    def _write_row(self, steps):
        step, last = steps[-1]
        means = {
            name: float(np.mean([values[name] for _, values in steps]))
            for name in last
            if name != 'learning_rate'
        }
        means['learning_rate'] = last['learning_rate']
        self._run.write(step, {f'train/{name}': value for name, value in means.items()})
        self._progress.logged(step, means, self._speed)
        for step, values in steps:
            check_loss(values['loss'], step)

    def check(self) -> None:
        """Writes the rows that wait; raises UserError if the loss of any step is not finite."""
        self.write()
        self.unwritten()

    def unwritten(self) -> Steps:
        """Returns the steps that are in no row yet, for a checkpoint; raises like `check`."""
        steps = [step for step in _fetch(self._calls) if step[0] > self._start]
        if not all(np.isfinite(values['loss']) for _, values in steps):
            self.end_interval()
            self.write()
        return steps


def check_loss(loss: float, step: int, split: str = '') -> None:
    """Raises UserError unless a loss is finite: that of a step, or of a split after it."""
    if not np.isfinite(loss):
        where = f' (this is the loss of the {split} split)' if split else ''
        raise UserError(
            f'the loss is {loss} at step {step}; try a lower optim.learning_rate, some '
            f'optim.warmup, or optim.clip_norm{where}'
        )


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
