"""Flax as in its MNIST example: NumPy batches, a program for gradients and one for the update."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state
from flax.traverse_util import unflatten_dict

from experiments.benchmarks.contestants import CLASSES, LEARNING_RATE
from experiments.benchmarks.contestants.contestant import EVAL_BATCH, Contestant


class CNN(nn.Module):
    features: tuple
    kernel_size: int
    padding: str
    hidden: tuple

    @nn.compact
    def __call__(self, x, train):
        for width in self.features:
            kernel_size = (self.kernel_size, self.kernel_size)
            x = nn.relu(nn.Conv(width, kernel_size, padding=self.padding)(x))
            x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(CLASSES)(x)


class ResNet(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x, train):
        def conv(x, width, stride=1):
            x = nn.Conv(width, (3, 3), stride, padding=1, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(conv(x, 16))
        for width in (16, 32, 64):
            for _ in range((self.depth - 2) // 6):
                missing = width - x.shape[-1]
                stride = 2 if missing else 1
                y = conv(nn.relu(conv(x, width, stride)), width)
                x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, missing)))
                x = nn.relu(x + y)
        return nn.Dense(CLASSES)(x.mean(axis=(1, 2)))


class TrainState(train_state.TrainState):
    batch_stats: Any


@jax.jit
def apply_model(state, images, labels):
    def loss_fn(params):
        variables = {'params': params, 'batch_stats': state.batch_stats}
        logits, updated = state.apply_fn(variables, images, True, mutable=['batch_stats'])
        one_hot = jax.nn.one_hot(labels, CLASSES)
        loss = optax.softmax_cross_entropy(logits, one_hot).mean()
        return loss, (logits, updated.get('batch_stats', {}))

    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (logits, batch_stats)), grads = grad_fn(state.params)
    return grads, batch_stats, loss, (logits.argmax(-1) == labels).mean()


@jax.jit
def update_model(state, grads, batch_stats):
    return state.apply_gradients(grads=grads, batch_stats=batch_stats)


@jax.jit
def predict(state, images):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    return state.apply_fn(variables, images, False)


class PlainFlax(Contestant):
    def __init__(self, *args):
        super().__init__(*args)
        model = (ResNet if 'depth' in self.network else CNN)(**self.network)
        variables = jax.jit(model.init, static_argnums=2)(jax.random.key(0), self.images[:1], False)
        self.state = TrainState.create(
            apply_fn=model.apply,
            params=unflatten_dict(self.params, sep='/'),
            batch_stats=variables.get('batch_stats', {}),
            tx=optax.adam(LEARNING_RATE),
        )
        first, labels = predict(self.state, self.images[:EVAL_BATCH]), self.labels[:EVAL_BATCH]
        self.loss = float(optax.softmax_cross_entropy_with_integer_labels(first, labels).mean())

    def step(self, rows):
        grads, batch_stats, _, _ = apply_model(
            self.state, self.batch_images(rows), self.labels[rows]
        )
        self.state = update_model(self.state, grads, batch_stats)

    def wait(self):
        jax.block_until_ready(self.state)

    def predict(self, images):
        return predict(self.state, images).argmax(-1)
