"""The training loop: from a config to a finished run directory. Read it from top to bottom."""

import contextlib
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from neptune_jax import models, terminal
from neptune_jax.data import feed as feeds
from neptune_jax.devices import preemption as preemptions
from neptune_jax.devices import processes
from neptune_jax.errors import Preempted, UserError
from neptune_jax.experiment import create, init_state, read_initial_weights
from neptune_jax.learning import metrics
from neptune_jax.learning.state import count_params
from neptune_jax.reporting import figures, page, tables
from neptune_jax.runs import checkpoints as checkpointing
from neptune_jax.runs import environment, reader, writer
from neptune_jax.tracking import follow
from neptune_jax.training import compiled, debugging, memory, progress, records


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict:
    """Trains, validates, and tests the best checkpoint; resumes a run that was interrupted.

    With several processes, process 0 writes the run directory. The others write to a temporary
    directory.

    Args:
        config: a ConfigDict with the fields of defaults.py.
        workdir: the run directory, new or of a run with the same config.

    Returns:
        The summary of the run, as in summary.json.

    Raises:
        UserError: a mistake that the user can correct, before or during the training.
        Preempted: a signal has asked the run to stop; its state is saved.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model = models.complete_fields(config.model)
    with (
        processes.joined(config.parallel.distributed, config.parallel.wait_seconds),
        preemptions.watch() as preemption,
        tempfile.TemporaryDirectory() as temporary,
    ):
        with memory.explained(config):
            experiment = create(config)
        is_new = processes.broadcast(np.array(not reader.checkpoint_steps(workdir)))
        weights = read_initial_weights(experiment) if is_new else None
        workdir = temporary if jax.process_index() else workdir
        about = environment.collect(experiment.parallel, experiment.dataset.describe())
        with (
            preemption.deferred(),
            contextlib.ExitStack() as after_the_run,
            writer.open_run(workdir, config, about) as run,
            follow.captured(config.neptune, run.workdir),
        ):
            run.write_artifact('data_report.json', experiment.dataset.report)
            terminal.line(f'run      {run.workdir}')
            if jax.process_index() == 0:
                tracked = follow.tracked(config.neptune, run.workdir, preemption)
                after_the_run.enter_context(tracked)
            progress.header(experiment, weights)
            if processes.broadcast(np.array(run.summary.get('status') == 'finished')):
                terminal.line('this run has finished before; its results were:')
            else:
                _run(experiment, run, weights, preemption)
                if config.report.every_run and jax.process_index() == 0:
                    page.write_run(run.workdir)
            if jax.process_index() == 0:
                progress.results(run, experiment)
            return run.summary


def _run(experiment, run, weights, preemption):
    """Takes a run from its last checkpoint, or from the start, to its end."""
    config, parallel, dataset = experiment.config, experiment.parallel, experiment.dataset
    total_steps = experiment.total_steps
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.status())
        stack.enter_context(memory.explained(config, experiment))
        checkpoints = stack.enter_context(
            checkpointing.open_checkpoints(run.path('checkpoints'), config.checkpoint.keep)
        )
        checkpointing.check_room(run.workdir, experiment.abstract_state)

        # ------------------------------------------------------------------------------- Restore
        latest_first = reversed(checkpoints.steps)
        restored = checkpoints.restore_first(latest_first, experiment.abstract_state, terminal.line)
        run.rewind(restored.step if restored else 0)
        checkpoints.accuracies.update(reader.validation_accuracies(run.workdir))
        step, state = _from_process_0(experiment, restored)
        if step:
            terminal.line(f'resuming after step {step:,}')
            accuracy = processes.broadcast(np.float64(checkpoints.accuracies.get(step, -1)))
            if accuracy != -1:  # it was validated, as only process 0 knows
                checkpoints.accuracies[step] = float(accuracy)
        else:
            state = init_state(experiment, weights or read_initial_weights(experiment))
        saved_step, saved_at = step, time.monotonic()

        # ------------------------------------------------------------------------------- Compile
        with preemption.allowed():
            feed = feeds.create(dataset, parallel)
            evaluate = compiled.compile_evaluate(experiment, feed)
            with_statistics = compiled.compile_batch_statistics(experiment, feed)
        groups = compiled.step_groups(experiment, step)
        with preemption.allowed():
            began = time.perf_counter()
            train_steps = {
                count: compiled.compile_train_step(experiment, feed, count)
                for count in sorted(groups.counts())
            }
        if train_steps:
            terminal.line(f'compiled the steps in {time.perf_counter() - began:.1f} s')

        # --------------------------------------------------------------------------------- Train
        def must_validate():
            is_due = step == total_steps or step % experiment.eval_every == 0
            has_images = len(dataset.splits['val']) > 0
            return step > 0 and is_due and has_images and step not in checkpoints.accuracies

        def must_save():
            if step == total_steps:
                return True
            every = experiment.checkpoint_every
            if every:  # one may be due within a call; it is saved after that call
                return step // every > saved_step // every
            return time.monotonic() - saved_at >= experiment.checkpoint_seconds

        def save():
            nonlocal saved_step, saved_at
            if step == saved_step:
                return
            rows.write()
            data = dataset.preprocessing | {'interval': rows.unwritten()}
            with clock.paused():
                run.flush()
                by_clock = experiment.checkpoint_every is None  # that of each process
                checkpoints.save(step, with_statistics(state, alone=by_clock), data)
            saved_step, saved_at = step, time.monotonic()
            clock.report(step)

        with (
            progress.Progress(experiment, step) as display,
            debugging.profiled(train_steps, run, config.train.profile_steps, step) as train_steps,
            debugging.nans(config.train.debug_nans),
            # Host and device exchange arrays only where the code asks for it.
            jax.transfer_guard('allow' if config.train.debug_nans else 'disallow'),
            contextlib.closing(feed.batches(groups, 0, len(groups), config.data.workers)) as items,
        ):
            clock = records.Clock(run, experiment, step)
            unwritten = restored.data['interval'] if restored else []
            rows = records.Rows(run, display, clock, step, unwritten, experiment.log_every)
            try:
                while True:
                    is_best = False
                    if must_validate():  # also at once, if a signal interrupted a validation
                        rows.write()
                        with clock.paused(), preemption.allowed():
                            state = with_statistics(state)
                            totals, _ = evaluate(state, dataset.splits['val'])
                        values = metrics.summarize(totals)
                        run.write(step, {f'val/{name}': value for name, value in values.items()})
                        finite = np.isfinite(values['loss'])
                        checkpoints.accuracies[step] = values['accuracy'] if finite else np.nan
                        is_best = reader.best(checkpoints.accuracies) == step
                        display.validated(step, values, is_best)
                        clock.report(step)
                    if step == total_steps:
                        rows.check()
                        with clock.paused(), preemption.allowed():
                            state = with_statistics(state)
                            _check_end(experiment, run, checkpoints, evaluate, state, step)
                    if is_best or must_save():
                        save()
                    if step == total_steps:
                        break
                    preemption.check(step + 1)
                    with preemption.allowed():
                        item = next(items)
                    count = groups.count(step)
                    state, values = train_steps[count](state, feed.data, item)
                    step += count
                    rows.add(step, values)
                    display.advance(step)
                    if must_validate():
                        rows.end_interval()
            except Preempted:
                save()
                raise

        # ---------------------------------------------------------------------------------- Test
        with preemption.allowed():
            checkpoints.wait()
            run.update_summary(params=count_params(state.params))
            best = checkpoints.restore_best(experiment.abstract_state, terminal.line)
            best_step, best_state = _from_process_0(experiment, best)
            if best_step:
                state = best_state
                validated = reader.split_metrics(run.workdir, best_step, 'val')
                best_accuracy = checkpoints.accuracies.get(best_step)
                run.update_summary(
                    best={'step': best_step, 'accuracy': best_accuracy}, val=validated
                )
            examples = dataset.splits['test']
            if len(examples):
                totals, outputs = evaluate(state, examples)
                if not best_step:
                    _check_loss(checkpoints, metrics.summarize(totals)['loss'], step, 'test')
                folder = run.path('artifacts')
                tables.write(folder, dataset, examples, totals, outputs)
                run.update_summary(test=metrics.summarize(totals))
                figures.write(folder, dataset, examples, totals, outputs, curves_of=run.workdir)


def _from_process_0(experiment, restored):
    """Returns the step and the state that process 0 has restored; 0 and None if it has none."""
    step = int(processes.broadcast(np.int32(restored.step if restored else 0)))
    if not step:
        return 0, None
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), experiment.abstract_state)
    state = processes.broadcast(restored.state if restored else zeros)
    return step, experiment.parallel.replicate(state)


def _check_end(experiment, run, checkpoints, evaluate, state, step):
    """Raises UserError if the loss of the last state is not finite: the run has diverged.

    The loss of the last step cannot tell, because it is that of the parameters before the step.
    Without validation, some images of another split tell.
    """
    splits = experiment.dataset.splits
    if step in checkpoints.accuracies:
        found = reader.split_metrics(run.workdir, step, 'val')
        # Process 0 alone has the rows of an earlier part of the run.
        _check_loss(
            checkpoints, found.get('loss', checkpoints.accuracies[step]), step, 'validation'
        )
    else:
        split = 'test' if len(splits['test']) else 'train'
        totals, _ = evaluate(state, splits[split][: experiment.config.eval.batch_size])
        _check_loss(checkpoints, metrics.summarize(totals)['loss'], step, split)


def _check_loss(checkpoints, loss, step, split):
    """Raises UserError, without leaving a checkpoint of this step, if a loss is not finite."""
    try:
        records.check_loss(loss, step, split)
    except UserError:
        checkpoints.delete(step)
        raise
