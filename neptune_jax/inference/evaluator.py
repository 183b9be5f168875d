"""Exact evaluation: every example counts once, whatever the batch size and number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from neptune_jax.data import batches
from neptune_jax.data.feed import Feed
from neptune_jax.data.standardize import Standardizer
from neptune_jax.devices.drivers import Parallel
from neptune_jax.inference.predictor import standardise
from neptune_jax.learning import metrics, steps
from neptune_jax.learning.state import TrainState

Evaluate = Callable[[TrainState, np.ndarray], tuple[dict, dict]]


def compile_evaluate(
    feed: Feed,
    parallel: Parallel,
    abstract_state: TrainState,
    *,
    model: Any,
    standardizer: Standardizer,
    loss: Callable,
    num_classes: int,
    batch_size: int,
) -> Evaluate:
    """Returns a compiled function that evaluates a state on examples of the feed.

    Args:
        feed: where batches come from.
        parallel: the driver and its devices.
        abstract_state: shapes, types and placement of the state's arrays.
        model: a Flax module.
        standardizer: of the training.
        loss: a function of (logits, labels) to losses float32[B].
        num_classes: K.
        batch_size: examples at once, over all devices together.

    Returns:
        A function of a TrainState and the numbers of n examples, int[n]. It returns the totals of
        `metrics.statistics` over them, and a dict of arrays [n] in their order: `loss`,
        `prediction` and `confidence` of `steps.eval_step`. All are NumPy arrays.
    """
    zeros = metrics.zeros(num_classes)

    def step(state, totals, data, item):
        batch = feed.unpack(data, item)
        batch['image'] = standardise(standardizer, batch['image'])
        return steps.eval_step(
            state, totals, batch, model=model, loss=loss, axis_name=parallel.axis_name
        )

    args = (abstract_state, parallel.replicate(zeros), feed.data, feed.empty(batch_size))
    compiled_step = parallel.compile(step, *args, sharded=3, donate=(1,))

    def evaluate(state, examples):
        order = batches.EvalOrder(examples, batch_size)
        totals, outputs = parallel.replicate(zeros), []
        for item in feed.batches(order, 0, len(order)):
            totals, output = compiled_step(state, totals, feed.data, item)
            outputs.append(output)
        totals, outputs = jax.device_get((totals, outputs))
        outputs = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *outputs)
        return totals, outputs

    return evaluate
