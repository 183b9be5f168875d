"""A run in training, apart from its steps: what of it is validated, saved and tested, and when."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from neptune_jax import terminal
from neptune_jax.devices import processes
from neptune_jax.devices.preemption import Preemption
from neptune_jax.errors import UserError
from neptune_jax.experiment import Experiment
from neptune_jax.inference.evaluator import Evaluate
from neptune_jax.learning import metrics
from neptune_jax.learning.state import TrainState, count_params
from neptune_jax.reporting import figures, tables
from neptune_jax.runs import reader
from neptune_jax.runs.checkpoints import Checkpoints, Restored
from neptune_jax.runs.writer import Run
from neptune_jax.training import records
from neptune_jax.training.progress import Display


class OneRun:
    """What a run keeps of its training. The caller takes the steps: `loop` those of one run,
    `together` those of several in one program.
    """

    clock: records.Clock
    rows: records.Rows
    paused: Callable  # -> a context that the clock does not count

    def __init__(
        self, experiment: Experiment, run: Run, checkpoints: Checkpoints, preemption: Preemption
    ) -> None:
        self.experiment, self.run, self.checkpoints = experiment, run, checkpoints
        self._preemption = preemption
        self._saved_step, self._saved_at = 0, time.monotonic()

    def restore(self) -> Restored | None:
        """Returns the last checkpoint that is not damaged; removes the rows after it."""
        latest_first = reversed(self.checkpoints.steps)
        abstract_state = self.experiment.abstract_state
        restored = self.checkpoints.restore_first(latest_first, abstract_state, terminal.line)
        self.run.rewind(restored.step if restored else 0)
        self.checkpoints.accuracies.update(reader.validation_accuracies(self.run.workdir))
        return restored

    def start(self, step: int, display: Display, unwritten: records.Steps) -> None:
        """Starts the clock and the rows after `step` steps; the rest is as for records.Rows."""
        every = self.experiment.log_every
        self._saved_step, self._saved_at, self._display = step, time.monotonic(), display
        self.clock = records.Clock(self.run, self.experiment, step)
        self.paused = self.clock.paused
        self.rows = records.Rows(self.run, display, self.clock, step, unwritten, every)

    # --------------------------------------------------------------------------------- validation
    def must_validate(self, step: int) -> bool:
        """Whether the validation split is to be evaluated after `step`, and has not been yet."""
        experiment = self.experiment
        is_due = step == experiment.total_steps or step % experiment.eval_every == 0
        has_images = len(experiment.dataset.splits['val']) > 0
        return step > 0 and is_due and has_images and step not in self.checkpoints.accuracies

    def validate(self, step: int, state: TrainState, evaluate: Evaluate) -> bool:
        """Validates `state`; returns whether it is the best so far."""
        with self.paused(), self._preemption.allowed():
            totals, _ = evaluate(state, self.experiment.dataset.splits['val'])
        values = metrics.summarize(totals)
        self.run.write(step, {f'val/{name}': value for name, value in values.items()})
        finite = np.isfinite(values['loss'])
        accuracies = self.checkpoints.accuracies
        accuracies[step] = values['accuracy'] if finite else np.nan
        is_best = reader.best(accuracies) == step
        self._display.validated(step, values, is_best)
        self.clock.report(step)
        return is_best

    def check_end(self, step: int, state: TrainState, evaluate: Evaluate) -> None:
        """Raises UserError if the loss of the last state is not finite: the run has diverged.

        The loss of the last step cannot tell, because it is that of the parameters before the step.
        Without validation, some images of another split tell.
        """
        self.rows.check()
        splits, accuracies = self.experiment.dataset.splits, self.checkpoints.accuracies
        if step in accuracies:
            found = reader.split_metrics(self.run.workdir, step, 'val')
            # Process 0 alone has the rows of an earlier part of the run.
            self._check_loss(found.get('loss', accuracies[step]), step, 'validation')
        else:
            split = 'test' if len(splits['test']) else 'train'
            examples = splits[split][: self.experiment.config.eval.batch_size]
            with self.paused(), self._preemption.allowed():
                totals, _ = evaluate(state, examples)
            self._check_loss(metrics.summarize(totals)['loss'], step, split)

    def _check_loss(self, loss, step, split):
        """Raises UserError, without leaving a checkpoint of this step, if a loss is not finite."""
        try:
            records.check_loss(loss, step, split)
        except UserError:
            self.checkpoints.delete(step)
            raise

    # -------------------------------------------------------------------------------- checkpoints
    def must_save(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        if step == self.experiment.total_steps:
            return True
        every = self.experiment.checkpoint_every
        if every:  # one may be due within a call; it is saved after that call
            return step // every > self._saved_step // every
        return time.monotonic() - self._saved_at >= (self.experiment.checkpoint_seconds or 0)

    def is_saved(self, step: int) -> bool:
        """Whether the last checkpoint is that of `step`."""
        return step == self._saved_step

    def save(self, step: int, state: TrainState) -> None:
        """Starts to save a checkpoint, with the steps that are in no row yet."""
        self.rows.write()
        data = self.experiment.dataset.preprocessing | {'interval': self.rows.unwritten()}
        with self.paused():
            self.run.flush()
            self.checkpoints.save(step, state, data)
        self._saved_step, self._saved_at = step, time.monotonic()
        self.clock.report(step)

    # --------------------------------------------------------------------------------------- test
    def test(self, step: int, state: TrainState, evaluate: Evaluate) -> None:
        """Tests the best checkpoint, or `state` if none was validated; writes the results."""
        experiment, run, checkpoints = self.experiment, self.run, self.checkpoints
        checkpoints.wait()
        run.update_summary(params=count_params(state.params))
        best = checkpoints.restore_best(experiment.abstract_state, terminal.line)
        best_step, best_state = from_process_0(experiment, best)
        if best_step:
            state = best_state
            validated = reader.split_metrics(run.workdir, best_step, 'val')
            best_accuracy = checkpoints.accuracies.get(best_step)
            run.update_summary(best={'step': best_step, 'accuracy': best_accuracy}, val=validated)
        dataset = experiment.dataset
        examples = dataset.splits['test']
        if len(examples):
            totals, outputs = evaluate(state, examples)
            if not best_step:
                self._check_loss(metrics.summarize(totals)['loss'], step, 'test')
            folder = run.path('artifacts')
            tables.write(folder, dataset, examples, totals, outputs)
            run.update_summary(test=metrics.summarize(totals))
            figures.write(folder, dataset, examples, totals, outputs, curves_of=run.workdir)


def from_process_0(experiment: Experiment, restored: Restored | None) -> tuple[int, Any]:
    """Returns the step and the state that process 0 has restored; 0 and None if it has none."""
    step = int(processes.broadcast(np.int32(restored.step if restored else 0)))
    if not step:
        return 0, None
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), experiment.abstract_state)
    state = processes.broadcast(restored.state if restored else zeros)
    return step, experiment.parallel.replicate(state)
