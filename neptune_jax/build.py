"""From a config to everything an experiment is made of, and its compiled steps."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from neptune_jax import checkpoints, lengths, metrics, models, optim, parallel, runs, state, steps
from neptune_jax.data import augment, batches, dataset, feed
from neptune_jax.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, ready to run."""

    config: Any
    devices: parallel.Parallel
    dataset: dataset.Dataset
    order: batches.TrainOrder
    augment: Callable  # (batch, key, step, epoch) -> batch
    class_weights: np.ndarray | None
    model: Any  # a Flax module
    loss: Callable
    optimizer: Any  # an Optax transformation
    schedule: Callable  # from the step to the learning rate
    steps_per_epoch: int
    total_steps: int
    log_every: int  # steps
    eval_every: int
    checkpoint_every: int | None  # None: by the clock
    checkpoint_seconds: float | None
    abstract_state: state.TrainState  # shapes, types and placement of its arrays
    weights: checkpoints.Weights | None  # of another run, to start from


def create(config):
    """Returns the Experiment that `config` describes.

    Raises:
        UserError: a value that cannot be used; the message names its field.
    """
    devices = parallel.create(
        config.parallel,
        deterministic=config.train.deterministic,
        ahead_of_time=not config.train.debug_nans,
    )
    _check(config, devices)
    data = dataset.load(config.data)
    count = config.train.steps_per_call
    if count < 1 or (count > 1 and data.mode != 'device'):
        raise UserError(
            f'train.steps_per_call={count} must be 1, or more with data that lie on the device '
            f"(data.mode='{data.mode}')"
        )
    model = models.create_model(config.model, len(data.class_names), devices.batch_norm_axis)
    train = data.splits['train']
    labels = data.labels[train]
    balance_by = labels if config.data.sampler == 'balanced' else None
    order = batches.TrainOrder(train, config.train.batch_size, config.seed, balance_by)

    steps_per_epoch = order.steps_per_epoch
    total_steps = _total_steps(config.train, steps_per_epoch, len(train))
    in_steps = partial(
        lengths.in_steps,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=config.train.batch_size,
    )

    def every(group):
        return max(1, in_steps(config[group].every, f'{group}.every'))

    schedule = optim.create_schedule(config.optim, total_steps, in_steps)
    optimizer = optim.create_optimizer(config.optim, schedule)
    ema = config.optim.ema_decay > 0
    initial = partial(state.initial, model, optimizer, data.image_shape, ema=ema)
    abstract_state = jax.eval_shape(initial, jax.random.key(config.seed))
    seconds = lengths.in_seconds(config.checkpoint.every)
    return Experiment(
        config=config,
        devices=devices,
        dataset=data,
        order=order,
        augment=_create_augment(config, devices, data.image_shape),
        class_weights=_class_weights(config.loss.class_weights, labels, len(data.class_names)),
        model=model,
        loss=steps.LOSSES[config.loss.name],
        optimizer=optimizer,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=every('log'),
        eval_every=every('eval'),
        checkpoint_every=None if seconds else every('checkpoint'),
        checkpoint_seconds=seconds,
        abstract_state=devices.abstract(abstract_state),
        weights=_read_weights(config.checkpoint.restore_from, abstract_state, data.class_names),
    )


def _check(config, devices):
    """Raises UserError for a value that is wrong whatever the data are."""
    for group in ('train', 'eval'):
        parallel.check_divisible(devices, config[group].batch_size, f'{group}.batch_size')
    choose(steps.LOSSES, config.loss.name, 'loss.name')
    choose({'none': None, 'balanced': None}, config.loss.class_weights, 'loss.class_weights')
    choose({'shuffle': None, 'balanced': None}, config.data.sampler, 'data.sampler')
    modes = dict.fromkeys(('auto', 'online', 'offline', 'disabled'))
    choose(modes, config.neptune.mode, 'neptune.mode')
    for field, value in (
        ('loss.label_smoothing', config.loss.label_smoothing),
        ('optim.ema_decay', config.optim.ema_decay),
    ):
        if not 0 <= value < 1:
            raise UserError(f'{field}={value} must be at least 0 and below 1')
    for field, seed in (('seed', config.seed), ('data.split_seed', config.data.split_seed)):
        if seed < 0:
            raise UserError(f'{field}={seed} must not be negative')
    if config.checkpoint.keep < 1:
        raise UserError(f'checkpoint.keep={config.checkpoint.keep} must be at least 1')
    parts, share = config.train.accumulate, config.train.batch_size // devices.num_devices
    if parts < 1 or share % parts:
        raise UserError(
            f'train.accumulate={parts} does not divide the {share} examples of a batch that each '
            'device has'
        )


def _total_steps(config, steps_per_epoch, examples):
    """Returns the number of steps that the `train` group asks for."""
    if not steps_per_epoch:
        raise UserError(
            f'train.batch_size={config.batch_size} is more than the {examples} training examples'
        )
    total_steps = config.steps
    if total_steps is None:
        if not 0 < config.epochs < float('inf'):
            raise UserError(f'train.epochs={config.epochs} must be above 0 and finite')
        total_steps = max(1, round(config.epochs * steps_per_epoch))
    if total_steps < 1:
        raise UserError(f'train.steps={total_steps} must be at least 1')
    traced = config.profile_steps
    if traced and not (len(traced) == 2 and 1 <= traced[0] <= traced[1] <= total_steps):
        raise UserError(
            f'train.profile_steps={tuple(traced)} must be the first and the last of some of the '
            f'{total_steps} steps'
        )
    return total_steps


def _class_weights(name, labels, num_classes):
    """Returns float32[K], the higher the rarer a class is in training; None for all alike."""
    if name == 'none':
        return None
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


def _read_weights(workdir, abstract_state, class_names):
    """Returns another run's weights, those of its best checkpoint; None where `workdir` is ''.

    Where the number of classes differs, the arrays whose last axis counts classes are left out.
    """
    if not workdir:
        return None
    step = runs.best_step(workdir)
    if step is None:
        raise UserError(f'checkpoint.restore_from={workdir!r} holds no run with a checkpoint')
    weights = checkpoints.read_weights(workdir, step)
    expected = {'params': abstract_state.params, 'batch_stats': abstract_state.batch_stats}
    expected, found = flatten_dict(expected, sep='/'), flatten_dict(weights.arrays, sep='/')
    new = {
        path
        for path in expected.keys() & found.keys()
        if len(weights.classes) != len(class_names)
        and expected[path].shape == (*found[path].shape[:-1], len(class_names))
        and found[path].shape[-1:] == (len(weights.classes),)
    }
    for path in new:
        del expected[path], found[path]
    checkpoints.check_shapes(f'checkpoint.restore_from={workdir!r}', found, expected)
    return weights._replace(arrays=found, new=sorted(new))


def _create_augment(config, devices, image_shape):
    """Returns the augmentation, having tried it on the shapes of a batch as a step sees it."""
    function = augment.create_augment(config.augment, image_shape)
    size = config.train.batch_size // (devices.num_devices if devices.axis_name else 1)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    numbers = jax.ShapeDtypeStruct((size,), jnp.int32)
    image = jax.ShapeDtypeStruct((size, *image_shape), jnp.float32)
    batch = {'image': image, 'label': numbers, 'index': numbers}
    jax.eval_shape(function, batch, jax.eval_shape(lambda: jax.random.key(0)), number, number)
    return function


def init_state(experiment):
    """Returns the TrainState before the first step, replicated over the devices."""
    initial = state.create(
        experiment.model,
        experiment.optimizer,
        experiment.dataset.image_shape,
        experiment.config.seed,
        ema=bool(experiment.abstract_state.ema),
    )
    if experiment.weights:
        arrays = {'params': initial.params, 'batch_stats': initial.batch_stats}
        arrays = flatten_dict(arrays, sep='/') | experiment.weights.arrays
        arrays = unflatten_dict(arrays, sep='/')
        initial = initial.replace(
            params=arrays['params'],
            batch_stats=arrays.get('batch_stats', {}),
            ema=arrays['params'] if initial.ema else {},
        )
    return experiment.devices.replicate(initial)


def create_feed(experiment):
    """Returns the data.feed.Feed from which all batches of the experiment come."""
    return feed.create(experiment.dataset, experiment.devices)


def calls(experiment, start):
    """Returns the data.batches.Calls from the step after `start` to the last."""
    stops = [experiment.log_every, experiment.eval_every, experiment.checkpoint_every]
    return batches.Calls(
        experiment.order,
        start,
        experiment.total_steps,
        experiment.config.train.steps_per_call,
        [every for every in stops if every],
    )


def compile_train_step(experiment, feed, count=1):
    """Returns the compiled step (state, data, item) -> (state, metrics); it consumes the state.

    Args:
        experiment: Experiment.
        feed: from `create_feed`; it gives the data and the items.
        count: how many steps it takes in one call. Of several, the metrics are arrays [count].
    """
    one_step = _train_step(experiment, feed)

    def step(state, data, item):
        if count == 1:
            return one_step(state, data, item)
        # A convolution in a loop is many times slower on a CPU: there the loop is written out.
        return jax.lax.scan(
            lambda state, item: one_step(state, data, item),
            state,
            jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), item),
            unroll=jax.default_backend() == 'cpu',
        )

    item = feed.empty(experiment.config.train.batch_size, count)
    args = (experiment.abstract_state, feed.data, item)
    return experiment.devices.compile(step, *args, sharded=2, donate=(0,))


def _train_step(experiment, feed):
    """Returns the pure function that `compile_train_step` compiles."""
    config, devices = experiment.config, experiment.devices

    def step(state, data, item):
        batch = feed.unpack(data, item)
        batch['image'] = batch['image'].astype(jnp.float32) / 255
        epoch, seed_key = state.step // experiment.steps_per_epoch, jax.random.key(config.seed)
        batch = experiment.augment(batch, seed_key, state.step, epoch)
        batch['key'] = jax.vmap(augment.dropout_key, (None, None, 0))(
            seed_key, state.step, batch['index']
        )
        batch['image'] = experiment.dataset.standardizer(batch['image'])
        return steps.train_step(
            state,
            batch,
            model=experiment.model,
            optimizer=experiment.optimizer,
            loss=experiment.loss,
            label_smoothing=config.loss.label_smoothing,
            class_weights=experiment.class_weights,
            accumulate=config.train.accumulate,
            ema_decay=config.optim.ema_decay,
            axis_name=devices.axis_name,
        )

    return step


def compile_evaluate(experiment, feed):
    """Returns a function that evaluates a state exactly: each example counts once.

    Args:
        experiment: Experiment.
        feed: from `create_feed`.

    Returns:
        A function of a TrainState and the numbers of n examples. It returns the totals of
        `metrics.statistics` over them, and a dict of arrays [n] in their order: what
        `steps.eval_step` says of each example. All are NumPy arrays.
    """
    devices, standardizer = experiment.devices, experiment.dataset.standardizer
    batch_size = experiment.config.eval.batch_size
    zeros = metrics.zeros(len(experiment.dataset.class_names))

    def step(state, totals, data, item):
        batch = feed.unpack(data, item)
        batch['image'] = standardizer(batch['image'].astype(jnp.float32) / 255)
        return steps.eval_step(
            state,
            totals,
            batch,
            model=experiment.model,
            loss=experiment.loss,
            axis_name=devices.axis_name,
        )

    args = (experiment.abstract_state, devices.replicate(zeros), feed.data, feed.empty(batch_size))
    step = devices.compile(step, *args, sharded=3, donate=(1,))

    def evaluate(state, examples):
        order = batches.EvalOrder(examples, batch_size)
        totals, outputs = devices.replicate(zeros), []
        for item in feed.batches(order, 0, len(order)):
            totals, output = step(state, totals, feed.data, item)
            outputs.append(output)
        totals, outputs = jax.device_get((totals, outputs))
        outputs = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *outputs)
        return totals, outputs

    return evaluate
