"""From a config to everything an experiment is made of, and its compiled steps."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from neptune_jax import lengths, metrics, models, optim, parallel, state, steps
from neptune_jax.data import batches, dataset
from neptune_jax.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, ready to run."""

    config: Any
    devices: parallel.Parallel
    dataset: dataset.Dataset
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
    if config.checkpoint.keep < 1:
        raise UserError(f'checkpoint.keep={config.checkpoint.keep} must be at least 1')
    data = dataset.load(config.data)
    model = models.create_model(config.model, len(data.class_names))

    steps_per_epoch = data.sizes['train'] // config.train.batch_size
    if not steps_per_epoch:
        raise UserError(
            f'train.batch_size={config.train.batch_size} is more than the '
            f'{data.sizes["train"]} training examples'
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


def init_state(experiment):
    """Returns the TrainState before the first step, replicated over the devices."""
    return experiment.devices.replicate(
        _create_state(experiment.config, experiment.model, experiment.optimizer, experiment.dataset)
    )


def _create_state(config, model, optimizer, data):
    return state.create(model, optimizer, data.images.shape[1:], config.seed)


def place_data(experiment):
    """Returns all examples on every device, as `data.batches.gather` wants them."""
    data = experiment.dataset
    return experiment.devices.replicate({'image': data.images, 'label': data.labels})


def compile_train_step(experiment, data):
    """Returns the compiled step (state, data, indices) -> (state, metrics); it consumes the state.

    Args:
        experiment: Experiment.
        data: from `place_data`.
    """
    devices, standardizer = experiment.devices, experiment.dataset.standardizer

    def step(state, data, indices):
        return steps.train_step(
            state,
            batches.gather(data, indices, standardizer),
            model=experiment.model,
            optimizer=experiment.optimizer,
            loss=experiment.loss,
            label_smoothing=experiment.config.loss.label_smoothing,
            axis_name=devices.axis_name,
        )

    indices = devices.shard(np.zeros(experiment.config.train.batch_size, np.int32))
    return devices.compile(step, experiment.abstract_state, data, indices, sharded=2, donate=(0,))


def compile_evaluate(experiment, data):
    """Returns a function that evaluates a state exactly: each example counts once.

    Args:
        experiment: Experiment.
        data: from `place_data`.

    Returns:
        A function of a TrainState and the indices of n examples. It returns the totals of
        `metrics.statistics` over them, and a dict of arrays [n] in their order: what
        `steps.eval_step` says of each example. All are NumPy arrays.
    """
    devices, standardizer = experiment.devices, experiment.dataset.standardizer
    batch_size = experiment.config.eval.batch_size
    zeros = metrics.zeros(len(experiment.dataset.class_names))

    def step(state, totals, data, indices):
        return steps.eval_step(
            state,
            totals,
            batches.gather(data, indices, standardizer),
            model=experiment.model,
            loss=experiment.loss,
            axis_name=devices.axis_name,
        )

    indices = devices.shard(np.zeros(batch_size, np.int32))
    args = (experiment.abstract_state, devices.replicate(zeros), data, indices)
    step = devices.compile(step, *args, sharded=3, donate=(1,))

    def evaluate(state, examples):
        totals, outputs = devices.replicate(zeros), []
        for indices in batches.eval_indices(examples, batch_size):
            totals, output = step(state, totals, data, devices.shard(indices))
            outputs.append(output)
        totals, outputs = jax.device_get((totals, outputs))
        outputs = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *outputs)
        return totals, outputs

    return evaluate
