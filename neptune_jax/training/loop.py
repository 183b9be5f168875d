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
from neptune_jax.errors import Preempted
from neptune_jax.experiment import create, init_state, read_initial_weights
from neptune_jax.reporting import page
from neptune_jax.runs import checkpoints as checkpointing
from neptune_jax.runs import environment, reader, writer
from neptune_jax.tracking import follow
from neptune_jax.training import compiled, debugging, memory, progress
from neptune_jax.training.one_run import OneRun, from_process_0


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
    config, parallel, total_steps = experiment.config, experiment.parallel, experiment.total_steps
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.status())
        stack.enter_context(memory.explained(config, experiment))
        checkpoints = stack.enter_context(
            checkpointing.open_checkpoints(run.path('checkpoints'), config.checkpoint.keep)
        )
        checkpointing.check_room(run.workdir, experiment.abstract_state)
        one = OneRun(experiment, run, checkpoints, preemption)

        # ------------------------------------------------------------------------------- Restore
        restored = one.restore()
        step, state = from_process_0(experiment, restored)
        if step:
            terminal.line(f'resuming after step {step:,}')
            accuracy = processes.broadcast(np.float64(checkpoints.accuracies.get(step, -1)))
            if accuracy != -1:  # it was validated, as only process 0 knows
                checkpoints.accuracies[step] = float(accuracy)
        else:
            state = init_state(experiment, weights or read_initial_weights(experiment))

        # ------------------------------------------------------------------------------- Compile
        with preemption.allowed():
            feed = feeds.create(experiment.dataset, parallel)
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
        def save():
            if not one.is_saved(step):
                by_clock = experiment.checkpoint_every is None  # that of each process
                with one.paused():
                    with_its_statistics = with_statistics(state, alone=by_clock)
                one.save(step, with_its_statistics)

        with (
            progress.Progress(experiment, step) as display,
            debugging.profiled(train_steps, run, config.train.profile_steps, step) as train_steps,
            debugging.nans(config.train.debug_nans),
            # Host and device exchange arrays only where the code asks for it.
            jax.transfer_guard('allow' if config.train.debug_nans else 'disallow'),
            contextlib.closing(feed.batches(groups, 0, len(groups), config.data.workers)) as items,
        ):
            one.start(step, display, restored.data['interval'] if restored else [])
            try:
                while True:
                    is_best = False
                    if one.must_validate(step):  # also at once, if a signal interrupted it
                        one.rows.write()
                        with one.paused(), preemption.allowed():
                            state = with_statistics(state)
                        is_best = one.validate(step, state, evaluate)
                    if step == total_steps:
                        with one.paused(), preemption.allowed():
                            state = with_statistics(state)
                        one.check_end(step, state, evaluate)
                    if is_best or one.must_save(step):
                        save()
                    if step == total_steps:
                        break
                    preemption.check(step + 1)
                    with preemption.allowed():
                        item = next(items)
                    count = groups.count(step)
                    state, values = train_steps[count](state, feed.data, item)
                    step += count
                    one.rows.add(step, values)
                    display.advance(step)
                    if one.must_validate(step):
                        one.rows.end_interval()
            except Preempted:
                save()
                raise

        # ---------------------------------------------------------------------------------- Test
        with preemption.allowed():
            one.test(step, state, evaluate)
