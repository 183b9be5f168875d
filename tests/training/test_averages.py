"""Averaged parameters: the batch statistics that belong to them, and where they start."""

import sys
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.inference.predictor import Predictor
from neptune_jax.runs import checkpoints, reader
from neptune_jax.runs.weights import read_weights
from neptune_jax.training import compiled, loop

pytestmark = pytest.mark.usefixtures('standard_promotion')


@pytest.fixture
def config(config):
    config.parallel.update(driver='jit', num_devices=1)
    config.model = ConfigDict({'name': 'resnet', 'depth': 8, 'width': 2})
    config.optim.ema_decay = 0.9
    return config


@pytest.mark.parametrize('num_classes', [10, 4])
def test_both_averages_start_from_the_weights_that_a_run_starts_from(config, tmp_path, num_classes):
    experiment = experiments.create(config)
    rng = np.random.default_rng(0)
    other = jax.tree.map(
        lambda leaf: rng.random(leaf.shape).astype(leaf.dtype), experiment.abstract_state
    )
    with checkpoints.open_checkpoints(tmp_path / 'checkpoints', keep=1) as opened:
        opened.save(5, other, experiment.dataset.preprocessing)
    assert reader.best_step(tmp_path) == 5

    config.checkpoint.restore_from = str(tmp_path)
    if num_classes != 10:
        config.data.update(name='synthetic', classes=4, examples=600, channels=1)
        config.data.image_size = (28, 28)
    experiment = experiments.create(config)
    initial = experiments.init_state(experiment, experiments.read_initial_weights(experiment))
    assert jax.tree.structure(initial) == jax.tree.structure(experiment.abstract_state)
    for found in (initial.batch_stats, initial.ema_batch_stats):
        jax.tree.map(np.testing.assert_array_equal, found, other.ema_batch_stats)
    jax.tree.map(np.testing.assert_array_equal, initial.ema, initial.params)
    kernel, expected = (tree['Conv_0']['kernel'] for tree in (initial.params, other.ema))
    np.testing.assert_array_equal(kernel, expected)
    # The training step donates them all, which it can do once only.
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(initial)]
    assert len(set(places)) == len(places)


class Small(nn.Module):
    """Two layers with batch normalisation: the second sees what the first has normalised."""

    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)[:, ::16]
        for _ in range(2):
            x = nn.relu(nn.BatchNorm(not train, momentum=0.95)(nn.Dense(8)(x)))
        return nn.Dense(self.num_classes)(x)


@pytest.fixture
def small(config, monkeypatch):
    module = types.ModuleType('small_network')
    module.Small = Small
    monkeypatch.setitem(sys.modules, 'small_network', module)
    config.model = ConfigDict({'name': 'small_network:Small'})
    config.train.update(steps=34, batch_size=64)
    config.eval.every = config.checkpoint.every = '17 steps'
    return config


def own_statistics(experiment, params):
    """The means, over the first batches of the run, of the statistics of each batch; in NumPy."""
    data = experiment.dataset
    pixels = data.images[data.splits['train']] / 255
    found = []
    for step in range(32):
        images = (data.images[experiment.order[step]] / 255 - pixels.mean()) / pixels.std()
        x, stats = images.reshape(len(images), -1)[:, ::16], {}
        for i in range(2):
            x = x @ params[f'Dense_{i}']['kernel'] + params[f'Dense_{i}']['bias']
            mean, var = x.mean(axis=0), x.var(axis=0)
            stats[f'BatchNorm_{i}'] = {'mean': mean, 'var': var}
            scale, bias = (params[f'BatchNorm_{i}'][name] for name in ('scale', 'bias'))
            x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)
        found.append(stats)
    return jax.tree.map(lambda *each: np.mean(each, axis=0), *found)


@pytest.mark.parametrize('mode', ['device', 'host'])
def test_averaged_parameters_are_evaluated_with_statistics_of_their_own(
    small, tmp_path, read_state, mode
):
    small.data.mode = mode
    summary = loop.train_and_evaluate(small, tmp_path)
    for step in (17, 34):
        state, _, experiment = read_state(small, tmp_path, step)
        expected = own_statistics(experiment, state.ema)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            state.ema_batch_stats,
            expected,
        )
    # Those of the training are far from them.
    raw, own = (stats['BatchNorm_1']['var'] for stats in (state.batch_stats, expected))
    assert np.abs(raw / own - 1).max() > 0.1

    data = experiment.dataset
    test = data.splits['test']
    weights = read_weights(tmp_path)
    assert weights.step == summary['best']['step']
    predictions = Predictor.from_run(tmp_path)(data.read_images(test)).argmax(axis=1)
    assert (predictions == data.labels[test]).mean() == summary['test']['accuracy']


def test_statistics_of_averages_change_no_step_and_need_computing_once(small, monkeypatch):
    experiment = experiments.create(small)
    feed = feeds.create(experiment.dataset, experiment.parallel)
    with_statistics = compiled.compile_batch_statistics(experiment, feed)
    state = experiments.init_state(experiment)
    found = with_statistics(state)
    assert with_statistics(found) is found
    again = with_statistics(found.replace(step=found.step))
    jax.tree.map(np.testing.assert_array_equal, again, found)  # from whatever was there before
    jax.tree.map(
        np.testing.assert_array_equal,
        found.replace(ema_batch_stats={}),
        state.replace(ema_batch_stats={}),
    )

    # One of several processes whose clock says that it is time to save.
    jax.tree.map(np.testing.assert_array_equal, with_statistics(state, alone=True), found)
    with monkeypatch.context() as patch:
        patch.setattr(jax, 'process_count', lambda: 2)
        saved = with_statistics(state.replace(ema_batch_stats={}), alone=True)
    assert saved.ema_batch_stats is state.batch_stats

    small.optim.ema_decay = 0.0
    experiment = experiments.create(small)
    assert compiled.compile_batch_statistics(experiment, feed)(state) is state
