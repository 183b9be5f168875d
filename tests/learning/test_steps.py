"""The step itself, against NumPy, finite differences, and itself on other devices."""

import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from ml_collections import ConfigDict

from neptune_jax.data import augment
from neptune_jax.devices import drivers
from neptune_jax.learning import losses, metrics, state, steps
from neptune_jax.models.cnn import CNN

SHAPE = (8, 8, 1)


class Linear(nn.Module):
    """Logits are a linear function of the pixels."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(images.reshape(images.shape[0], -1))


class Normalized(nn.Module):
    """A convolution with batch normalisation, whose statistics are part of the state."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def make_batch(size=32, shape=SHAPE, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': rng.normal(size=(size, *shape)).astype(np.float32),
        'label': rng.integers(0, num_classes, size).astype(np.int32),
        'index': rng.permutation(1000)[:size].astype(np.int32),
        'mask': np.ones(size, bool),
    }


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------------------- losses


def test_cross_entropy_equals_scikit_learn():
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    labels = np.arange(20, dtype=np.int32) % 4
    expected = sklearn.metrics.log_loss(labels, softmax(logits.astype(np.float64)))
    np.testing.assert_allclose(losses.cross_entropy(logits, labels).mean(), expected, rtol=1e-6)


def test_label_smoothing_mixes_the_labels_with_the_uniform_distribution():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0], np.int32)
    targets = 0.9 * np.eye(4)[labels] + 0.1 / 4
    log_probabilities = np.log(softmax(logits.astype(np.float64)))
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels, 0.1), -(targets * log_probabilities).sum(-1), rtol=1e-5
    )
    positive = 1 / (1 + np.exp(-logits.astype(np.float64)))
    binary = -(targets * np.log(positive) + (1 - targets) * np.log(1 - positive))
    np.testing.assert_allclose(losses.bce(logits, labels, 0.1), binary.sum(-1), rtol=1e-5)


def test_bce_is_the_sum_of_one_binary_loss_a_class():
    logits = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 2, 1, 0], np.int32)
    positive = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.zeros(6)
    for k in range(3):
        for i in range(6):
            p = positive[i, k]
            expected[i] -= np.log(p if labels[i] == k else 1 - p)
    np.testing.assert_allclose(losses.bce(logits, labels), expected, rtol=1e-5)


def test_probabilities_are_a_softmax_but_for_losses_of_one_class_against_the_rest():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for loss in (losses.cross_entropy, lambda logits, labels: None):
        np.testing.assert_allclose(losses.probabilities(logits, loss), softmax(logits), rtol=1e-5)
    sigmoids = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(losses.probabilities(logits, losses.bce), sigmoids, rtol=1e-5)


# ---------------------------------------------------------------------------- train_step


def test_sgd_update_by_hand():
    """One step of softmax regression: p - rate * x^T (softmax(xW + b) - onehot) / n."""
    batch = make_batch(size=10)
    model, optimizer = Linear(), optax.sgd(0.1)
    before = state.create(model, optimizer, SHAPE, seed=0)
    after, values = steps.train_step(
        before, batch, model=model, optimizer=optimizer, loss=losses.cross_entropy
    )

    x = batch['image'].reshape(10, -1).astype(np.float64)
    kernel = np.asarray(before.params['Dense_0']['kernel'], np.float64)
    residual = (softmax(x @ kernel) - np.eye(3)[batch['label']]) / 10
    np.testing.assert_allclose(
        after.params['Dense_0']['kernel'], kernel - 0.1 * x.T @ residual, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        after.params['Dense_0']['bias'], -0.1 * residual.sum(axis=0), rtol=1e-4, atol=1e-7
    )
    assert (int(before.step), int(after.step)) == (0, 1)
    squares = ((x.T @ residual) ** 2).sum() + (residual.sum(axis=0) ** 2).sum()
    np.testing.assert_allclose(values['grad_norm'], np.sqrt(squares), rtol=1e-5)
    expected = (x @ kernel).argmax(axis=-1) == batch['label']
    np.testing.assert_allclose(values['accuracy'], expected.mean(), rtol=1e-6)


def test_class_weights_and_mixed_labels_weigh_the_loss_of_each_example():
    batch = make_batch(size=10)
    batch['other_label'] = batch['label'][::-1].copy()
    batch['label_weight'] = np.linspace(0.1, 1, 10).astype(np.float32)
    class_weights = np.array([0.5, 1.0, 4.0], np.float32)
    model, optimizer = Linear(), optax.sgd(0.1)
    before = state.create(model, optimizer, SHAPE, seed=0)
    _, values = steps.train_step(
        before,
        batch,
        model=model,
        optimizer=optimizer,
        loss=losses.cross_entropy,
        class_weights=class_weights,
    )
    logits = np.asarray(model.apply({'params': before.params}, batch['image']), np.float64)
    probabilities = softmax(logits)
    expected = 0.0
    for i in range(10):
        own, other = batch['label'][i], batch['other_label'][i]
        weight = batch['label_weight'][i]
        expected -= weight * class_weights[own] * np.log(probabilities[i, own]) / 10
        expected -= (1 - weight) * class_weights[other] * np.log(probabilities[i, other]) / 10
    np.testing.assert_allclose(values['loss'], expected, rtol=1e-5)
    # Of the two labels of a mixed image, its own one counts.
    correct = (logits.argmax(axis=1) == batch['label']).mean()
    assert correct != (logits.argmax(axis=1) == batch['other_label']).mean()
    np.testing.assert_allclose(values['accuracy'], correct, rtol=1e-6)


@pytest.mark.parametrize('loss', [losses.cross_entropy, losses.bce])
def test_loss_falls_to_near_zero_on_one_batch(loss):
    batch = make_batch()
    model, optimizer = CNN(num_classes=3, features=(8, 16)), optax.adam(1e-2)
    current = state.create(model, optimizer, SHAPE, seed=0)
    step = jax.jit(partial(steps.train_step, model=model, optimizer=optimizer, loss=loss))
    with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to an int32 power
        for _ in range(80):
            current, values = step(current, batch)
    assert float(values['loss']) < 0.01
    assert float(values['accuracy']) == 1.0


def test_gradients_equal_finite_differences_in_float64():
    model, optimizer = CNN(num_classes=3, features=(2, 3), hidden=(4,)), optax.sgd(1.0)
    before = state.create(model, optimizer, SHAPE, seed=0)
    batch = make_batch(size=4)
    batch['image'] = batch['image'].astype(np.float64)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), before.params)
        before = before.replace(params=params, opt_state=optimizer.init(params))
        # With plain SGD at rate 1 the update is the negative gradient.
        step = jax.jit(
            partial(steps.train_step, model=model, optimizer=optimizer, loss=losses.cross_entropy)
        )
        after, _ = step(before, batch)
        gradient = jax.tree.map(lambda a, b: np.asarray(a - b), params, after.params)

        def moved(distance, direction):
            return jax.tree.map(lambda p, d: p + distance * d, params, direction)

        rng = np.random.default_rng(0)
        for _ in range(5):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            ahead, behind = (
                step(before.replace(params=moved(e, direction)), batch)[1]['loss']
                for e in (1e-6, -1e-6)
            )
            expected = sum(
                jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction))
            )
            np.testing.assert_allclose((ahead - behind) / 2e-6, expected, rtol=1e-6)


def create_devices(driver, num_devices, sync_batch_norm=True):
    fields = {'driver': driver, 'num_devices': num_devices, 'sync_batch_norm': sync_batch_norm}
    return drivers.create(ConfigDict(fields))


def compile_on(devices, step, *args, sharded):
    """The step, compiled for some devices, and its arguments placed there."""
    step = partial(step, axis_name=devices.axis_name)
    placed = [
        jax.tree.map(devices.shard, arg) if i == sharded else devices.replicate(arg)
        for i, arg in enumerate(args)
    ]
    return devices.compile(step, *placed, sharded=sharded), placed


PLACEMENTS = [
    *(('jit', 2), ('jit', 8), ('pmap', 1), ('pmap', 2), ('pmap', 8)),
    *(('shard_map', 1), ('shard_map', 2), ('shard_map', 8)),
]


def mixed(batch):
    """The labels of a batch after mixup; how it gets them, and its images, augment's tests tell."""
    weight = np.linspace(0, 1, 32, dtype=np.float32)
    other_label = batch['label'].reshape(-1, 2)[:, ::-1].reshape(-1)
    return batch | {'other_label': other_label, 'label_weight': np.repeat(weight, 2)}


def train_on(driver, num_devices, sync_batch_norm=True):
    """Three steps with everything on; the state after them and the metrics of the last."""
    devices = create_devices(driver, num_devices, sync_batch_norm)
    model = CNN(
        num_classes=3,
        features=(4,),
        norm='batch',
        hidden=(8,),
        dropout=0.3,
        batch_norm_axis=devices.batch_norm_axis,
    )
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9))
    train = partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=losses.cross_entropy,
        label_smoothing=0.1,
        ema_decay=0.9,
    )

    def step(state, batch, axis_name):
        batch['key'] = jax.vmap(augment.dropout_key, (None, None, 0))(
            jax.random.key(0), state.step, batch['index']
        )
        return train(state, batch, axis_name=axis_name)

    initial = state.create(model, optimizer, SHAPE, seed=0, ema=True)
    step, (current, _) = compile_on(devices, step, initial, mixed(make_batch(64)), sharded=1)
    for seed in range(3):
        batch = mixed(make_batch(64, seed=seed))
        # So that the statistics of one device's images are not those of another's.
        batch['image'] += np.linspace(-3, 3, 64, dtype=np.float32).reshape(-1, 1, 1, 1)
        current, values = step(current, jax.tree.map(devices.shard, batch))
    return jax.device_get((current, values))


@pytest.mark.parametrize(('driver', 'num_devices'), PLACEMENTS)
def test_every_driver_on_any_number_of_devices_gives_the_same(driver, num_devices):
    found = train_on(driver, num_devices)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, on_one_device())


@functools.cache
def on_one_device():
    return train_on('jit', 1)


def test_every_driver_gives_the_same_where_batch_statistics_are_not_synchronised():
    found = {
        driver: train_on(driver, 2, sync_batch_norm=False)
        for driver in ('jit', 'pmap', 'shard_map')
    }
    for driver in ('jit', 'shard_map'):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found[driver], found['pmap']
        )
    unsynced, synced = (
        state.batch_stats['BatchNorm_0']['var'] for state, _ in (found['jit'], on_one_device())
    )
    assert np.abs(unsynced / synced - 1).max() > 0.01


@pytest.mark.parametrize(('driver', 'num_devices'), [('jit', 1), ('pmap', 2)])
def test_parts_of_a_batch_equal_the_whole_batch(driver, num_devices):
    model = CNN(num_classes=3, features=(4,), hidden=(8,), dropout=0.3)
    optimizer = optax.adam(0.01)
    devices = create_devices(driver, num_devices)
    finals = []
    for parts in (1, 4):
        train = partial(
            steps.train_step,
            model=model,
            optimizer=optimizer,
            loss=losses.cross_entropy,
            accumulate=parts,
        )
        initial = state.create(model, optimizer, SHAPE, seed=0)
        batch = make_batch(64)
        batch['key'] = jax.random.split(jax.random.key(1), 64)
        with jax.numpy_dtype_promotion('standard'):  # optax's Adam
            step, args = compile_on(devices, train, initial, batch, sharded=1)
        finals.append(jax.device_get(step(*args)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *finals)


def test_batch_statistics_of_parts_follow_one_another():
    model, optimizer, batch = Normalized(), optax.sgd(0.1), make_batch(32)
    initial = state.create(model, optimizer, SHAPE, seed=0)
    after, _ = steps.train_step(
        initial, batch, model=model, optimizer=optimizer, loss=losses.cross_entropy, accumulate=2
    )
    conv = nn.Conv(4, (3, 3)).apply({'params': initial.params['Conv_0']}, batch['image'])
    mean = 0
    for part in (conv[::2], conv[1::2]):
        mean = 0.9 * mean + 0.1 * np.asarray(part).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(after.batch_stats['BatchNorm_0']['mean'], mean, rtol=1e-4, atol=1e-6)


def test_the_average_of_the_parameters_by_hand():
    model, optimizer = Linear(), optax.sgd(0.5)
    current = state.create(model, optimizer, SHAPE, seed=0, ema=True)
    train = partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=losses.cross_entropy,
        ema_decay=0.15,
    )
    average = np.asarray(current.params['Dense_0']['kernel'])
    for step in range(4):
        current, _ = train(current, make_batch(seed=step))
        decay = min(0.15, (1 + step) / (10 + step))  # 0.1 first, then 0.15
        average = decay * average + (1 - decay) * np.asarray(current.params['Dense_0']['kernel'])
    np.testing.assert_allclose(current.ema['Dense_0']['kernel'], average, rtol=1e-5)
    logits = steps.predict_step(current.variables, make_batch()['image'], model=model)
    pixels = make_batch()['image'].reshape(32, -1)
    np.testing.assert_allclose(
        logits, pixels @ average + np.asarray(current.ema['Dense_0']['bias']), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('momentum', [0.0, 0.9, 0.99])
@pytest.mark.parametrize(('driver', 'num_devices'), [('jit', 1), ('pmap', 4), ('jit', 4)])
def test_the_statistics_of_a_batch_are_found_whatever_the_momentum(driver, num_devices, momentum):
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            count = self.variable('batch_stats', 'count', lambda: jnp.int32(7))
            count.value += jnp.int32(train)
            x = nn.Conv(4, (3, 3), use_bias=False)(images)
            return nn.BatchNorm(use_running_average=not train, momentum=momentum)(x)

    model, batch = Counting(), make_batch()
    batch['image'] = 100 + 30 * batch['image']  # a mean and a variance of very different sizes
    variables = model.init(jax.random.key(0), batch['image'])
    variables['params']['Conv_0']['kernel'] = kernel = np.array(
        variables['params']['Conv_0']['kernel']
    )
    kernel[..., 3] = 0  # a channel that is always 0

    def find(variables, batch, axis_name):
        return steps.batch_statistics(
            variables['params'], variables['batch_stats'], batch, model=model, axis_name=axis_name
        )

    devices = create_devices(driver, num_devices, False)  # per-device batch statistics
    step, args = compile_on(devices, find, variables, batch, sharded=1)
    found = jax.device_get(step(*args))
    conv = nn.Conv(4, (3, 3), use_bias=False).apply({'params': {'kernel': kernel}}, batch['image'])
    parts = np.asarray(conv, np.float64).reshape(num_devices, -1, 4)
    expected = {'mean': parts.mean(axis=(0, 1)), 'var': parts.var(axis=1).mean(axis=0)}
    for name, value in expected.items():
        np.testing.assert_allclose(
            found['BatchNorm_0'][name], value, rtol=2e-3 * (name == 'var') + 1e-4
        )
    assert found['count'] == 7


def test_without_batch_statistics_there_is_no_average_of_them():
    current = state.create(Linear(), optax.sgd(0.5), SHAPE, seed=0, ema=True)
    assert (current.ema_batch_stats, current.variables['batch_stats']) == ({}, {})
    current = state.create(Normalized(), optax.sgd(0.5), SHAPE, seed=0)
    assert (current.ema, current.ema_batch_stats) == ({}, {})
    assert current.variables['batch_stats'] is current.batch_stats


def test_batch_statistics_are_averaged_over_devices():
    model, optimizer = Normalized(), optax.sgd(0.1)
    initial = state.create(model, optimizer, SHAPE, seed=0)
    batch = make_batch(size=32)
    train = partial(steps.train_step, model=model, optimizer=optimizer, loss=losses.cross_entropy)
    step, args = compile_on(create_devices('pmap', 8, False), train, initial, batch, sharded=1)
    found = jax.device_get(step(*args)[0].batch_stats['BatchNorm_0'])

    conv = nn.Conv(4, (3, 3)).apply({'params': initial.params['Conv_0']}, batch['image'])
    # Each device normalises by its own four images; the running statistics are their average.
    parts = np.asarray(conv).reshape(8, 4 * 8 * 8, 4)
    np.testing.assert_allclose(found['mean'], 0.1 * parts.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['var'], 0.9 + 0.1 * parts.var(axis=1).mean(axis=0), rtol=1e-4)


# ---------------------------------------------------------------------------- eval_step


@pytest.mark.parametrize(('driver', 'num_devices'), [('jit', 1), ('pmap', 8), ('jit', 8)])
def test_evaluation_counts_each_example_once(driver, num_devices):
    model = CNN(num_classes=3, features=(4,))
    current = state.create(model, optax.sgd(0.1), SHAPE, seed=0)
    batch = make_batch(size=16)
    batch['mask'][13:] = False
    batch['image'][13:] = 1e6  # padding, whatever it holds, counts nothing

    def evaluate(state, totals, batch, axis_name=None):
        logits = steps.predict_step(state.variables, batch['image'], model=model)
        return steps.eval_step(
            logits, totals, batch, loss=losses.cross_entropy, axis_name=axis_name
        )

    devices = create_devices(driver, num_devices)
    step, args = compile_on(devices, evaluate, current, metrics.zeros(3), batch, sharded=2)
    totals, examples = jax.device_get(step(*args))

    logits = np.asarray(model.apply({'params': current.params}, batch['image']), np.float64)
    probabilities, labels = softmax(logits)[:13], batch['label'][:13]
    np.testing.assert_array_equal(
        totals['confusion'],
        sklearn.metrics.confusion_matrix(labels, logits[:13].argmax(-1), labels=range(3)),
    )
    np.testing.assert_allclose(
        totals['loss'], -np.log(probabilities[np.arange(13), labels]).sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(examples['prediction'], logits.argmax(-1))
    np.testing.assert_allclose(examples['confidence'][:13], probabilities.max(-1), rtol=1e-5)
    np.testing.assert_allclose(examples['probabilities'][:13], probabilities, rtol=1e-5, atol=1e-7)


def test_confidence_under_bce_is_a_sigmoid():
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    _, examples = steps.eval_step(logits, metrics.zeros(3), make_batch(size=6), loss=losses.bce)
    sigmoids = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(examples['probabilities'], sigmoids, rtol=1e-5)
    np.testing.assert_allclose(examples['confidence'], sigmoids.max(-1), rtol=1e-5)
