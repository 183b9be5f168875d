"""What a person sees of a training: its header, a progress bar or plain lines, its results."""

from typing import Any, Protocol

import jax
from rich import progress as bars
from rich.table import Table

from neptune_jax import terminal
from neptune_jax.data import clean
from neptune_jax.experiment import Experiment, InitialWeights
from neptune_jax.learning.state import count_params
from neptune_jax.models import flops
from neptune_jax.runs.writer import Run


def header(experiment: Experiment, weights: InitialWeights | None) -> None:
    """Prints the data, the devices, the length, and the parameters of each layer."""
    data, parallel = experiment.dataset, experiment.parallel
    sizes = ', '.join(f'{size:,} {name}' for name, size in data.sizes.items())
    height, width, channels = data.image_shape
    name = experiment.config.data.name
    terminal.line(f'data     {name}: {sizes} images of {height}x{width}x{channels}')
    terminal.line(f'cleaning {clean.summary(data.report)}')
    terminal.line(f'batches  from mode {data.mode}')
    kind = parallel.devices[0].device_kind
    terminal.line(f'devices  {parallel.num_devices} x {kind}, driver {parallel.driver}')
    batch_size = experiment.config.train.batch_size
    terminal.line(
        f'length   {experiment.total_steps:,} steps of {batch_size} images, '
        f'{experiment.steps_per_epoch:,} an epoch'
    )
    if weights:
        step = '' if weights.step is None else f'step {weights.step:,} of '
        terminal.line(f'weights  of {step}{weights.source}')
        if weights.reinitialized:
            terminal.line(
                f'         new, for {len(data.class_names)} classes instead of '
                f'{weights.num_classes}: {", ".join(weights.reinitialized)}'
            )
    params = experiment.abstract_state.params
    rows = Table('layer', 'parameter', 'shape', title=f'model {experiment.config.model.name}')
    rows.add_column('count', justify='right')
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *layer, parameter = (key.key for key in path)
        rows.add_row('/'.join(layer), parameter, ' x '.join(map(str, leaf.shape)), f'{leaf.size:,}')
    rows.add_section()
    rows.add_row('total', '', '', f'{count_params(params):,}')
    terminal.table(rows)


def results(run: Run, experiment: Experiment) -> None:
    """Prints the results of a finished run, and where they are."""
    summary = run.summary
    if 'test' in summary:
        rows = Table('metric', title='test, best checkpoint')
        rows.add_column('value', justify='right')
        num_classes = len(experiment.dataset.class_names)
        for name, value in summary['test'].items():
            shown = f'{value:,}' if isinstance(value, int) else f'{value:.4f}'
            if name == 'classes':  # which the means are over
                shown += f' of {num_classes:,}'
            rows.add_row(name, shown)
        terminal.table(rows)
        if summary['test'].get('classes', num_classes) < num_classes:
            terminal.line(
                'note     the means (macro) are over the classes that occur as a label or a '
                f'prediction in the test: {summary["test"]["classes"]:,} of {num_classes:,}'
            )
    else:
        terminal.line('test     none: the data have no test split, and data.test_fraction=0')
    if 'best' in summary:
        best = summary['best']
        terminal.line(f'best     step {best["step"]:,}, validation accuracy {best["accuracy"]:.4f}')
    share = flops.utilization(experiment, summary['images_per_second'])
    terminal.line(
        f'trained  {summary["train_seconds"]:.0f} s, {summary["images_per_second"]:,.0f} images/s'
        + (f", {share:.1%} of the devices' peak" if share is not None else '')
    )
    terminal.line(f'run      {run.workdir}')


class Display(Protocol):
    """What shows the rows and validations of a run, such as Progress."""

    def logged(self, step: int, values: dict[str, float], steps_per_second: float) -> None: ...

    def validated(self, step: int, values: dict[str, float], is_best: bool) -> None: ...


class Progress:
    """A progress bar of the steps on a terminal, plain lines elsewhere; a context manager."""

    def __init__(self, experiment: Experiment, start: int, runs: int = 1) -> None:
        self._steps_per_epoch = experiment.steps_per_epoch
        self._total = experiment.total_steps
        self._images_per_step = runs * experiment.config.train.batch_size
        self._bar = bars.Progress(
            bars.TextColumn('step'),
            bars.MofNCompleteColumn(),
            bars.BarColumn(bar_width=None),
            bars.TextColumn('{task.fields[values]}'),
            bars.TimeRemainingColumn(),
            bars.TextColumn('left'),
            console=terminal.console,
            disable=not terminal.shows_bars(),
        )
        self._task = self._bar.add_task('', total=self._total, completed=start, values='')

    def __enter__(self) -> 'Progress':
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`, which has been dispatched."""
        self._bar.update(self._task, completed=step)

    def logged(self, step: int, values: dict[str, float], steps_per_second: float) -> None:
        """Shows the training metrics of the log interval that ends with `step`, and its speed."""
        text = (
            f'loss {values["loss"]:.4f}  accuracy {values["accuracy"]:.4f}  '
            f'{steps_per_second * self._images_per_step:,.0f} images/s'
        )
        self._bar.update(self._task, values=text)
        left = (self._total - step) / steps_per_second
        terminal.progress_line(f'step {step:>6,}/{self._total:,}  {text}  {left:,.0f} s left')

    def validated(self, step: int, values: dict[str, float], is_best: bool, name: str = '') -> None:
        """Shows the metrics of the validation split after `step`; `name` is that of the run."""
        terminal.line(
            f'epoch {step / self._steps_per_epoch:.4g}  step {step:,}  '
            f'val loss {values["loss"]:.4f}  val accuracy {values["accuracy"]:.4f}'
            + ('  best so far' if is_best else '')
            + (f'  {name}' if name else '')
        )
