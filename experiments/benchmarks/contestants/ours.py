"""neptune_jax: its model, its augmentation, its training step."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict

from configs import cnn
from experiments.benchmarks.contestants import CLASSES, LEARNING_RATE, contestant
from neptune_jax import models
from neptune_jax.data import augment
from neptune_jax.learning import losses, state, steps


class Ours(contestant.Contestant):
    dtype = 'float32'

    def __init__(self, *args):
        super().__init__(*args)
        config = importlib.import_module(f'configs.{self.network_name}').get_config().model
        config.dtype = self.dtype
        self.model = models.create_model(config, CLASSES)
        self.optimizer = optax.adam(LEARNING_RATE)
        params = jax.tree.map(jnp.asarray, unflatten_dict(self.params, sep='/'))
        variables = jax.jit(self.model.init)(jax.random.key(0), self.images[:1])
        self.state = state.TrainState(
            jnp.int32(0),
            params,
            variables.get('batch_stats', {}),
            self.optimizer.init(params),
            {},
        )
        self.data = jax.device_put({'image': self.images, 'label': self.labels})
        config = cnn.get_config().augment
        config.update(crop_padding=contestant.PADDING, flip='random')
        self.change = augment.create_augment(config, self.images.shape[1:])
        self.programs = {on: self._program(on) for on in (False, True)}
        self.logits = jax.jit(
            lambda state, images: steps.predict_step(state.variables, images, model=self.model)
        )
        first = self.logits(self.state, self.images[: contestant.EVAL_BATCH])
        self.loss = float(losses.cross_entropy(first, self.labels[: contestant.EVAL_BATCH]).mean())

    def _program(self, augmented):
        def step(state, data, rows):
            batch = jax.tree.map(lambda column: column[rows], data)
            if augmented:
                batch = self.change(batch | {'index': rows}, jax.random.key(0), state.step, 0)
            return steps.train_step(
                state,
                batch,
                model=self.model,
                optimizer=self.optimizer,
                loss=losses.cross_entropy,
            )

        return jax.jit(step, donate_argnums=0)

    def step(self, rows):
        program = self.programs[self.augmented]
        self.state, _ = program(self.state, self.data, rows.astype(np.int32))

    def wait(self):
        jax.block_until_ready(self.state)

    def predict(self, images):
        return self.logits(self.state, images).argmax(-1)


class OursBfloat16(Ours):
    dtype = 'bfloat16'
