"""A run as three programs: make a state, train it, count the images that it classifies correctly.

The step is the package's, `Experiment.train_step`. What is the speedrun's own is around it: the
whitening kernel from the data, several views of a test image, programs for a whole run and for
several seeds at once, and the clock.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.speedrun import net
from neptune_jax.data import batches, feed
from neptune_jax.devices import compiling
from neptune_jax.experiment import Experiment
from neptune_jax.inference.predictor import standardise
from neptune_jax.learning import state as states
from neptune_jax.learning import steps
from neptune_jax.models import ops

WHITENING_IMAGES = 5000  # of the training split, whose patches are whitened
SHIFTS = ((0, 0), (-1, -1), (1, 1))  # of a test image, in pixels down and to the right

PyTree = Any
View = tuple[int, int, bool]


class Task(NamedTuple):
    """The pure functions of a run. `data` and `rows` are those of a Feed: int32[B] rows."""

    init: Callable  # (seed, data, rows to whiten) -> (TrainState, seed)
    train_step: Callable  # ((TrainState, seed), data, rows) -> (TrainState, seed)
    count_step: Callable  # ((TrainState, correct), data, rows) -> (TrainState, correct)


def create(experiment: Experiment, unpack: Callable) -> Task:
    """Returns the Task of an experiment whose network is net.Network.

    Args:
        experiment: Experiment.
        unpack: Feed.unpack, from (data, rows) to a batch.
    """
    model, dataset = experiment.model, experiment.dataset
    shown = views(experiment.config.augment)

    def init(seed, data, rows):
        key = jax.random.key(seed)
        state = states.initial(model, experiment.optimizer, dataset.image_shape, key)
        images = standardise(dataset.standardizer, unpack(data, rows)['image'])
        kernel = net.whitening_kernel(images, model.patch)
        whitening = {**state.params['whitening'], 'kernel': kernel}
        return state.replace(params={**state.params, 'whitening': whitening}), seed

    def train_step(carry, data, rows):
        state, seed = carry
        state, _ = experiment.train_step(state, unpack(data, rows), jax.random.key(seed))
        return state, seed

    def count_step(carry, data, rows):
        state, correct = carry
        batch = unpack(data, rows)
        images = standardise(dataset.standardizer, batch['image'])
        predict = partial(steps.predict_step, state.variables, model=model)
        logits = view_logits(predict, images, shown)
        is_correct = (logits.argmax(axis=1) == batch['label']) & batch['mask']
        return state, correct + is_correct.sum(dtype=jnp.int32)

    return Task(init, train_step, count_step)


def views(augment: ConfigDict) -> list[View]:
    """Returns the views of a test image: those that the `augment` group shows in training.

    Each is how far to move the image down and to the right, in pixels, and whether to mirror it.
    """
    shifts = SHIFTS if augment.translate else SHIFTS[:1]
    mirrored = (False,) if augment.flip == 'none' else (False, True)
    return [(*shift, mirror) for shift in shifts for mirror in mirrored]


def view_logits(predict: Callable, images: jax.Array, views: Sequence[View]) -> jax.Array:
    """Returns the mean logits, float32[B, K], over views of images.

    Args:
        predict: from images to logits.
        images: float32[B, H, W, C], standardised.
        views: as for `views`. Pixels that are moved in from outside repeat the edge.
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


def compile_fold(
    step: Callable, carry: PyTree, data: PyTree, rows: np.ndarray, in_one_program: bool
) -> Callable:
    """Compiles `step`, a function of (carry, data, rows[i]) to carry, for all rows in turn.

    Args:
        step: the function.
        carry: arrays, or their shapes and types; so are `data` and `rows`.
        data: as above.
        rows: as above.
        in_one_program: whether the loop is part of the program. On GPU and TPU that leaves nothing
            to the host. On a CPU convolutions in a loop are slower (jax#12868).

    Returns:
        A function of (carry, data, rows) to the last carry. It donates the first one.
    """

    def scan(carry, data, rows):
        with ops.loop_body():
            return jax.lax.scan(lambda carry, row: (step(carry, data, row), None), carry, rows)[0]

    def loop(carry, data, rows):
        for row in rows:
            carry = one_step(carry, data, row)
        return carry

    if in_one_program:
        return _compile(jax.jit(scan, donate_argnums=0), carry, data, rows)
    one_step = _compile(jax.jit(step, donate_argnums=0), carry, data, rows[0])
    return loop


def _compile(function, *args):
    return compiling.compile_lowered(function.lower(*args), {})


class Runner:
    """The compiled programs of an experiment: called with seeds, it trains and evaluates.

    Attributes:
        compile_seconds: the time that compilation took.
        steps: the number of training steps of a run.
    """

    def __init__(
        self,
        experiment: Experiment,
        split: str = 'test',
        together: int = 1,
        in_one_program: bool = False,
    ):
        """Compiles.

        Args:
            experiment: Experiment on one device with the driver jit, its data in device memory.
            split: the split that is evaluated.
            together: how many seeds are trained at once.
            in_one_program: as for compile_fold.
        """
        self._experiment, self._together = experiment, together
        self.steps = experiment.total_steps
        splits = experiment.dataset.splits
        self._tested = len(splits[split])
        order = batches.EvalOrder(splits[split], experiment.config.eval.batch_size)
        self._test_rows = np.stack([order[i] for i in range(len(order))])
        self._whitened = splits['train'][:WHITENING_IMAGES].astype(np.int32)
        source = feed.create(experiment.dataset, experiment.parallel)
        self._data = jax.block_until_ready(source.data)

        task = create(experiment, source.unpack)
        if together > 1:
            task = Task(
                jax.vmap(task.init, (0, None, None)),
                jax.vmap(task.train_step, (0, None, 0)),
                jax.vmap(task.count_step, (0, None, None)),
            )
        began = time.perf_counter()
        seeds = self._shaped(np.zeros(together, np.int32))
        self._init = _compile(jax.jit(task.init), seeds, self._data, self._whitened)
        carry = jax.eval_shape(task.init, seeds, self._data, self._whitened)
        self._fit = compile_fold(
            task.train_step, carry, self._data, self.order([0] * together), in_one_program
        )
        self._count = compile_fold(
            task.count_step, (carry[0], seeds), self._data, self._test_rows, in_one_program
        )
        self.compile_seconds = time.perf_counter() - began

    def __call__(self, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
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

    def train(self, seeds: Sequence[int]) -> states.TrainState:
        """Returns the TrainState after the last step; its first axis is that of several seeds."""
        return self._fit(self._start(seeds), self._data, self.order(seeds))[0]

    def init(self, seeds: Sequence[int]) -> states.TrainState:
        """Returns the TrainState before the first step."""
        return self._start(seeds)[0]

    def order(self, seeds: Sequence[int]) -> np.ndarray:
        """Returns the rows of each step, int32[steps, B] or [steps, seeds, B]."""
        order = self._experiment.order
        orders = [batches.TrainOrder(order.examples, order.batch_size, seed) for seed in seeds]
        rows = np.array([[order[step] for step in range(self.steps)] for order in orders])
        return rows[0] if self._together == 1 else rows.swapaxes(0, 1)

    def _start(self, seeds):
        return self._init(self._shaped(np.array(seeds, np.int32)), self._data, self._whitened)

    def _shaped(self, values):
        return values[0] if self._together == 1 else values
