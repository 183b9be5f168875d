"""The same training in each library, as its documentation recommends; one process each.

`training.py` starts `python contestants.py NAME NETWORK BATCH_SIZE FOLDER` and drives it by lines
on standard input: `train N` takes the next N steps, `evaluate` classifies the test images. Each is
answered by a line of JSON. FOLDER holds data.npz and params.npz, the initial parameters. Libraries
are imported where they are used: an interpreter needs those of its own contestant alone.
"""

import json
import os
import sys
import time

import numpy as np

# Channels, kernel, padding, widths of the dense layers: as configs/ states them.
NETWORKS = {
    'cnn3': ((32, 64, 128), 3, 'SAME', ()),
    'simple_net': ((6, 16), 5, 'VALID', (256,)),
}
CLASSES = 10
LEARNING_RATE = 1e-3  # Adam's default in all of them
EVAL_BATCH = 500


class Contestant:
    """Data and parameters; subclasses have `loss`, `step(batch)`, `wait` and `predict(images)`."""

    def __init__(self, network, batch_size, folder):
        self.network = NETWORKS[network]
        self.batch_size = batch_size
        with np.load(f'{folder}/data.npz') as data:
            self.images, self.labels = data['images'], data['labels'].astype(np.int32)
            self.test_images, self.test_labels = data['test_images'], data['test_labels']
        with np.load(f'{folder}/params.npz') as params:
            self.params = dict(params)  # 'Conv_0/kernel', ...
        self.rng = np.random.default_rng(0)
        self.order = []

    def next_batch(self):
        if len(self.order) < self.batch_size:
            self.order = self.rng.permutation(len(self.images))
        batch, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return batch

    def train(self, steps):
        for _ in range(steps):
            self.step(self.next_batch())
        self.wait()

    def evaluate(self):
        """Returns the accuracy on the test images."""
        parts = [
            np.asarray(self.predict(self.test_images[i : i + EVAL_BATCH]))
            for i in range(0, len(self.test_images), EVAL_BATCH)
        ]
        return float(np.mean(np.concatenate(parts) == self.test_labels))


class Ours(Contestant):
    """neptune_jax: its model, its step, its start-up."""

    dtype = 'float32'

    def __init__(self, *args):
        super().__init__(*args)
        from neptune_jax import startup

        startup.prepare()
        import jax
        import jax.numpy as jnp
        import optax
        from flax.traverse_util import unflatten_dict
        from ml_collections import ConfigDict

        from neptune_jax import models, state, steps

        features, kernel_size, padding, hidden = self.network
        model = models.create_model(
            ConfigDict(
                {
                    'name': 'cnn',
                    'features': features,
                    'kernel_size': kernel_size,
                    'padding': padding,
                    'hidden': hidden,
                    'activation': 'relu',
                    'dtype': self.dtype,
                }
            ),
            CLASSES,
        )
        optimizer = optax.adam(LEARNING_RATE)
        params = jax.tree.map(jnp.asarray, unflatten_dict(self.params, sep='/'))
        self.state = state.TrainState(jnp.int32(0), params, {}, optimizer.init(params), {})
        self.data = jax.device_put({'image': self.images, 'label': self.labels})

        def step(state, data, rows):
            batch = jax.tree.map(lambda column: column[rows], data)
            return steps.train_step(
                state, batch, model=model, optimizer=optimizer, loss=steps.cross_entropy
            )

        self.compiled = jax.jit(step, donate_argnums=0)
        self.logits = jax.jit(
            lambda state, images: steps.predict_step(state, {'image': images}, model=model)
        )
        self.wait = lambda: jax.block_until_ready(self.state)
        first = self.logits(self.state, self.images[:EVAL_BATCH])
        self.loss = float(steps.cross_entropy(first, self.labels[:EVAL_BATCH]).mean())

    def step(self, batch):
        self.state, _ = self.compiled(self.state, self.data, batch.astype(np.int32))

    def predict(self, images):
        return self.logits(self.state, images).argmax(-1)


class OursBfloat16(Ours):
    dtype = 'bfloat16'


class PlainFlax(Contestant):
    """As Flax's MNIST example: NumPy batches, one program for gradients and one for the update."""

    def __init__(self, *args):
        super().__init__(*args)
        import flax.linen as nn
        import jax
        import optax
        from flax.training import train_state
        from flax.traverse_util import unflatten_dict

        features, kernel_size, padding, hidden = self.network

        class CNN(nn.Module):
            @nn.compact
            def __call__(self, x):
                for width in features:
                    x = nn.relu(nn.Conv(width, (kernel_size, kernel_size), padding=padding)(x))
                    x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
                x = x.reshape((x.shape[0], -1))
                for width in hidden:
                    x = nn.relu(nn.Dense(width)(x))
                return nn.Dense(CLASSES)(x)

        @jax.jit
        def apply_model(state, images, labels):
            def loss_fn(params):
                logits = state.apply_fn({'params': params}, images)
                one_hot = jax.nn.one_hot(labels, CLASSES)
                return optax.softmax_cross_entropy(logits, one_hot).mean(), logits

            (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
            return grads, loss, (logits.argmax(-1) == labels).mean()

        self.apply_model = apply_model
        self.update_model = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
        self.logits = jax.jit(
            lambda state, images: state.apply_fn({'params': state.params}, images)
        )
        self.state = train_state.TrainState.create(
            apply_fn=CNN().apply,
            params=unflatten_dict(self.params, sep='/'),
            tx=optax.adam(LEARNING_RATE),
        )
        self.wait = lambda: jax.block_until_ready(self.state)
        first = self.logits(self.state, self.images[:EVAL_BATCH])
        labels = self.labels[:EVAL_BATCH]
        self.loss = float(optax.softmax_cross_entropy_with_integer_labels(first, labels).mean())

    def step(self, batch):
        grads, _, _ = self.apply_model(self.state, self.images[batch], self.labels[batch])
        self.state = self.update_model(self.state, grads)

    def predict(self, images):
        return self.logits(self.state, images).argmax(-1)


class Torch(Contestant):
    """PyTorch in eager mode; images and parameters are tensors in memory."""

    compiled = bfloat16 = False

    def __init__(self, *args):
        super().__init__(*args)
        import torch
        from torch import nn

        features, kernel_size, padding, hidden = self.network
        layers, channels, side = [], self.images.shape[-1], self.images.shape[1]
        for width in features:
            padded = kernel_size // 2 if padding == 'SAME' else 0
            layers += [nn.Conv2d(channels, width, kernel_size, padding=padded), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            channels, side = width, (side + 2 * padded - kernel_size + 1) // 2
        layers.append(nn.Flatten())
        inputs = channels * side * side
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        model = nn.Sequential(*layers, nn.Linear(inputs, CLASSES))
        self._copy_params(torch, model, channels, side)
        images, self.test_images = (
            torch.from_numpy(array.transpose(0, 3, 1, 2).copy())
            for array in (self.images, self.test_images)
        )
        self.torch, self.images, self.labels = torch, images, torch.from_numpy(self.labels).long()
        if self.bfloat16:
            model = model.to(memory_format=torch.channels_last)
            self.images = self.images.to(memory_format=torch.channels_last)
            self.test_images = self.test_images.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        self.cross_entropy = nn.CrossEntropyLoss()
        self.model = torch.compile(model) if self.compiled else model
        with torch.no_grad():
            logits = self._logits(self.images[:EVAL_BATCH]).float()
            loss = self.cross_entropy(logits, self.labels[:EVAL_BATCH])
        self.loss = float(loss)

    def _copy_params(self, torch, model, channels, side):
        of_kind = {'Conv': [], 'Dense': []}
        for layer in model:
            if hasattr(layer, 'weight'):
                of_kind['Conv' if layer.weight.ndim == 4 else 'Dense'].append(layer)
        for kind, layers in of_kind.items():
            for i, layer in enumerate(layers):
                kernel = self.params[f'{kind}_{i}/kernel']
                if (kind, i) == ('Dense', 0):  # from rows, columns, channels to channels first
                    kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
                    kernel = kernel.reshape(side * side * channels, -1)
                kernel = kernel.transpose(3, 2, 0, 1) if kind == 'Conv' else kernel.T
                with torch.no_grad():
                    layer.weight.copy_(torch.from_numpy(kernel.copy()))
                    layer.bias.copy_(torch.from_numpy(self.params[f'{kind}_{i}/bias']))

    def _logits(self, images):
        with self.torch.autocast('cpu', self.torch.bfloat16, enabled=self.bfloat16):
            return self.model(images)

    def step(self, batch):
        rows = self.torch.from_numpy(batch)
        loss = self.cross_entropy(self._logits(self.images[rows]).float(), self.labels[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def wait(self):
        pass  # PyTorch computes as it goes

    def predict(self, images):
        with self.torch.no_grad():
            return self._logits(images).argmax(-1).numpy()


class TorchCompile(Torch):
    compiled = True


class TorchBfloat16(Torch):
    bfloat16 = True


class TorchCompileBfloat16(TorchBfloat16):
    compiled = True


class Keras(Contestant):
    """Keras 3 on JAX, by compile, fit and predict."""

    def __init__(self, *args):
        super().__init__(*args)
        os.environ['KERAS_BACKEND'] = 'jax'
        import keras
        from keras import layers

        features, kernel_size, padding, hidden = self.network
        stack = [keras.Input(self.images.shape[1:])]
        for width in features:
            conv = layers.Conv2D(width, kernel_size, padding=padding.lower(), activation='relu')
            stack += [conv, layers.MaxPooling2D()]
        stack.append(layers.Flatten())
        stack += [layers.Dense(width, activation='relu') for width in hidden]
        self.model = keras.Sequential([*stack, layers.Dense(CLASSES)])
        names = [f'Conv_{i}' for i in range(len(features))]
        names += [f'Dense_{i}' for i in range(len(hidden) + 1)]
        self.model.set_weights(
            [self.params[f'{name}/{part}'] for name in names for part in ('kernel', 'bias')]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=loss)
        first = self.images[:EVAL_BATCH], self.labels[:EVAL_BATCH]
        self.loss = float(self.model.evaluate(*first, batch_size=EVAL_BATCH, verbose=0))

    def train(self, steps):
        rows = np.concatenate([self.next_batch() for _ in range(steps)])
        self.model.fit(
            self.images[rows],
            self.labels[rows],
            batch_size=self.batch_size,
            shuffle=False,  # they are drawn at random already
            verbose=0,
        )

    def evaluate(self):
        logits = self.model.predict(self.test_images, batch_size=EVAL_BATCH, verbose=0)
        return float(np.mean(logits.argmax(-1) == self.test_labels))


CONTESTANTS = {
    'ours': Ours,
    'ours bfloat16': OursBfloat16,
    'flax': PlainFlax,
    'torch': Torch,
    'torch compile': TorchCompile,
    'torch bfloat16': TorchBfloat16,
    'torch compile bfloat16': TorchCompileBfloat16,
    'keras': Keras,
}


def main():
    name, network, batch_size, folder = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer

    def answer(**fields):
        answers.write(json.dumps(fields) + '\n')
        answers.flush()

    contestant = CONTESTANTS[name](network, int(batch_size), folder)
    contestant.train(1)
    answer(initial_loss=contestant.loss)
    for line in sys.stdin:
        command, *args = line.split()
        began = time.perf_counter()
        result = getattr(contestant, command)(*map(int, args))
        answer(seconds=time.perf_counter() - began, result=result)


if __name__ == '__main__':
    main()
