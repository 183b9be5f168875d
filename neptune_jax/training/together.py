"""Several runs in one program: they differ in nothing but their seeds. Like loop.py, a story.

Each run has its directory, rows, checkpoints and test, as if it was trained alone. Its numbers are
equal to those of a run that is, up to rounding.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from neptune_jax import experiment as experiments
from neptune_jax import models, terminal
from neptune_jax.data import feed as feeds
from neptune_jax.devices import preemption as preemptions
from neptune_jax.errors import Preempted, UserError
from neptune_jax.reporting import page
from neptune_jax.runs import checkpoints as checkpointing
from neptune_jax.runs import environment, reader, writer
from neptune_jax.tracking import follow
from neptune_jax.training import compiled, memory, progress
from neptune_jax.training.one_run import OneRun


def train_and_evaluate(
    config: ConfigDict, runs: Sequence[tuple[int, str | Path | None]]
) -> list[dict]:
    """Trains runs of several seeds in one program; resumes those that were interrupted.

    A run that has got further than the others waits for them. One that fails ends alone.

    Args:
        config: a ConfigDict with the fields of defaults.py; its `seed` does not matter.
        runs: of each the seed, and the run directory, as for `loop.train_and_evaluate`. Without a
            directory nothing is kept of it. It has its place in the program all the same, so that
            the others have the same bits.

    Returns:
        The summaries of the runs that have a directory.

    Raises:
        UserError: a mistake that the user can correct, or a run has failed.
        Preempted: a signal has asked the runs to stop; their states are saved.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model = models.complete_fields(config.model)
    with preemptions.watch() as preemption:
        with memory.explained(config):
            created = _create(config, [seed for seed, _ in runs])
        first = created[0]
        about = environment.collect(first.parallel, first.dataset.describe())
        about['together'] = len(runs)
        with (
            preemption.deferred(),
            contextlib.ExitStack() as after_the_runs,
            contextlib.ExitStack() as stack,
        ):
            members = []
            for number, (experiment, (_, workdir)) in enumerate(zip(created, runs, strict=True)):
                if workdir is None:
                    continue
                run = stack.enter_context(writer.open_run(workdir, experiment.config, about))
                stack.enter_context(follow.captured(config.neptune, run.workdir))
                after_the_runs.enter_context(
                    follow.tracked(config.neptune, run.workdir, preemption)
                )
                run.write_artifact('data_report.json', experiment.dataset.report)
                terminal.line(f'run      {run.workdir}')
                members.append(_Member(number, experiment, run))
            is_new = any(not reader.checkpoint_steps(member.run.workdir) for member in members)
            weights = experiments.read_initial_weights(first) if is_new else None
            progress.header(first, weights)
            unfinished = [
                member for member in members if member.run.summary.get('status') != 'finished'
            ]
            if unfinished:
                _train(created, unfinished, weights, preemption)
            _show_results(members)
            failed = [member for member in members if member.error]
            if failed:
                others = f' (and {len(failed) - 1} more)' if len(failed) > 1 else ''
                raise UserError(f'{failed[0].run.workdir}: {failed[0].error}{others}')
            return [member.run.summary for member in members]


def _create(config, seeds):
    """Returns the experiments of the seeds, which share their data."""
    created = []
    for seed in seeds:
        own = config.copy_and_resolve_references()
        own.seed = seed
        data = created[0].dataset if created else None
        created.append(experiments.create(own, data))
        if len(created) == 1:
            experiments.check_together(created[0])
    return created


class _Member:
    """A run of the group, and its place in the program.

    Attributes:
        start: the number of steps that it has taken when it joins the others.
        state: a TrainState of NumPy arrays after them, until it joins.
        error: why it has failed; '' if it has not.
        contexts: what is open as long as it is trained.
    """

    one: OneRun

    def __init__(self, number: int, experiment: experiments.Experiment, run: writer.Run) -> None:
        self.number, self.experiment, self.run = number, experiment, run
        self.start, self.state, self.error = 0, None, ''
        self.contexts = contextlib.ExitStack()
        self._unwritten: Any = []

    def restore(
        self, weights: experiments.InitialWeights | None, preemption: preemptions.Preemption
    ) -> None:
        """Gets the last checkpoint, or the initial state. The run is 'running' from then on."""
        run, experiment = self.run, self.experiment
        self.contexts.enter_context(run.status())
        folder, keep = run.path('checkpoints'), experiment.config.checkpoint.keep
        checkpoints = self.contexts.enter_context(checkpointing.open_checkpoints(folder, keep))
        checkpointing.check_room(run.workdir, experiment.abstract_state)
        self.one = OneRun(experiment, run, checkpoints, preemption)
        restored = self.one.restore()
        if restored:
            self.start, self._unwritten = restored.step, restored.data['interval']
            self.state = restored.state
            terminal.line(f'resuming after step {self.start:,}: {run.workdir}')
        else:
            weights = weights or experiments.read_initial_weights(experiment)
            self.state = jax.device_get(experiments.init_state(experiment, weights))

    def join(self, display: '_Display', paused: Callable) -> None:
        """Starts the rows and the clock, which stands still in the context `paused()`."""
        shown = _MemberDisplay(display, self.run.workdir.name)
        self.one.start(self.start, shown, self._unwritten)
        self.one.paused = paused
        self.state = None

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Inside, what would end the run with a message ends it alone."""
        try:
            yield
        except UserError as error:
            self.error = str(error)
            terminal.line(f'failed   {self.run.workdir}: {error}')
            with contextlib.suppress(UserError):
                self.contexts.__exit__(UserError, error, error.__traceback__)

    def finish(self) -> None:
        """Ends the run; its status is 'finished' then."""
        self.contexts.close()
        if self.experiment.config.report.every_run:
            page.write_run(self.run.workdir)


def _train(created, members, weights, preemption):
    """Takes the members from their last checkpoints, or from the start, to their ends."""
    first = created[0]
    config, total_steps = first.config, first.total_steps
    with contextlib.ExitStack() as stack:
        # --------------------------------------------------------------------------------- Restore
        for member in members:
            stack.enter_context(member.contexts)
            member.restore(weights, preemption)
        stack.enter_context(memory.explained(config, first))
        step = min(member.start for member in members)

        # --------------------------------------------------------------------------------- Compile
        with preemption.allowed():
            feed = feeds.create(first.dataset, first.parallel)
            evaluate = compiled.compile_evaluate(first, feed)
            with_statistics = {
                member: compiled.compile_batch_statistics(member.experiment, feed)
                for member in members
            }
        orders = _Orders([compiled.step_groups(experiment, step) for experiment in created])
        with preemption.allowed():
            began = time.perf_counter()
            train_steps = {
                count: compiled.compile_steps_together(created, feed, count)
                for count in sorted(orders.counts())
            }
        if train_steps:
            seconds = time.perf_counter() - began
            terminal.line(f'compiled the steps of {len(created)} runs in {seconds:.1f} s')

        # ----------------------------------------------------------------------------------- Train
        # Where no run has joined yet, or one without a directory is, the numbers do not count.
        states = [_zeros(first) for _ in created]
        asleep, awake = list(members), []
        found = {}  # the states of members after this step

        def state_of(member):
            if member not in found:
                with paused(), preemption.allowed():
                    found[member] = with_statistics[member](states[member.number])
            return found[member]

        @contextlib.contextmanager
        def paused():
            with contextlib.ExitStack() as clocks:
                for member in awake:
                    clocks.enter_context(member.one.clock.paused())
                yield

        def save(member):
            if not member.one.is_saved(step):
                member.one.save(step, state_of(member))

        with (
            progress.Progress(first, step, len(members)) as bar,
            # Host and device exchange arrays only where the code asks for it.
            jax.transfer_guard('disallow'),
            contextlib.closing(feed.batches(orders, 0, len(orders))) as items,
        ):
            display = _Display(bar)
            try:
                while True:
                    awake = [member for member in awake if not member.error]
                    joining = [member for member in asleep if member.start == step]
                    if joining:
                        for member in joining:
                            states[member.number] = first.parallel.replicate(member.state)
                            member.join(display, paused)
                        asleep = [member for member in asleep if member not in joining]
                        awake = [member for member in members if member in awake + joining]
                    for member in awake:
                        with member.failing_alone():
                            is_best = False
                            if member.one.must_validate(step):
                                member.one.rows.write()
                                is_best = member.one.validate(step, state_of(member), evaluate)
                            if step == total_steps:
                                member.one.check_end(step, state_of(member), evaluate)
                            if is_best or member.one.must_save(step):
                                save(member)
                    display.show()
                    awake = [member for member in awake if not member.error]
                    if step == total_steps or not (awake or asleep):
                        break
                    preemption.check(step + 1)
                    with preemption.allowed():
                        item = next(items)
                    count = orders.count(step)
                    states, values = train_steps[count](states, feed.data, item)
                    step += count
                    found.clear()
                    for member in awake:
                        with member.failing_alone():
                            member.one.rows.add(step, values[member.number])
                            if member.one.must_validate(step):
                                member.one.rows.end_interval()
                    display.show()
                    bar.advance(step)
            except Preempted:
                for member in awake:
                    if not member.error:
                        with member.failing_alone():
                            save(member)
                raise

        # ------------------------------------------------------------------------------------ Test
        for member in awake:
            with preemption.allowed(), member.failing_alone():
                member.one.test(step, state_of(member), evaluate)
            if not member.error:
                member.finish()


def _zeros(experiment):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), experiment.abstract_state)
    return experiment.parallel.replicate(zeros)


class _Orders:
    """The batches of all runs: `orders[i]` is int32[runs, B], or [runs, B, steps] for several."""

    def __init__(self, groups: Sequence[Any]) -> None:
        self._groups = groups
        self.count, self.counts = groups[0].count, groups[0].counts

    def __len__(self) -> int:
        return len(self._groups[0])

    def __getitem__(self, number: int) -> np.ndarray:
        return np.stack([group[number] for group in self._groups])


class _Display:
    """Shows the progress of all runs: the means of their rows."""

    def __init__(self, bar: progress.Progress) -> None:
        self.bar = bar
        self.rows: dict[int, list] = {}  # by step, until they are shown
        self.validations: list[tuple] = []

    def show(self) -> None:
        """Shows the rows and the validations since the last call."""
        for step, rows in sorted(self.rows.items()):
            values = [values for values, _ in rows]
            means = {name: float(np.mean([each[name] for each in values])) for name in values[0]}
            self.bar.logged(step, means, rows[0][1])
        for validation in self.validations:
            self.bar.validated(*validation)
        self.rows.clear()
        self.validations.clear()


class _MemberDisplay:
    """What one run shows; see progress.Progress."""

    def __init__(self, display: _Display, name: str) -> None:
        self._display, self._name = display, name

    def logged(self, step: int, values: dict[str, float], steps_per_second: float) -> None:
        """Keeps a row until those of all runs are there."""
        self._display.rows.setdefault(step, []).append((values, steps_per_second))

    def validated(self, step: int, values: dict[str, float], is_best: bool) -> None:
        """Keeps the metrics of the validation split after `step` likewise."""
        self._display.validations.append((step, values, is_best, self._name))


def _show_results(members):
    table = Table('run', title='test, best checkpoint')
    for name in ('seed', 'best step', 'val accuracy', 'test accuracy'):
        table.add_column(name, justify='right')
    for member in members:
        summary = member.run.summary
        best, test = summary.get('best', {}), summary.get('test', {})
        values = best.get('step'), best.get('accuracy'), test.get('accuracy')
        shown = ['' if value is None else f'{value:,.4g}' for value in values]
        table.add_row(member.run.workdir.name, str(member.experiment.config.seed), *shown)
    terminal.table(table)
