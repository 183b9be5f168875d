"""Exact evaluation: every example counts once, whatever the batch size and number of devices."""

from collections import deque
from collections.abc import Callable

import jax
import numpy as np

from neptune_jax.data import batches
from neptune_jax.data.feed import Feed
from neptune_jax.devices.drivers import Parallel
from neptune_jax.learning import metrics, steps
from neptune_jax.learning.state import TrainState

# Batches whose outputs stay on the devices, so that the host does not wait for each.
AHEAD = 4

Evaluate = Callable[..., tuple[dict, dict]]


def compile_evaluate(
    feed: Feed,
    parallel: Parallel,
    abstract_state: TrainState,
    *,
    logits: Callable,
    loss: Callable,
    num_classes: int,
    batch_size: int,
    with_logits: bool = False,
) -> Evaluate:
    """Returns a compiled function that evaluates a state on examples of the feed.

    Args:
        feed: where batches come from.
        parallel: the driver and its devices.
        abstract_state: shapes, types and placement of the state's arrays.
        logits: a pure function of (variables, images uint8[B, H, W, C]) to float32[B, K].
        loss: a function of (logits, labels) to losses float32[B].
        num_classes: K.
        batch_size: examples at once, over all devices together.
        with_logits: whether the outputs hold `logits` too.

    Returns:
        A function of a TrainState and the numbers of n examples, int[n]. It returns the totals of
        `metrics.statistics` over them, and a dict of arrays [n] in their order: `loss`,
        `prediction`, `confidence`, `probabilities` [n, K] and maybe `logits` [n, K] of
        `steps.eval_step`. All are NumPy arrays. A Predictor computes the same probabilities, to
        the bit if one device evaluates batches of the same size. The function may be given a third
        argument, which is called with the number of examples of each batch.
    """
    zeros = metrics.zeros(num_classes)

    def step(state, totals, data, item):
        batch = feed.unpack(data, item)
        # Between the barriers XLA compiles the network as in a Predictor, to the same bits.
        images = jax.lax.optimization_barrier(batch['image'])
        found = jax.lax.optimization_barrier(logits(state.variables, images))
        totals, examples = steps.eval_step(
            found, totals, batch, loss=loss, axis_name=parallel.axis_name
        )
        if not with_logits:
            del examples['logits']
        return totals, examples

    args = (abstract_state, parallel.replicate(zeros), feed.data, feed.empty(batch_size))
    compiled_step = parallel.compile(step, *args, sharded=3, donate=(1,))

    def evaluate(state, examples, advance=lambda count: None):
        order = batches.EvalOrder(examples, batch_size)
        totals, outputs = parallel.replicate(zeros), []
        on_devices: deque = deque()
        for item in feed.batches(order, 0, len(order)):
            totals, output = compiled_step(state, totals, feed.data, item)
            on_devices.append(output)
            if len(on_devices) > AHEAD:
                outputs.append(jax.device_get(on_devices.popleft()))
                advance(batch_size)
        outputs.extend(jax.device_get(list(on_devices)))
        totals = jax.device_get(totals)
        outputs = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *outputs)
        return totals, outputs

    return evaluate
