"""A dry run: what a config would train, its devices, parameters, cost of a step and schedule."""

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from neptune_jax import experiment as experiments
from neptune_jax import terminal
from neptune_jax.data import feed as feeds
from neptune_jax.learning.state import count_params
from neptune_jax.training import compiled, memory, progress


def dry_run(config: ConfigDict) -> None:
    """Prints what a config would train and what a step costs. It writes no run directory.

    Data that are not prepared yet are prepared, because the shapes depend on them.

    Raises:
        UserError: a training with this config would be refused.
    """
    config = config.copy_and_resolve_references()
    config.train.debug_nans = False  # with it there is no compiled program to ask for its cost
    with memory.explained(config):
        experiment = experiments.create(config)
    with memory.explained(config, experiment):
        _show(experiment)


def _show(experiment):
    config = experiment.config
    progress.header(experiment, experiments.read_initial_weights(experiment))
    feed = feeds.create(experiment.dataset, experiment.parallel)
    train_step = compiled.compile_train_step(experiment, feed)
    item = feed.empty(config.train.batch_size)
    terminal.line(f'mesh     {dict(experiment.parallel.mesh.shape)}')
    for path, leaf in jax.tree_util.tree_leaves_with_path(item):
        name = jax.tree_util.keystr(path) or 'numbers of examples'
        terminal.line(f'batch    {name}: {leaf.dtype}{list(leaf.shape)}, {leaf.sharding.spec}')
    height, width, channels = experiment.dataset.image_shape
    size = config.train.batch_size // experiment.parallel.num_devices
    terminal.line(f'model    sees float32{[size, height, width, channels]} on each device')
    terminal.table(_cost(experiment, feed, train_step))
    terminal.table(_schedule(experiment))


def _cost(experiment, feed, train_step):
    table = Table('one step, on one device', title='cost')
    table.add_column('', justify='right')
    program = train_step.program
    cost, used = program.cost_analysis(), program.memory_analysis()
    if isinstance(cost, list):  # older versions of JAX give one for each program
        cost = cost[0]
    state = experiment.abstract_state
    table.add_row('floating-point operations', f'{cost.get("flops", 0) / 1e9:,.2f} G')
    table.add_row('parameters', memory.mebibytes(4 * count_params(state.params)))
    table.add_row('state, with optimizer and averages', memory.mebibytes(memory.nbytes(state)))
    table.add_row('data on the device', memory.mebibytes(memory.nbytes(feed.data)))
    table.add_row('scratch memory of the step', memory.mebibytes(used.temp_size_in_bytes))
    return table


def _schedule(experiment):
    table = Table('step', 'epoch', 'learning rate', title='schedule')
    last = experiment.total_steps - 1
    for step in sorted(
        {0, _warmest(experiment.schedule, last), *(round(last * i / 8) for i in range(9))}
    ):
        rate = float(experiment.schedule(step))
        table.add_row(f'{step + 1:,}', f'{step / experiment.steps_per_epoch:.2f}', f'{rate:.3g}')
    return table


def _warmest(schedule, last):
    """Returns the step, up to `last`, with the highest rate; of equal ones the first.

    Of very many steps it looks at some, and again more closely between the neighbours of the best.
    """
    first = 0
    while True:
        steps = np.unique(np.linspace(first, last, 10_000).round().astype(np.int32))
        best = int(np.argmax(jax.vmap(schedule)(steps)))
        if len(steps) == last - first + 1:
            return int(steps[best])
        first, last = steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)]
