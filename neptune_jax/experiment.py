"""From a config to an Experiment: data, model, optimizer, schedule, and how often things happen."""

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from neptune_jax import defaults, models, terminal
from neptune_jax.data import augment, batches, dataset
from neptune_jax.devices import drivers
from neptune_jax.errors import UserError, choose_or_import, using
from neptune_jax.learning import lengths, losses, numbers, optimizers, schedules, state, steps
from neptune_jax.models import weights_file
from neptune_jax.runs import checkpoints, reader
from neptune_jax.runs.files import expand_user
from neptune_jax.runs.weights import read_weights


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config describes, ready to run."""

    config: ConfigDict
    parallel: drivers.Parallel
    dataset: dataset.Dataset
    order: batches.TrainOrder
    augment: Callable  # (batch, key, step, epoch) -> batch
    class_weights: np.ndarray | None  # float32[K]
    model: Any  # a Flax module
    loss: Callable  # (logits, labels, label_smoothing) -> float32[B]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule  # from the step to the learning rate
    update_rule: Callable  # from some learning.numbers to such an optimizer and such a schedule
    steps_per_epoch: int
    total_steps: int
    log_every: int  # steps
    eval_every: int  # steps
    checkpoint_every: int | None  # steps; None: by the clock
    checkpoint_seconds: float | None
    abstract_state: state.TrainState  # shapes, types and placement of its arrays

    def train_step(
        self,
        state: state.TrainState,
        batch: steps.Batch,
        key: jax.Array | None = None,
        numbers: numbers.Numbers | None = None,
    ) -> tuple:
        """Takes a training step on raw images: augments, standardises and updates the state.

        A pure function, to be traced. It returns what `steps.train_step` returns; the metrics also
        hold the step's `learning_rate`.

        Args:
            state: TrainState.
            batch: `image` uint8[B, H, W, C], `label` int32[B] and `index` int32[B], the numbers of
                the examples in the data set; this device's share of them under pmap and shard_map.
            key: PRNG key of augmentation and dropout; None: that of the seed.
            numbers: `learning.numbers`, traced; None: those of the config, as constants.
        """
        config, index = self.config, batch['index']
        optimizer, schedule = self.optimizer, self.schedule
        seed, label_smoothing = config.seed, config.loss.label_smoothing
        if numbers is not None:
            optimizer, schedule = self.update_rule(numbers)
            seed = numbers['seed']
            label_smoothing = numbers.get('loss.label_smoothing', label_smoothing)
        seed_key = jax.random.key(seed) if key is None else key
        batch = batch | {'image': batch['image'].astype(jnp.float32) / 255}
        epoch = state.step // self.steps_per_epoch
        batch = self.augment(batch, seed_key, state.step, epoch)
        batch['key'] = jax.vmap(augment.dropout_key, (None, None, 0))(seed_key, state.step, index)
        batch['image'] = self.dataset.standardizer(batch['image'])
        next_state, values = steps.train_step(
            state,
            batch,
            model=self.model,
            optimizer=optimizer,
            loss=self.loss,
            label_smoothing=label_smoothing,
            class_weights=self.class_weights,
            accumulate=config.train.accumulate,
            ema_decay=config.optim.ema_decay,
            axis_name=self.parallel.axis_name,
        )
        rate = jnp.asarray(schedule(state.step), jnp.float32)
        return next_state, values | {'learning_rate': rate}


def check(config: ConfigDict) -> drivers.Parallel:
    """Checks what needs no data, which may take long to prepare; returns the driver.

    Raises:
        UserError: a value that cannot be used; the message names its field.
    """
    defaults.check(config)
    parallel = drivers.create(
        config.parallel,
        deterministic=config.train.deterministic,
        ahead_of_time=not config.train.debug_nans,
    )
    _check_batches(config, parallel)
    models.create_model(config.model, num_classes=2)
    return parallel


def create(config: ConfigDict, data: dataset.Dataset | None = None) -> Experiment:
    """Returns the Experiment that `config` describes.

    Args:
        config: the whole ConfigDict.
        data: of the `data` group, where it has been loaded before.

    Raises:
        UserError: a value that cannot be used; the message names its field.
    """
    parallel = check(config)
    data = data or dataset.load(config.data)
    if config.train.steps_per_call > 1 and data.mode != 'device':
        raise UserError(
            f'train.steps_per_call={config.train.steps_per_call} must be 1 unless the data are in '
            f"device memory (data.mode='{data.mode}')"
        )
    num_classes = len(data.class_names)
    model = models.create_model(config.model, num_classes, parallel.batch_norm_axis)
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

    def update_rule(values):
        optim = numbers.substitute(config.optim, values)
        schedule = schedules.create_schedule(optim, total_steps, in_steps)
        return optimizers.create_optimizer(optim, schedule, in_steps), schedule

    with using('optim.schedule', config.optim.schedule):
        schedule = schedules.create_schedule(config.optim, total_steps, in_steps)
        if ':' in config.optim.schedule:
            jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
    with using('optim.name', config.optim.name):
        optimizer = optimizers.create_optimizer(config.optim, schedule, in_steps)
    ema = config.optim.ema_decay > 0
    initial = partial(state.initial, model, optimizer, data.image_shape, ema=ema)
    with using('model.name', config.model.name):
        abstract_state = jax.eval_shape(initial, jax.random.key(config.seed))
    _check_memory(config, parallel, data.image_shape, abstract_state)
    loss = _create_loss(config, num_classes)
    seconds = lengths.in_seconds(config.checkpoint.every)
    return Experiment(
        config=config,
        parallel=parallel,
        dataset=data,
        order=order,
        augment=_create_augment(config, parallel, data.image_shape),
        class_weights=_class_weights(config.loss.class_weights, labels, num_classes),
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        update_rule=update_rule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=every('log'),
        eval_every=every('eval'),
        checkpoint_every=None if seconds else every('checkpoint'),
        checkpoint_seconds=seconds,
        abstract_state=parallel.abstract(abstract_state),
    )


def check_together(experiment: Experiment) -> None:
    """Raises UserError if one program cannot train several runs of this kind.

    Args:
        experiment: of one of them (training/together.py).
    """
    config, parallel, mode = experiment.config, experiment.parallel, experiment.dataset.mode
    reasons = {
        f'data.mode={mode}: their images must be in device memory': mode != 'device',
        f'{parallel.num_devices} devices: set parallel.num_devices=1': parallel.num_devices > 1,
        f'parallel.driver={parallel.driver}: set it to jit': parallel.driver != 'jit',
        'parallel.sync_batch_norm=False': not parallel.sync_batch_norm,
        'train.debug_nans=True': config.train.debug_nans,
        f'train.profile_steps={config.train.profile_steps}': bool(config.train.profile_steps),
    }
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f'runs cannot be trained together with {reason}; or train each alone')


def _check_batches(config, parallel):
    """Raises UserError unless the devices can share batches evenly, also in parts."""
    for group in ('train', 'eval'):
        drivers.check_divisible(parallel, config[group].batch_size, f'{group}.batch_size')
    parts, share = config.train.accumulate, config.train.batch_size // parallel.num_devices
    if share % parts:
        raise UserError(
            f'train.accumulate={parts} does not divide the {share} examples of a batch that each '
            'device has'
        )


def _check_memory(config, parallel, image_shape, abstract_state):
    """Raises UserError for what no device could hold, before memory is asked for."""
    # Of a device of this process: JAX does not know the memory of others. A CPU has no statistics.
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = stats.get('bytes_limit') or os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    image = 4 * math.prod(image_shape) / parallel.num_devices
    leaves = jax.tree.leaves(abstract_state)
    needed = {
        f'train.batch_size={config.train.batch_size}': config.train.batch_size * image,
        f'eval.batch_size={config.eval.batch_size}': config.eval.batch_size * image,
        'the network of config.model': sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    }
    for what, nbytes in needed.items():
        if nbytes > memory:
            raise UserError(
                f'{what} needs {nbytes / 2**30:,.1f} GiB on each device and more, but it has '
                f'{memory / 2**30:,.1f} GiB; make it smaller'
            )


def _total_steps(config, steps_per_epoch, examples):
    """Returns the number of steps that the `train` group asks for."""
    if not steps_per_epoch:
        raise UserError(
            f'train.batch_size={config.batch_size} is more than the {examples} training examples'
        )
    total_steps = config.steps
    if total_steps is None:
        total_steps = max(1, round(config.epochs * steps_per_epoch))
        if total_steps >= 2**31:
            raise UserError(
                f'train.epochs={config.epochs} are {total_steps} steps; there must be fewer than '
                '2**31'
            )
    traced = config.profile_steps
    if traced and not (len(traced) == 2 and 1 <= traced[0] <= traced[1] <= total_steps):
        raise UserError(
            f'train.profile_steps={tuple(traced)} must be the first and the last of some of the '
            f'{total_steps} steps'
        )
    return total_steps


def _class_weights(name, labels, num_classes):
    """Returns float32[K], higher for classes that are rarer in training; None: all weigh 1."""
    if name == 'none':
        return None
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights.astype(np.float32)


def _create_loss(config, num_classes):
    """Returns the loss; one of the user's own is tried on the shapes of a batch."""
    loss = choose_or_import(losses.LOSSES, config.loss.name, 'loss.name')
    if ':' not in config.loss.name:
        return loss
    size = config.train.batch_size
    logits = jax.ShapeDtypeStruct((size, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    with using('loss.name', config.loss.name):
        found = jax.eval_shape(
            lambda *batch: loss(*batch, config.loss.label_smoothing), logits, labels
        )
    if getattr(found, 'shape', None) != (size,):
        raise UserError(f'loss.name={config.loss.name!r} must return one loss an example')
    return loss


def _create_augment(config, parallel, image_shape):
    """Returns the augmentation, having tried it on the shapes of a batch as a step sees it."""
    function = augment.create_augment(config.augment, image_shape)
    size = config.train.batch_size // (parallel.num_devices if parallel.axis_name else 1)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    numbers = jax.ShapeDtypeStruct((size,), jnp.int32)
    image = jax.ShapeDtypeStruct((size, *image_shape), jnp.float32)
    batch = {'image': image, 'label': numbers, 'index': numbers}
    key = jax.eval_shape(lambda: jax.random.key(0))
    with using('augment.extra', ', '.join(config.augment.extra)):
        jax.eval_shape(function, batch, key, number, number)
    return function


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Weights that a new run starts from: another run's, or those of a file."""

    source: str  # the run directory or the file
    step: int | None  # of the other run
    num_classes: int  # of the other model
    arrays: dict[str, np.ndarray]  # by path: 'params/Conv_0/kernel'
    reinitialized: list[str]  # paths of the output layer's arrays, if it has other classes


def read_initial_weights(experiment: Experiment) -> InitialWeights | None:
    """Returns the weights that `checkpoint.restore_from` names; None if it is empty.

    If the other model has another number of classes, the arrays of its output layer are left out:
    those whose last axis counts classes.

    Raises:
        UserError: there is no such run or file, it is damaged, or its model is another one.
    """
    config = experiment.config.checkpoint
    if not config.restore_from:
        return None
    source = expand_user(config.restore_from, 'checkpoint.restore_from')
    state = experiment.abstract_state
    expected = _flatten(state.params, state.batch_stats)
    num_classes = len(experiment.dataset.class_names)
    if source.endswith(weights_file.SUFFIX):
        step, found = None, weights_file.read(source, config.names, expected)
        other = weights_file.num_classes(found, expected, num_classes)
    else:
        try:
            weights = read_weights(source)
        except UserError as error:
            raise UserError(f'checkpoint.restore_from={error}') from error
        step, found = weights.step, _flatten(weights.params, weights.batch_stats)
        other = len(weights.preprocessing['classes'])
        _note_other_splits(experiment, source)
    head = {
        path
        for path in expected.keys() & found.keys()
        if other != num_classes
        and expected[path].shape == (*found[path].shape[:-1], num_classes)
        and found[path].shape[-1:] == (other,)
    }
    for path in head:
        del expected[path], found[path]
    checkpoints.check_shapes(f'checkpoint.restore_from={source!r}', found, expected)
    return InitialWeights(source, step, other, found, sorted(head))


def _note_other_splits(experiment, workdir):
    differences = dataset.drawn_otherwise(
        experiment.dataset, experiment.config.data, reader.read_config(workdir).get('data', {})
    )
    if differences:
        terminal.line(
            f'note     checkpoint.restore_from={workdir!r} divided the same data in another way '
            f'({differences}); it may have trained on images that validate or test here'
        )


def init_state(experiment: Experiment, weights: InitialWeights | None = None) -> state.TrainState:
    """Returns the TrainState before the first step, replicated over the devices."""
    initial = state.create(
        experiment.model,
        experiment.optimizer,
        experiment.dataset.image_shape,
        experiment.config.seed,
        ema=bool(experiment.abstract_state.ema),
    )
    if weights:
        arrays = _flatten(initial.params, initial.batch_stats) | weights.arrays
        arrays = unflatten_dict(arrays, sep='/')
        has_averages = bool(initial.ema)
        initial = initial.replace(
            params=arrays['params'], batch_stats=arrays.get('batch_stats', {})
        )
        if has_averages:
            initial = initial.with_averages()
    return experiment.parallel.replicate(initial)


def _flatten(params, batch_stats):
    return flatten_dict({'params': params, 'batch_stats': batch_stats}, sep='/')
