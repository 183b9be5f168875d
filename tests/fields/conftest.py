"""Experiments on small images with a linear model, whose every number NumPy can tell."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax import defaults
from neptune_jax import experiment as experiments
from tests.fields import regression


@pytest.fixture(scope='session')
def small_images(tmp_path_factory):
    """The fields of the data group that read the images of regression.py."""
    folder = tmp_path_factory.mktemp('small')
    arrays = {}
    for split, part in regression.SPLITS.items():
        arrays |= {f'x_{split}': regression.IMAGES[part], f'y_{split}': regression.LABELS[part]}
    np.savez(folder / 'images.npz', **arrays)
    return {'name': 'arrays', 'path': str(folder / 'images.npz'), 'dir': str(folder / 'data')}


@pytest.fixture
def create(small_images):
    """Returns the Experiment of the default config with some fields, and a linear model."""

    def create(fields=(), model=(), data=small_images):
        config = defaults.get_config()
        config.data.update(data)
        config.train.batch_size = regression.BATCH
        config.train.steps = 5
        config.eval.batch_size = 10
        config.parallel.num_devices = 1
        config.update_from_flattened_dict(dict(fields))
        config.model = ConfigDict({'name': 'cnn', 'features': (), **dict(model)})
        return experiments.create(config)

    return create


@pytest.fixture
def seen():
    """Returns the images that the model of an experiment sees at a step, float32[n, H, W, C].

    The gradient of a linear model for one image is the image times that of the bias. So each image
    is trained on alone, by plain gradient descent from zeros, and found again in the parameters.
    """

    def seen(experiment, examples, step=0):
        examples = np.asarray(examples, np.int32)
        data = experiment.dataset
        images = data.images[examples]
        batch = {'image': images, 'label': data.labels[examples], 'index': examples}
        batch = jax.tree.map(lambda leaf: leaf[:, None], batch)
        state = experiments.init_state(experiment)
        params = jax.tree.map(jnp.zeros_like, state.params)
        state = state.replace(step=np.int32(step), params=params)
        train = jax.jit(jax.vmap(experiment.train_step, (None, 0)))
        after = train(state, batch)[0].params['Dense_0']
        kernel, bias = np.asarray(after['kernel']), np.asarray(after['bias'])
        rows, largest = np.arange(len(bias)), np.abs(bias).argmax(axis=1)
        found = kernel[rows, :, largest] / bias[rows, largest][:, None]
        return found.reshape(images.shape)

    return seen


PLAIN = {'optim.name': 'sgd', 'optim.momentum': 0.0, 'optim.learning_rate': 1.0}
PLAIN |= {'optim.schedule': 'constant'}


@pytest.fixture
def create_plain(create):
    """`create` with plain gradient descent, for `seen`."""

    def create_plain(fields=(), **options):
        return create(PLAIN | dict(fields), **options)

    return create_plain


@pytest.fixture
def train_step():
    """Takes the step that a state is at; returns its examples, the next state and the metrics."""

    def train_step(experiment, state):
        examples = experiment.order[int(state.step)]
        data = experiment.dataset
        batch = {
            'image': data.images[examples],
            'label': data.labels[examples],
            'index': examples,
        }
        with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to an int32 power
            state, values = jax.jit(experiment.train_step)(state, batch)
        return SimpleNamespace(examples=examples, state=state, values=values)

    return train_step
