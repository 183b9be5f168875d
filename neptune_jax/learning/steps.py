"""Training, evaluation and prediction steps: pure functions, the same under every driver.

A batch is a dict:

    image         float32[B, H, W, C], standardised
    label         int32[B]
    mask          bool[B], in evaluation: False for padding
    key           PRNG key[B], in training: one for each example, for dropout
    other_label   int32[B], after mixup or CutMix: the label of the image mixed in
    label_weight  float32[B], after mixup or CutMix: the weight of `label`; other_label has the rest

`axis_name` names the axis of devices to average over where each device sees its share of the batch
(pmap, shard_map). Under jit a step sees the global batch, and `axis_name` is None.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from neptune_jax.learning import losses, metrics
from neptune_jax.learning.state import PyTree, TrainState

Batch = dict[str, jax.Array]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Any,
    optimizer: optax.GradientTransformation,
    loss: Callable,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step on the mean loss of a batch.

    Args:
        state: TrainState.
        batch: this device's share of it if `axis_name` is given.
        model: a Flax module.
        optimizer: an Optax transformation.
        loss: a function of (logits, labels, label_smoothing) to losses float32[B].
        label_smoothing: in [0, 1).
        class_weights: float32[K], the weight of each class in the loss; None: 1 for all.
        accumulate: number of parts that the batch is cut into, to save memory. Their gradients are
            averaged, so the result equals that of the whole batch, except for batch statistics,
            which are computed for each part.
        ema_decay: of the moving average of the parameters; 0: there is none.
        axis_name: the axis of devices, or None.

    Returns:
        The next TrainState, and float32 scalars over the global batch: `loss` and `accuracy`
        before the step, and `grad_norm` (global L2 norm, before clipping).
    """

    def weighted_loss(logits, labels):
        values = loss(logits, labels, label_smoothing)
        return values if class_weights is None else values * jnp.asarray(class_weights)[labels]

    def mean_loss(params, batch_stats, batch):
        variables = {'params': params, 'batch_stats': batch_stats}
        if 'key' in batch:
            variables['keys'] = {'dropout': batch['key']}
        logits, updated = model.apply(variables, batch['image'], train=True, mutable='batch_stats')
        values = weighted_loss(logits, batch['label'])
        if 'other_label' in batch:
            weight = batch['label_weight']
            other_values = weighted_loss(logits, batch['other_label'])
            values = weight * values + (1 - weight) * other_values
        accuracy = jnp.mean(jax.lax.argmax(logits, 1, jnp.int32) == batch['label'])
        return values.mean(), (accuracy, updated.get('batch_stats', {}))

    # A Python loop, not lax.scan: on a CPU, XLA's convolutions are many times slower in a loop.
    params, batch_stats, sums = state.params, state.batch_stats, None
    for i in range(accumulate):
        # Part i holds every accumulate-th example, so each device has its share of each part.
        part = jax.tree.map(
            lambda leaf, i=i: leaf.reshape(-1, accumulate, *leaf.shape[1:])[:, i], batch
        )
        (value, (accuracy, batch_stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            params, batch_stats, part
        )
        found = value, accuracy, grads
        if accumulate > 1:
            sums = jax.tree.map(jnp.add, sums, found) if i else found
            # The barrier makes XLA compute the parts one after another. All at once, they would
            # save no memory.
            params, sums = jax.lax.optimization_barrier((params, sums))
            found = jax.tree.map(lambda leaf: leaf / accumulate, sums)
    value, accuracy, grads = found
    value, accuracy, batch_stats, grads = _mean_over_devices(
        (value, accuracy, batch_stats, grads), axis_name
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    next_state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=_update_ema(state, params, ema_decay) if ema_decay else {},
    )
    return next_state, {
        'loss': value,
        'accuracy': accuracy,
        'grad_norm': optax.tree.norm(grads),
    }


def _update_ema(state, params, decay):
    # The decay is lower in the first steps; otherwise the average would long be that of the
    # initial parameters. The formula is that of TensorFlow's ExponentialMovingAverage with
    # num_updates.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)


def batch_statistics(
    params: PyTree, batch_stats: PyTree, batch: Batch, *, model: Any, axis_name: str | None = None
) -> PyTree:
    """Returns the statistics of one batch by which a model with `params` normalises in training.

    Args:
        params: of the model.
        batch_stats: any of its running statistics. What is no float, such as a counter, is returned
            as it is.
        batch: this device's share of it if `axis_name` is given.
        model: a Flax module.
        axis_name: the axis of devices, or None.
    """
    variables = {'params': params} | ({'keys': {'dropout': batch['key']}} if 'key' in batch else {})

    def update(running):
        _, updated = model.apply(
            variables | {'batch_stats': running}, batch['image'], train=True, mutable='batch_stats'
        )
        return updated['batch_stats']

    def of_batch(once, twice, running):
        if not jnp.issubdtype(running.dtype, jnp.floating):
            return running
        ratio = twice / jnp.where(once == 0, 1, once)
        return jnp.where(once == 0, 0, once / (2 - ratio))

    # An update of running statistics is m * running + (1 - m) * batch. The model alone knows the
    # momentum m. From 0 on, one update gives (1 - m) * batch, and a second one 1 + m times that.
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    once = update(zeros)
    found = jax.tree.map(of_batch, once, update(once), batch_stats)
    return _mean_over_devices(found, axis_name)


def predict_step(variables: dict, images: jax.Array, *, model: Any) -> jax.Array:
    """Returns logits float32[B, K].

    Args:
        variables: `params` and `batch_stats`; `TrainState.variables`.
        images: float32[B, H, W, C], standardised.
        model: a Flax module.
    """
    return model.apply(variables, images, train=False)


def eval_step(
    logits: jax.Array,
    totals: dict[str, jax.Array],
    batch: Batch,
    *,
    loss: Callable,
    axis_name: str | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Adds a batch to the totals of an evaluation. Masked examples do not count.

    The loss has no label smoothing, so that runs with and without it can be compared.

    Args:
        logits: float32[B, K], of `predict_step`.
        totals: the statistics so far; `metrics.zeros` at the start.
        batch: `label` and `mask`; this device's share of them if `axis_name` is given.
        loss: a function of (logits, labels) to losses float32[B].
        axis_name: the axis of devices, or None.

    Returns:
        The new totals, and for each example of the global batch, in its order: `loss`,
        `prediction` (a class), `confidence` (the highest probability), and `probabilities` and
        `logits` [B, K].
    """
    values = loss(logits, batch['label'])
    probabilities = losses.probabilities(logits, loss)
    examples = {
        'loss': values,
        'prediction': jax.lax.argmax(logits, 1, jnp.int32),
        'confidence': probabilities.max(axis=-1),
        'probabilities': probabilities,
        'logits': logits,
    }
    counted = metrics.statistics(logits, batch['label'], batch['mask'], values, probabilities)
    if axis_name is not None:
        counted = jax.lax.psum(counted, axis_name)
        examples = jax.lax.all_gather(examples, axis_name, tiled=True)
    return jax.tree.map(jnp.add, totals, counted), examples


def _mean_over_devices(tree, axis_name):
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)
