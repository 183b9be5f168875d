"""What a person sees: what the run is made of, a progress bar, the results.

Where standard output is no terminal the bar becomes plain lines, one at each log point.
"""

import contextlib
import time

import jax
from rich import progress as bars
from rich.console import Console
from rich.table import Table

from neptune_jax import flops
from neptune_jax.data import clean
from neptune_jax.state import count_params

_console = Console(highlight=False)
_copies = []  # consoles that write into files


@contextlib.contextmanager
def copied(path):
    """What is printed inside is also appended to a file, lines in place of the bar."""
    with path.open('a') as file:
        _copies.append(Console(file=file, highlight=False, width=100))
        try:
            yield
        finally:
            _copies.pop()


def line(text, beside_bar=True):
    """Prints a line; above the bar where there is one, or then not at all."""
    for console in (_console, *_copies) if beside_bar or not _console.is_terminal else _copies:
        console.print(text, soft_wrap=True, markup=False)


def table(content):
    """Prints a rich Table."""
    for console in (_console, *_copies):
        console.print(content)


def header(experiment):
    """Prints the data, the devices, and the parameters layer by layer."""
    sizes = ', '.join(f'{size:,} {name}' for name, size in experiment.dataset.sizes.items())
    devices = experiment.devices
    height, width, channels = experiment.dataset.image_shape
    kind = devices.mesh.devices[0].device_kind
    line(f'data     {experiment.config.data.name}: {sizes} images of {height}x{width}x{channels}')
    line(f'cleaning {clean.summary(experiment.dataset.report)}')
    line(f'batches  from mode {experiment.dataset.mode}')
    line(f'devices  {devices.num_devices} x {kind}, driver {devices.driver}')
    batch_size = experiment.config.train.batch_size
    line(
        f'length   {experiment.total_steps:,} steps of {batch_size} images, '
        f'{experiment.steps_per_epoch:,} an epoch'
    )
    weights = experiment.weights
    if weights:
        line(f'weights  of step {weights.step:,} of {weights.workdir}')
        if weights.new:
            count = len(experiment.dataset.class_names)
            line(
                f'         new, for {count} classes instead of {len(weights.classes)}: '
                + ', '.join(weights.new)
            )
    params = experiment.abstract_state.params
    rows = Table('layer', 'parameter', 'shape', title=f'model {experiment.config.model.name}')
    rows.add_column('count', justify='right')
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *layer, name = (key.key for key in path)
        rows.add_row('/'.join(layer), name, ' x '.join(map(str, leaf.shape)), f'{leaf.size:,}')
    rows.add_section()
    rows.add_row('total', '', '', f'{count_params(params):,}')
    table(rows)


def results(run, experiment):
    """Prints the results of a finished run, and where they are."""
    summary = run.summary
    rows = Table('metric', title='test, best checkpoint')
    rows.add_column('value', justify='right')
    for name, value in summary['test'].items():
        rows.add_row(name, f'{value:,}' if isinstance(value, int) else f'{value:.4f}')
    table(rows)
    if 'best' in summary:
        best = summary['best']
        line(f'best     step {best["step"]:,}, validation accuracy {best["accuracy"]:.4f}')
    share = flops.utilization(experiment, summary['images_per_second'])
    line(
        f'trained  {summary["train_seconds"]:.0f} s, {summary["images_per_second"]:,.0f} images/s'
        + (f", {share:.1%} of the devices' peak" if share is not None else '')
    )
    line(f'run      {run.workdir}')


class Progress:
    """A progress bar of the steps, or plain lines; a context manager."""

    def __init__(self, experiment, start):
        self._steps_per_epoch = experiment.steps_per_epoch
        self._total = experiment.total_steps
        self._batch_size = experiment.config.train.batch_size
        self._last_logged = (start, time.perf_counter())
        self._bars = bars.Progress(
            bars.TextColumn('step'),
            bars.MofNCompleteColumn(),
            bars.BarColumn(bar_width=None),
            bars.TextColumn('{task.fields[values]}'),
            bars.TimeRemainingColumn(),
            bars.TextColumn('left'),
            console=_console,
            disable=not _console.is_terminal,
        )
        self._task = self._bars.add_task('', total=self._total, completed=start, values='')

    def __enter__(self):
        self._bars.__enter__()
        return self

    def __exit__(self, *error):
        return self._bars.__exit__(*error)

    def advance(self, step):
        """Says that `step` has been dispatched."""
        self._bars.update(self._task, completed=step)

    def logged(self, step, values):
        """Shows the training metrics of a log interval that ends with `step`."""
        (last_step, last_time), now = self._last_logged, time.perf_counter()
        self._last_logged = step, now
        steps_per_second = (step - last_step) / (now - last_time)
        text = (
            f'loss {values["loss"]:.4f}  accuracy {values["accuracy"]:.4f}  '
            f'{steps_per_second * self._batch_size:,.0f} images/s'
        )
        self._bars.update(self._task, values=text)
        left = (self._total - step) / steps_per_second
        line(f'step {step:>6,}/{self._total:,}  {text}  {left:,.0f} s left', beside_bar=False)

    def validated(self, step, values, is_best):
        """Shows the metrics of the validation split after `step`."""
        line(
            f'epoch {step / self._steps_per_epoch:.4g}  step {step:,}  '
            f'val loss {values["loss"]:.4f}  val accuracy {values["accuracy"]:.4f}'
            + ('  best so far' if is_best else '')
        )
        self._last_logged = step, time.perf_counter()
