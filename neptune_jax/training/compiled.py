"""The compiled training step of an experiment, and how steps are grouped into calls of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from neptune_jax.data import batches
from neptune_jax.data.feed import Feed
from neptune_jax.experiment import Experiment
from neptune_jax.inference import evaluator


def step_groups(experiment: Experiment, start: int) -> batches.StepGroups:
    """Returns the groups of steps from the one after `start` to the last."""
    return batches.StepGroups(
        experiment.order,
        start,
        experiment.total_steps,
        experiment.config.train.steps_per_call,
        experiment.eval_every,
    )


def compile_train_step(experiment: Experiment, feed: Feed, count: int = 1) -> Callable:
    """Returns the compiled step (state, data, item) -> (state, metrics). It donates the state.

    Args:
        experiment: Experiment.
        feed: where `data` and the items come from.
        count: number of steps in one call. With several, the metrics are arrays [count].
    """

    def one_step(state, data, item):
        return experiment.train_step(state, feed.unpack(data, item))

    def step(state, data, item):
        if count == 1:
            return one_step(state, data, item)
        # On a CPU the loop is unrolled, because convolutions in a loop are many times slower there.
        return jax.lax.scan(
            lambda state, item: one_step(state, data, item),
            state,
            jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), item),
            unroll=jax.default_backend() == 'cpu',
        )

    item = feed.empty(experiment.config.train.batch_size, count)
    args = (experiment.abstract_state, feed.data, item)
    return experiment.parallel.compile(step, *args, sharded=2, donate=(0,))


def compile_evaluate(experiment: Experiment, feed: Feed) -> evaluator.Evaluate:
    """Returns the compiled evaluation of the experiment; see `evaluator.compile_evaluate`."""
    return evaluator.compile_evaluate(
        feed,
        experiment.parallel,
        experiment.abstract_state,
        model=experiment.model,
        standardizer=experiment.dataset.standardizer,
        loss=experiment.loss,
        num_classes=len(experiment.dataset.class_names),
        batch_size=experiment.config.eval.batch_size,
    )
