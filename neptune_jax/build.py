"""From a config to everything an experiment is made of, and its compiled steps."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neptune_jax import lengths, metrics, models, optim, parallel, state, steps
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
    checkpoint_every: int
    abstract_state: state.TrainState  # shapes, types and placement of its arrays


def create(config):
    """Returns the Experiment that `config` describes.

    Raises:
        UserError: a value that cannot be used; the message names its field.
    """
    devices = parallel.create(config.parallel)
    for group in ('train', 'eval'):
        parallel.check_divisible(devices, config[group].batch_size, f'{group}.batch_size')
    loss = choose(steps.LOSSES, config.loss.name, 'loss.name')
    if not 0 <= config.loss.label_smoothing < 1:
        raise UserError(
            f'loss.label_smoothing={config.loss.label_smoothing} must be at least 0 and below 1'
        )
    choose({'none': None, 'balanced': None}, config.loss.class_weights, 'loss.class_weights')
    choose({'shuffle': None, 'balanced': None}, config.data.sampler, 'data.sampler')
    for field, seed in (('seed', config.seed), ('data.split_seed', config.data.split_seed)):
        if seed < 0:
            raise UserError(f'{field}={seed} must not be negative')
    if config.checkpoint.keep < 1:
        raise UserError(f'checkpoint.keep={config.checkpoint.keep} must be at least 1')
    data = dataset.load(config.data)
    model = models.create_model(config.model, len(data.class_names))

    train = data.splits['train']
    labels = data.labels[train]
    balance_by = labels if config.data.sampler == 'balanced' else None
    order = batches.TrainOrder(train, config.train.batch_size, config.seed, balance_by)
    steps_per_epoch = order.steps_per_epoch
    if not steps_per_epoch:
        raise UserError(
            f'train.batch_size={config.train.batch_size} is more than the {len(train)} training '
            'examples'
        )
    class_weights = None
    if config.loss.class_weights == 'balanced':
        counts = np.bincount(labels, minlength=len(data.class_names))
        class_weights = (len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(
            np.float32
        )
    total_steps = config.train.steps
    if total_steps is None:
        if not 0 < config.train.epochs < float('inf'):
            raise UserError(f'train.epochs={config.train.epochs} must be above 0 and finite')
        total_steps = max(1, round(config.train.epochs * steps_per_epoch))
    if total_steps < 1:
        raise UserError(f'train.steps={total_steps} must be at least 1')
    in_steps = partial(
        lengths.in_steps,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=config.train.batch_size,
    )

    schedule = optim.create_schedule(config.optim, total_steps, in_steps)
    optimizer = optim.create_optimizer(config.optim, schedule)
    initial = jax.eval_shape(lambda: _create_state(config, model, optimizer, data))
    return Experiment(
        config=config,
        devices=devices,
        dataset=data,
        order=order,
        augment=_create_augment(config, devices, data.image_shape),
        class_weights=class_weights,
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=max(1, in_steps(config.log.every, 'log.every')),
        eval_every=max(1, in_steps(config.eval.every, 'eval.every')),
        checkpoint_every=max(1, in_steps(config.checkpoint.every, 'checkpoint.every')),
        abstract_state=devices.abstract(initial),
    )


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
    return experiment.devices.replicate(
        _create_state(experiment.config, experiment.model, experiment.optimizer, experiment.dataset)
    )


def _create_state(config, model, optimizer, data):
    return state.create(model, optimizer, data.image_shape, config.seed)


def create_feed(experiment):
    """Returns the data.feed.Feed from which all batches of the experiment come."""
    return feed.create(experiment.dataset, experiment.devices)


def compile_train_step(experiment, feed):
    """Returns the compiled step (state, data, item) -> (state, metrics); it consumes the state.

    Args:
        experiment: Experiment.
        feed: from `create_feed`; it gives the data and the items.
    """
    config, devices = experiment.config, experiment.devices

    def step(state, data, item):
        batch = feed.unpack(data, item)
        batch['image'] = batch['image'].astype(jnp.float32) / 255
        epoch = state.step // experiment.steps_per_epoch
        batch = experiment.augment(batch, jax.random.key(config.seed), state.step, epoch)
        batch['image'] = experiment.dataset.standardizer(batch['image'])
        return steps.train_step(
            state,
            batch,
            model=experiment.model,
            optimizer=experiment.optimizer,
            loss=experiment.loss,
            label_smoothing=config.loss.label_smoothing,
            class_weights=experiment.class_weights,
            axis_name=devices.axis_name,
        )

    args = (experiment.abstract_state, feed.data, feed.empty(config.train.batch_size))
    return devices.compile(step, *args, sharded=2, donate=(0,))


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
