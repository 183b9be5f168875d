"""The compiled programs of a training, and how its steps are grouped into calls."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neptune_jax.data import augment, batches
from neptune_jax.data.feed import Feed
from neptune_jax.experiment import Experiment
from neptune_jax.inference import evaluator, predictor
from neptune_jax.learning import numbers, steps
from neptune_jax.learning.state import TrainState

STATISTICS_BATCHES = 32  # whose mean statistics averaged parameters get, or those of an epoch


def step_groups(experiment: Experiment, start: int) -> batches.StepGroups:
    """Returns the groups of steps from the one after `start` to the last."""
    return batches.StepGroups(
        experiment.order,
        start,
        experiment.total_steps,
        experiment.config.train.steps_per_call,
        experiment.eval_every,
    )


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A compiled step (state, data, item) -> (state, metrics). It donates the state."""

    program: Any  # that also takes the numbers
    numbers: Any  # of learning.numbers, on the devices

    def __call__(self, state: TrainState, data: Any, item: Any) -> tuple:
        """Takes a step, or several."""
        return self.program(state, data, self.numbers, item)


def compile_train_step(experiment: Experiment, feed: Feed, count: int = 1) -> TrainStep:
    """Returns the compiled step.

    The program is the same for runs that differ in nothing but `learning.numbers`.

    Args:
        experiment: Experiment.
        feed: where `data` and the items come from.
        count: number of steps in one call. With several, the metrics are arrays [count].
    """

    step = _step(experiment, feed, count)
    item = feed.empty(experiment.config.train.batch_size, count)
    values = experiment.parallel.replicate(numbers.of(experiment.config))
    args = (experiment.abstract_state, feed.data, values, item)
    program = experiment.parallel.compile(step, *args, sharded=3, donate=(0,))
    return TrainStep(program, values)


def compile_steps_together(
    experiments: Sequence[Experiment], feed: Feed, count: int = 1, vmapped: bool | None = None
) -> TrainStep:
    """Returns the compiled step of runs that differ in nothing but their seeds.

    Args:
        experiments: of the runs.
        feed: as for `compile_train_step`.
        count: likewise.
        vmapped: whether XLA gets the runs as one computation with another axis, which fills a GPU
            or TPU. Else their computations stand side by side: on a CPU, products and convolutions
            with such an axis are slow. None: as is best for the backend.

    Returns:
        A step as of `compile_train_step`, of lists: states, and metrics, each of its run. An item
        is int32[runs, B] or int32[runs, B, count].
    """
    first = experiments[0]
    parallel, runs = first.parallel, len(experiments)
    shape = (runs, first.config.train.batch_size, *([count] if count > 1 else []))
    values = [parallel.replicate(numbers.of(experiment.config)) for experiment in experiments]
    step = _step(first, feed, count)

    def side_by_side(states, data, values, items):
        found = [step(states[i], data, values[i], items[i]) for i in range(runs)]
        return [state for state, _ in found], [metrics for _, metrics in found]

    def mapped(states, data, values, items):
        states, values = _stack(states), _stack(values)
        states, metrics = jax.vmap(step, (0, None, 0, 0))(states, data, values, items)
        return _unstack(states, runs), _unstack(metrics, runs)

    if vmapped is None:
        vmapped = jax.default_backend() != 'cpu'
    program = parallel.compile(
        mapped if vmapped else side_by_side,
        [first.abstract_state] * runs,
        feed.data,
        values,
        parallel.shard(np.zeros(shape, np.int32)),
        sharded=3,
        donate=(0,),
    )
    return TrainStep(program, values)


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstack(tree, count):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def _step(experiment, feed, count):
    def one_step(state, data, values, item):
        return experiment.train_step(state, feed.unpack(data, item), numbers=values)

    def step(state, data, values, item):
        if count == 1:
            return one_step(state, data, values, item)
        # On a CPU the loop is unrolled, because convolutions in a loop are many times slower there.
        return jax.lax.scan(
            lambda state, item: one_step(state, data, values, item),
            state,
            jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), item),
            unroll=jax.default_backend() == 'cpu',
        )

    return step


def compile_batch_statistics(experiment: Experiment, feed: Feed) -> Callable:
    """Returns a function of a TrainState that gives averaged parameters statistics of their own.

    The running statistics of the training belong to the parameters of the last steps; averaged ones
    make other activations. So, as torch.optim.swa_utils.update_bn does, training images pass
    through the network in training mode, and the statistics of their batches are averaged. The
    images are those of the first batches of the run, not augmented: the result depends on the
    parameters and the config alone.

    All processes must call the function together. With `alone=True` they need not: if there are
    several, it falls back on the running statistics of the training. Without averaged parameters or
    batch statistics it returns the state as it is.
    """
    parallel, config = experiment.parallel, experiment.config
    shapes = experiment.abstract_state.ema_batch_stats
    if not shapes:
        return lambda state, alone=False: state
    count = min(STATISTICS_BATCHES, experiment.steps_per_epoch)

    def step(state, sums, data, item):
        batch = feed.unpack(data, item)
        key, first_step = jax.random.key(config.seed), jnp.int32(0)
        keys = jax.vmap(augment.dropout_key, (None, None, 0))(key, first_step, batch['index'])
        images = predictor.standardise(experiment.dataset.standardizer, batch['image'])
        found = steps.batch_statistics(
            state.ema,
            state.batch_stats,
            {'image': images, 'key': keys},
            model=experiment.model,
            axis_name=parallel.axis_name,
        )
        return jax.tree.map(add, sums, found)

    def add(total, leaf):
        return total + leaf / count if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def zeros():
        return parallel.replicate(
            jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        )

    args = experiment.abstract_state, zeros(), feed.data, feed.empty(config.train.batch_size)
    compiled_step = parallel.compile(step, *args, sharded=3, donate=(1,))
    order = copy.copy(experiment.order)  # a thread may be reading the training's
    last = None

    def with_statistics(state, alone=False):
        nonlocal last
        if state is not last and alone and jax.process_count() > 1:
            return state.replace(ema_batch_stats=state.batch_stats)
        if state is not last:
            sums = zeros()
            for item in feed.batches(order, 0, count):
                sums = compiled_step(state, sums, feed.data, item)
            last = state.replace(ema_batch_stats=sums)
        return last

    return with_statistics


def compile_evaluate(experiment: Experiment, feed: Feed) -> evaluator.Evaluate:
    """Returns the compiled evaluation of the experiment; see `evaluator.compile_evaluate`."""
    logits = functools.partial(
        predictor.logits, model=experiment.model, standardizer=experiment.dataset.standardizer
    )
    return evaluator.compile_evaluate(
        feed,
        experiment.parallel,
        experiment.abstract_state,
        logits=logits,
        loss=experiment.loss,
        num_classes=len(experiment.dataset.class_names),
        batch_size=experiment.config.eval.batch_size,
    )
