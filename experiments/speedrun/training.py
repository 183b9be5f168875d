"""A run as three programs: make a state, train it, count the images that it gets right."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.speedrun import net, optimizer
from neptune_jax.data import augment, batches
from neptune_jax.learning import losses, steps
from neptune_jax.models import ops

LABEL_SMOOTHING = 0.2
WHITENING_EPOCHS = 3  # in which the bias of the whitening convolution learns
WHITENING_IMAGES = 5000  # of the training set, whose patches are counted


class State(NamedTuple):
    """What a run carries from step to step."""

    step: jax.Array  # int32[]
    seed: jax.Array  # int32[]
    params: Any
    batch_stats: Any
    opt_state: Any


class Task(NamedTuple):
    """Pure functions; `data` holds `image` uint8[N, H, W, C] and `label` int32[N].

    `rows` are the numbers of a batch's examples, int32[B].
    """

    init: Any  # (seed, data, rows to whiten) -> State
    batch: Any  # (data, rows, seed, step) -> augmented `image` float32, standardised, and `label`
    train_step: Any  # (State, data, rows) -> State
    count_step: Any  # ((State, correct), data, rows) -> (State, correct); rows of -1 do not count


def create(rung, dataset, steps_per_epoch, total_steps, whitening_steps):
    """Returns the Task of a rung (run.Rung) on a data set (neptune_jax.data.dataset.Dataset)."""
    model = net.Network(len(dataset.class_names), **rung.network)
    chain = optimizer.create(rung.rates, rung.batch_size, total_steps, whitening_steps)
    off = {'flip': 'none', **dict.fromkeys((*augment.OPERATIONS, *augment.MIXES), 0)}
    change = augment.create_augment(ConfigDict(off | rung.augment), dataset.image_shape)
    pixels = dataset.standardizer

    def init(seed, data, rows):
        images = pixels(data['image'][rows] / jnp.float32(255))
        variables = model.init(jax.random.key(seed), images[:1])
        params, batch_stats = variables['params'], variables['batch_stats']
        params['whitening']['kernel'] = net.whitening_kernel(images, model.patch)
        return State(jnp.int32(0), seed, params, batch_stats, chain.init(params))

    def augmented(data, rows, seed, step):
        batch = {'image': data['image'][rows] / jnp.float32(255), 'label': data['label'][rows]}
        key, epoch = jax.random.key(seed), step // steps_per_epoch
        batch = change(batch | {'index': rows}, key, step, epoch)
        return batch | {'image': pixels(batch['image'])}

    def loss(params, state, batch):
        variables = {'params': params, 'batch_stats': state.batch_stats}
        logits, updated = model.apply(variables, batch['image'], train=True, mutable='batch_stats')
        losses = losses.cross_entropy(logits, batch['label'], LABEL_SMOOTHING)
        return losses.sum(), updated['batch_stats']

    def train_step(state, data, rows):
        batch = augmented(data, rows, state.seed, state.step)
        grads, batch_stats = jax.grad(loss, has_aux=True)(state.params, state, batch)
        updates, opt_state = chain.update(grads, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(state.step + 1, state.seed, params, batch_stats, opt_state)

    def count_step(carry, data, rows):
        state, correct = carry
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        images = pixels(data['image'][rows] / jnp.float32(255))
        logits = view_logits(partial(model.apply, variables), images, rung.views)
        right = (logits.argmax(axis=1) == data['label'][rows]) & (rows >= 0)
        return state, correct + right.sum(dtype=jnp.int32)

    return Task(init, augmented, train_step, count_step)


def view_logits(predict, images, views):
    """Returns the mean logits, float32[B, K], over views of images.

    Args:
        predict: from images to logits.
        images: float32[B, H, W, C], standardised.
        views: for each how far to move the images down and to the right, in pixels, and whether
            to mirror them. What is moved in repeats the edge.
    """
    height, width = images.shape[1:3]
    reach = max(abs(pixels) for *shift, _ in views for pixels in shift)
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), 'edge')
    shifted = [
        (padded[:, reach - down :, reach - right :][:, :height, :width], mirror)
        for down, right, mirror in views
    ]
    every = [view[:, :, ::-1] if mirror else view for view, mirror in shifted]
    logits = predict(jnp.concatenate(every))
    return logits.reshape(len(views), len(images), -1).mean(axis=0)


def compile_fold(step, carry, data, rows, in_one_program):
    """Compiles `step`, a function of (carry, data, rows[i]) to carry, for all rows in turn.

    Args:
        carry, data, rows: arrays, or their shapes and types.
        in_one_program: whether the loop is part of the program. On GPU and TPU that leaves nothing
            to the host; on a CPU convolutions in a loop are slower (jax#12868).

    Returns:
        A function of (carry, data, rows) to the last carry, which takes the first one's memory.
    """

    def scan(carry, data, rows):
        with ops.loop_body():
            return jax.lax.scan(lambda carry, row: (step(carry, data, row), None), carry, rows)[0]

    def loop(carry, data, rows):
        for row in rows:
            carry = one_step(carry, data, row)
        return carry

    if in_one_program:
        return jax.jit(scan, donate_argnums=0).lower(carry, data, rows).compile()
    one_step = jax.jit(step, donate_argnums=0).lower(carry, data, rows[0]).compile()
    return loop


class Runner:
    """The compiled programs of a rung on a data set: called with seeds, it trains and evaluates.

    Attributes:
        compile_seconds: float.
        steps: of a run; and whitening_steps, in which the bias of the whitening learns.
    """

    def __init__(self, rung, dataset, split='test', together=1, in_one_program=False):
        """Compiles.

        Args:
            rung: run.Rung.
            dataset: neptune_jax.data.dataset.Dataset.
            split: what is evaluated.
            together: how many seeds are trained at once.
            in_one_program: as for compile_fold.
        """
        self._rung, self._together = rung, together
        self._train, tested = dataset.splits['train'], dataset.splits[split]
        steps_per_epoch = len(self._train) // rung.batch_size
        self.steps = round(rung.epochs * steps_per_epoch)
        self.whitening_steps = min(WHITENING_EPOCHS * steps_per_epoch, self.steps)
        self._tested = len(tested)
        order = batches.EvalOrder(tested, rung.batch_size)
        self._test_rows = np.stack([order[i] for i in range(len(order))])
        self._whitened = self._train[:WHITENING_IMAGES].astype(np.int32)
        data = {'image': np.asarray(dataset.images), 'label': dataset.labels}
        self._data = jax.block_until_ready(jax.device_put(data))

        task = create(rung, dataset, steps_per_epoch, self.steps, self.whitening_steps)
        if together > 1:
            task = Task(
                jax.vmap(task.init, (0, None, None)),
                task.batch,
                jax.vmap(task.train_step, (0, None, 0)),
                jax.vmap(task.count_step, (0, None, None)),
            )
        began = time.perf_counter()
        seeds = self._shaped(np.zeros(together, np.int32))
        self._init = jax.jit(task.init).lower(seeds, self._data, self._whitened).compile()
        state = jax.eval_shape(task.init, seeds, self._data, self._whitened)
        self._fit = compile_fold(
            task.train_step, state, self._data, self.order([0] * together), in_one_program
        )
        self._count = compile_fold(
            task.count_step, (state, seeds), self._data, self._test_rows, in_one_program
        )
        self.compile_seconds = time.perf_counter() - began

    def __call__(self, seeds):
        """Returns the accuracies of `together` seeds, float[n], and the seconds they took.

        The clock starts with the data on the device and stops with the accuracies on the host.
        """
        if len(seeds) != self._together:
            raise ValueError(f'{len(seeds)} seeds for a program of {self._together}')
        began = time.perf_counter()
        state = self.train(seeds)
        correct = self._shaped(np.zeros(len(seeds), np.int32))
        _, correct = self._count((state, correct), self._data, self._test_rows)
        accuracies = np.asarray(correct).reshape(-1) / self._tested
        return accuracies, time.perf_counter() - began

    def train(self, seeds):
        """Returns the State after the last step; its first axis is that of several seeds."""
        return self._fit(self.init(seeds), self._data, self.order(seeds))

    def init(self, seeds):
        """Returns the State before the first step."""
        return self._init(self._shaped(np.array(seeds, np.int32)), self._data, self._whitened)

    def order(self, seeds):
        """Returns the rows of each step, int32[steps, B] or [steps, seeds, B]."""
        orders = [batches.TrainOrder(self._train, self._rung.batch_size, seed) for seed in seeds]
        rows = np.array([[order[step] for step in range(self.steps)] for order in orders])
        return rows[0] if self._together == 1 else rows.swapaxes(0, 1)

    def _shaped(self, values):
        return values[0] if self._together == 1 else values
