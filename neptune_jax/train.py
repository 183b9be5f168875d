"""The training loop, from a config to a finished run directory. Read it from top to bottom."""

import contextlib
import tempfile
import time

import jax
import numpy as np

from neptune_jax import (
    artifacts,
    build,
    checkpoints,
    debugging,
    display,
    hosts,
    metrics,
    preemption,
    runs,
    tracking,
)
from neptune_jax.errors import Preempted, UserError
from neptune_jax.state import count_params


def train_and_evaluate(config, workdir):
    """Trains, validates, and tests the best checkpoint once; resumes a run that was interrupted.

    Of several processes only process 0 writes the run directory. The others do the same in a
    directory that is thrown away.

    Args:
        config: a ConfigDict with the fields of configs/cnn.py.
        workdir: the run directory, new or of a run with the same config.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        UserError: something the user can mend, before training or in it.
        Preempted: a signal has asked the run to end; what it has done is saved.
    """
    with (
        hosts.joined(config.parallel.distributed),
        preemption.watch() as notice,
        tempfile.TemporaryDirectory() as elsewhere,
    ):
        experiment = build.create(config)
        environment = runs.environment(experiment.devices, experiment.dataset.describe())
        workdir = elsewhere if jax.process_index() else workdir
        with (
            notice.deferred(),
            contextlib.ExitStack() as after_the_run,
            runs.open_run(workdir, config, environment) as run,
            tracking.captured(config.neptune, run.workdir),
        ):
            run.write_artifact('data_report.json', experiment.dataset.report)
            display.line(f'run      {run.workdir}')
            if jax.process_index() == 0:
                tracked = tracking.tracked(config.neptune, run.workdir, notice)
                after_the_run.enter_context(tracked)
            display.header(experiment)
            if hosts.broadcast(np.array(run.summary.get('status') == 'finished')):
                display.line('this run has finished before; its results were:')
            else:
                _run(experiment, run, notice)
            if jax.process_index() == 0:
                display.results(run, experiment)
            return run.summary


def _run(experiment, run, notice):
    keep = experiment.config.checkpoint.keep
    with run.status(), checkpoints.open_checkpoints(run.path('checkpoints'), keep) as saved:
        checkpoints.check_room(run.workdir, experiment.abstract_state)
        with notice.allowed():
            feed = build.create_feed(experiment)
            evaluate = build.compile_evaluate(experiment, feed)
        training = _Training(experiment, run, saved, evaluate, notice)
        if not training.is_complete:
            training.go_on(feed)
        with notice.allowed():
            _test(experiment, run, saved, training.state, evaluate)


class _Training:
    """A training somewhere between its first step and its last."""

    def __init__(self, experiment, run, saved, evaluate, notice):
        self.experiment, self.run, self.saved = experiment, run, saved
        self.evaluate, self.notice = evaluate, notice
        restored = saved.restore_first(
            reversed(saved.steps), experiment.abstract_state, display.line
        )
        run.rewind(restored.step if restored else 0)
        for row in runs.read_rows(run.workdir):
            if 'val/accuracy' in row:
                saved.accuracies[row['step']] = row['val/accuracy']
        self.step, self.state = _from_process_0(experiment, restored)
        self.saved_step, self.saved_at = self.step, time.monotonic()
        self.interval = restored.data['interval'] if restored else []
        if self.step:
            display.line(f'resuming after step {self.step:,}')
            if hosts.broadcast(np.array(self.step in saved.accuracies)):
                saved.accuracies.setdefault(self.step, 0.0)  # process 0 knows its value
        else:
            self.state = build.init_state(experiment)

    def evaluates(self):
        """Whether the validation split is to be evaluated now, and has not been."""
        last = self.step == self.experiment.total_steps
        due = self.step and (last or self.step % self.experiment.eval_every == 0)
        has_images = len(self.experiment.dataset.splits['val']) > 0
        return due and has_images and self.step not in self.saved.accuracies

    @property
    def is_complete(self):
        return self.step == self.experiment.total_steps and not self.evaluates()

    def go_on(self, feed):
        """Takes the steps that remain, leaving rows and checkpoints."""
        experiment, config, notice = self.experiment, self.experiment.config, self.notice
        total_steps = experiment.total_steps

        # -------------------------------------------------------------- The step, compiled once
        with notice.allowed():
            began = time.perf_counter()
            calls = build.calls(experiment, self.step)
            train_steps = {
                count: build.compile_train_step(experiment, feed, count)
                for count in sorted(set(calls.counts))
            }
            display.line(f'compiled the steps in {time.perf_counter() - began:.1f} s')
        learning_rates = np.asarray(jax.vmap(experiment.schedule)(np.arange(total_steps)), float)
        items = feed.batches(calls, 0, len(calls), config.data.workers)

        # -------------------------------------------------------------- Training
        with (
            display.Progress(experiment, self.step) as self.progress,
            debugging.profiled(
                train_steps, self.run, config.train.profile_steps, self.step
            ) as train_steps,
            debugging.nans(config.train.debug_nans),
            # Whatever crosses between host and device does so by an explicit call.
            jax.transfer_guard('allow' if config.train.debug_nans else 'disallow'),
            contextlib.closing(items),
        ):
            self.rows = _Rows(self.run, self.progress, learning_rates, self.interval)
            self.clock = _Clock(self.run, experiment, self.step)
            try:
                self.validate()  # where a signal has kept it from being done
                for count in calls.counts:
                    notice.check(self.step + 1)
                    with notice.allowed():
                        item = next(items)
                    self.state, values = train_steps[count](self.state, feed.data, item)
                    self.step += count
                    self.rows.add(self.step, values)
                    self.progress.advance(self.step)
                    if self.evaluates() or self.step % experiment.log_every == 0:
                        self.rows.end_interval()
                    self.validate()
                    if self.is_time_to_save():
                        self.save()
            except Preempted:
                self.save()
                raise

    def validate(self):
        """Evaluates the validation split where that is due; saves the state if it is the best."""
        if not self.evaluates():
            return
        self.rows.write()
        with self.clock.paused(), self.notice.allowed():
            totals, _ = self.evaluate(self.state, self.experiment.dataset.splits['val'])
        values = metrics.summarize(totals)
        is_best = values['accuracy'] >= max(self.saved.accuracies.values(), default=0.0)
        self.run.write(self.step, {f'val/{name}': value for name, value in values.items()})
        self.saved.accuracies[self.step] = values['accuracy']
        self.progress.validated(self.step, values, is_best)
        self.clock.report(self.step)
        if is_best:
            self.save()

    def is_time_to_save(self):
        if self.step == self.experiment.total_steps:
            return True
        if self.experiment.checkpoint_every:
            return self.step % self.experiment.checkpoint_every == 0
        return time.monotonic() - self.saved_at >= self.experiment.checkpoint_seconds

    def save(self):
        """Saves the state and the metrics that are in no row yet; only once after a step."""
        if self.step == self.saved_step:
            return
        with self.clock.paused():
            self.rows.write()
            data = self.experiment.dataset.meaning() | {'interval': self.rows.unwritten()}
            self.run.flush()
            self.saved.save(self.step, self.state, data)
        self.saved_step, self.saved_at = self.step, time.monotonic()
        self.clock.report(self.step)


def _from_process_0(experiment, restored):
    """Returns process 0's step and state in all processes; 0 and None where it restored none."""
    step = int(hosts.broadcast(np.int32(restored.step if restored else 0)))
    if not step:
        return 0, None
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), experiment.abstract_state)
    state = hosts.broadcast(restored.state if restored else zeros)
    return step, experiment.devices.replicate(state)


class _Rows:
    """Makes rows of the steps' metrics, a row for each log interval.

    They are fetched an interval late: by then the device has computed them, and has the next
    interval's steps in its queue.
    """

    def __init__(self, run, progress, learning_rates, interval):
        self._run, self._progress, self._learning_rates = run, progress, learning_rates
        # (step, metrics) of the calls since the last row's: of its last step, of all its steps.
        self._interval = list(interval)
        self._waiting = []  # those of the interval before

    def add(self, step, values):
        self._interval.append((step, values))

    def end_interval(self):
        self.write()
        self._waiting, self._interval = self._interval, []

    def write(self):
        """Writes the row that waits: the means over its steps, and the last learning rate.

        Raises:
            UserError: a loss that is not finite; the message names the first such step.
        """
        if not self._waiting:
            return
        interval, self._waiting = _fetch(self._waiting), []
        step, last = interval[-1]
        means = {name: float(np.mean([value[name] for _, value in interval])) for name in last}
        means['learning_rate'] = self._learning_rates[step - 1]
        self._run.write(step, {f'train/{name}': value for name, value in means.items()})
        self._progress.logged(step, means)
        for step, value in interval:
            if not np.isfinite(value['loss']):
                raise UserError(
                    f'the loss is {value["loss"]} at step {step}; try a lower '
                    'optim.learning_rate, some optim.warmup, or optim.clip_norm'
                )

    def unwritten(self):
        """Returns (step, metrics as floats) of the steps that are in no row, for a checkpoint."""
        interval = _fetch(self._interval)
        if not all(np.isfinite(value['loss']) for _, value in interval):
            self.end_interval()
            self.write()
        return interval


def _fetch(interval):
    """Returns (step, metrics as floats) of each step."""
    steps = []
    for last, values in jax.device_get(interval):
        values = {name: np.atleast_1d(value) for name, value in values.items()}
        count = len(values['loss'])
        for i in range(count):
            floats = {name: float(value[i]) for name, value in values.items()}
            steps.append((last - count + 1 + i, floats))
    return steps


class _Clock:
    """Counts the seconds of training, also of the run's earlier parts; not while it is paused."""

    def __init__(self, run, experiment, start):
        self._run, self._experiment, self._start = run, experiment, start
        self._before = run.summary.get('train_seconds', 0.0)
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def paused(self):
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def report(self, step):
        """Writes where the run is into its summary."""
        if step == self._start:
            return
        seconds = time.perf_counter() - self._began
        images = (step - self._start) * self._experiment.config.train.batch_size
        self._run.update_summary(
            step=step,
            epochs=round(step / self._experiment.steps_per_epoch, 3),
            train_seconds=round(self._before + seconds, 3),
            images_per_second=round(images / seconds, 1),
        )


def _test(experiment, run, saved, state, evaluate):
    """Evaluates the best checkpoint on the test split and leaves summary and artifacts."""
    saved.wait()
    summary = {'params': count_params(state.params)}
    accuracies = saved.accuracies
    validated = [step for step in saved.steps if step in accuracies]
    best = saved.restore_first(
        sorted(validated, key=lambda step: (accuracies[step], step), reverse=True),
        experiment.abstract_state,
        display.line,
    )
    step, best_state = _from_process_0(experiment, best)
    if step:
        state = best_state
        summary['best'] = {'step': step, 'accuracy': accuracies.get(step)}
        rows = [row for row in runs.read_rows(run.workdir) if row['step'] == step]
        summary['val'] = {
            key.removeprefix('val/'): value
            for row in rows
            for key, value in row.items()
            if key.startswith('val/')
        }
    examples = experiment.dataset.splits['test']
    totals, outputs = evaluate(state, examples)
    artifacts.write(run, experiment.dataset, examples, totals, outputs)
    run.update_summary(**summary, test=metrics.summarize(totals))
