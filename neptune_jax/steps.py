"""The loss and the steps: pure functions of (state, batch), the same under every driver.

A batch is a dict: `image` float32[B, H, W, C], standardised; `label` int32[B]; in evaluation `mask`
bool[B], False for padding; after mixup or cutmix `other_label` int32[B] and `label_weight`
float32[B], the weight of `label` where `other_label` has the rest; for dropout `key`, a PRNG key
[B] for each example. Where a step runs on several
devices under pmap, `axis_name` names the axis over which it averages; under jit the batch is the
global one and there is nothing to average.
"""

import jax
import jax.numpy as jnp
import optax

from neptune_jax import metrics


def cross_entropy(logits, labels, label_smoothing=0.0):
    """Softmax cross-entropy of each example, in nats.

    Args:
        logits: float32[B, K].
        labels: int32[B].
        label_smoothing: mass spread evenly over all K classes (Szegedy et al., 2016, section 7).

    Returns:
        float32[B].
    """
    return optax.softmax_cross_entropy(logits, _targets(logits, labels, label_smoothing))


def bce(logits, labels, label_smoothing=0.0):
    """One-vs-rest sigmoid cross-entropy of each example: K binary losses, summed, in nats.

    Arguments and result as for `cross_entropy`.
    """
    targets = _targets(logits, labels, label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


LOSSES = {'cross_entropy': cross_entropy, 'bce': bce}


def _targets(logits, labels, label_smoothing):
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.smooth_labels(one_hot, label_smoothing)


def train_step(
    state,
    batch,
    *,
    model,
    optimizer,
    loss,
    label_smoothing=0.0,
    class_weights=None,
    accumulate=1,
    ema_decay=0.0,
    axis_name=None,
):
    """Takes one optimizer step on the mean loss of a batch.

    Args:
        state: TrainState.
        batch: `image` and `label`; this device's share of it where `axis_name` is given.
        model: a Flax module; `optimizer`: an Optax transformation.
        loss: a function of (logits, labels, label_smoothing) to losses float32[B].
        label_smoothing: in [0, 1).
        class_weights: float32[K], what the loss of an example of each class counts; None: 1.
        accumulate: into how many parts a batch is cut, to save memory. The mean of their gradients
            is that of the whole batch, except that batch statistics are those of a part.
        ema_decay: of the moving average of the parameters; 0: there is none.
        axis_name: the axis of devices, or None.

    Returns:
        The next TrainState, and float32 scalars over the global batch: `loss` and `accuracy`
        before the step, `grad_norm` (global L2 norm, before clipping).
    """

    def weighted_loss(logits, labels):
        losses = loss(logits, labels, label_smoothing)
        return losses if class_weights is None else losses * jnp.asarray(class_weights)[labels]

    def mean_loss(params, batch_stats, batch):
        logits, updated = model.apply(
            {'params': params, 'batch_stats': batch_stats},
            batch['image'],
            train=True,
            mutable='batch_stats',
            **({'keys': batch['key']} if 'key' in batch else {}),
        )
        losses = weighted_loss(logits, batch['label'])
        if 'other_label' in batch:
            weight = batch['label_weight']
            other_losses = weighted_loss(logits, batch['other_label'])
            losses = weight * losses + (1 - weight) * other_losses
        accuracy = jnp.mean(jax.lax.argmax(logits, 1, jnp.int32) == batch['label'])
        return losses.mean(), (accuracy, updated.get('batch_stats', {}))

    # The loop is written out: a convolution in a loop is many times slower on the CPU.
    params, batch_stats, sums = state.params, state.batch_stats, None
    for i in range(accumulate):
        # Every n-th example from the i-th on, so that each device has its share of each part.
        part = jax.tree.map(
            lambda leaf, i=i: leaf.reshape(-1, accumulate, *leaf.shape[1:])[:, i], batch
        )
        (value, (accuracy, batch_stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            params, batch_stats, part
        )
        found = value, accuracy, grads
        if accumulate > 1:
            sums = jax.tree.map(jnp.add, sums, found) if i else found
            # One part after the other: computed all at once, they would save no memory.
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
    # The first steps weigh more, or the average would long be that of the initial parameters: as
    # TensorFlow's ExponentialMovingAverage does with num_updates.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)


def predict_step(state, batch, *, model):
    """Returns logits float32[B, K] for a batch."""
    variables = {'params': state.averaged_params, 'batch_stats': state.batch_stats}
    return model.apply(variables, batch['image'], train=False)


def eval_step(state, totals, batch, *, model, loss, axis_name=None):
    """Adds a batch to the totals of an evaluation; masked examples count nothing.

    The loss is without label smoothing, so that runs that differ in it can be compared.

    Args:
        state: TrainState.
        totals: the statistics so far (`metrics.zeros` at the start).
        batch: `image`, `label` and `mask`; this device's share where `axis_name` is given.

    Returns:
        The new totals, and for each example of the global batch, in its order: `loss`,
        `prediction` (class) and `confidence` (the probability of that class).
    """
    logits = predict_step(state, batch, model=model)
    losses = loss(logits, batch['label'])
    # One-vs-rest classes are not exclusive: their probabilities are sigmoids and need not sum to 1.
    probabilities = jax.nn.sigmoid(logits) if loss is bce else jax.nn.softmax(logits)
    examples = {
        'loss': losses,
        'prediction': jax.lax.argmax(logits, 1, jnp.int32),
        'confidence': probabilities.max(axis=-1),
    }
    counted = metrics.statistics(logits, batch['label'], batch['mask'], losses, probabilities)
    if axis_name is not None:
        counted = jax.lax.psum(counted, axis_name)
        examples = jax.lax.all_gather(examples, axis_name, tiled=True)
    return jax.tree.map(jnp.add, totals, counted), examples


def _mean_over_devices(tree, axis_name):
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)
