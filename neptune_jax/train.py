"""The training loop, from a config to a finished run directory. Read it from top to bottom."""

import contextlib
import time

import jax
import numpy as np

from neptune_jax import artifacts, build, checkpoints, display, metrics, runs
from neptune_jax.errors import UserError
from neptune_jax.state import count_params


def train_and_evaluate(config, workdir):
    """Trains, validates, and tests the best checkpoint once; resumes a run that was interrupted.

    Args:
        config: a ConfigDict with the fields of configs/cnn.py.
        workdir: the run directory, new or of a run with the same config.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        UserError: something the user can mend, before training or in it.
    """
    experiment = build.create(config)
    environment = runs.environment(experiment.devices, experiment.dataset.describe())
    run = runs.open_run(workdir, config, environment)
    run.write_artifact('data_report.json', experiment.dataset.report)
    display.header(experiment, run)
    if run.summary.get('status') == 'finished':
        display.line('this run has finished before; its results were:')
    else:
        keep = config.checkpoint.keep
        with run.status(), checkpoints.open_manager(run.path('checkpoints'), keep) as manager:
            feed = build.create_feed(experiment)
            evaluate = build.compile_evaluate(experiment, feed)
            state = _train(experiment, run, manager, feed, evaluate)
            _test(experiment, run, manager, state, evaluate)
    display.results(run)
    return run.summary


def _train(experiment, run, manager, feed, evaluate):
    """Takes the steps that remain, leaving rows and checkpoints; returns the last state."""
    config, dataset = experiment.config, experiment.dataset

    # ------------------------------------------------------------------ Where to start
    start = manager.latest_step() or 0
    if start:
        state, _ = checkpoints.restore(manager, start, experiment.abstract_state)
        display.line(f'resuming after step {start:,}')
    else:
        state = build.init_state(experiment)
    run.rewind(start)
    best_accuracy = max(
        (row['val/accuracy'] for row in runs.read_rows(run.workdir) if 'val/accuracy' in row),
        default=-1.0,
    )
    if start >= experiment.total_steps:
        return state

    learning_rates = np.asarray(
        jax.vmap(experiment.schedule)(np.arange(experiment.total_steps)), np.float64
    )

    # ------------------------------------------------------------------ The step, compiled once
    began = time.perf_counter()
    train_step = build.compile_train_step(experiment, feed)
    display.line(f'compiled the steps in {time.perf_counter() - began:.1f} s')
    items = feed.batches(experiment.order, start, experiment.total_steps, config.data.workers)

    # ------------------------------------------------------------------ Training
    seconds_before = run.summary.get('train_seconds', 0.0)
    with (
        display.Progress(experiment, start) as progress,
        # Whatever crosses between host and device does so by an explicit call.
        jax.transfer_guard('disallow'),
    ):
        clock = _Clock()
        dispatched, waiting = [], []  # metrics of the steps since the last log point; before it
        for step, item in enumerate(items, start + 1):
            state, step_metrics = train_step(state, feed.data, item)
            dispatched.append((step, step_metrics))
            last = step == experiment.total_steps
            evaluates = len(dataset.splits['val']) and (last or step % experiment.eval_every == 0)
            saves = last or step % experiment.checkpoint_every == 0

            # Metrics are fetched a log interval late: by then the device has computed them, and
            # has the next interval's steps in its queue.
            if evaluates or saves or step % experiment.log_every == 0:
                _record(run, waiting, learning_rates, progress)
                waiting, dispatched = dispatched, []
            progress.advance(step)
            if not (evaluates or saves):
                continue

            # ---------------------------------------------------------- Validation
            _record(run, waiting, learning_rates, progress)
            waiting, accuracy = [], None
            with clock.paused():
                if evaluates:
                    totals, _ = evaluate(state, dataset.splits['val'])
                    values = metrics.summarize(totals)
                    run.write(step, {f'val/{name}': value for name, value in values.items()})
                    accuracy = values['accuracy']
                    progress.validated(step, values, is_best=accuracy >= best_accuracy)

                # ------------------------------------------------------ Checkpoint
                if saves or (evaluates and accuracy >= best_accuracy):
                    checkpoints.save(manager, step, state, dataset.meaning(), accuracy)
                best_accuracy = max(best_accuracy, accuracy or -1.0)
            images = (step - start) * config.train.batch_size
            run.update_summary(
                step=step,
                epochs=round(step / experiment.steps_per_epoch, 3),
                train_seconds=round(seconds_before + clock.seconds, 3),
                images_per_second=round(images / clock.seconds, 1),
            )
    return state


def _record(run, interval, learning_rates, progress):
    """Writes the row of a log interval: the means over its steps, and the last learning rate.

    Raises:
        UserError: a loss that is not finite; the message names the first such step.
    """
    if not interval:
        return
    steps, values = zip(*jax.device_get(interval), strict=True)
    means = {name: float(np.mean([value[name] for value in values])) for name in values[0]}
    means['learning_rate'] = learning_rates[steps[-1] - 1]
    run.write(steps[-1], {f'train/{name}': value for name, value in means.items()})
    progress.logged(steps[-1], means)
    for step, value in zip(steps, values, strict=True):
        if not np.isfinite(value['loss']):
            raise UserError(
                f'the loss is {value["loss"]} at step {step}; try a lower optim.learning_rate, '
                'some optim.warmup, or optim.clip_norm'
            )


def _test(experiment, run, manager, state, evaluate):
    """Evaluates the best checkpoint on the test split and leaves summary and artifacts."""
    manager.wait_until_finished()
    validated = [row for row in runs.read_rows(run.workdir) if 'val/accuracy' in row]
    summary = {'params': count_params(state.params)}
    if validated:
        best = max(validated, key=lambda row: (row['val/accuracy'], row['step']))
        state, _ = checkpoints.restore(manager, best['step'], experiment.abstract_state)
        summary['best'] = {'step': best['step'], 'accuracy': best['val/accuracy']}
        summary['val'] = {
            key.removeprefix('val/'): value for key, value in best.items() if key.startswith('val/')
        }
    examples = experiment.dataset.splits['test']
    totals, outputs = evaluate(state, examples)
    artifacts.write(run, experiment.dataset, examples, totals, outputs)
    run.update_summary(**summary, test=metrics.summarize(totals))


class _Clock:
    """Counts seconds, except while it is paused."""

    def __init__(self):
        self._began = time.perf_counter()

    @property
    def seconds(self):
        return time.perf_counter() - self._began

    @contextlib.contextmanager
    def paused(self):
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began
