"""Fields of `parallel`, `eval` and `checkpoint`, and those of `train` that change no number."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import signal

from neptune_jax import defaults
from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.devices import compiling
from neptune_jax.learning import losses, metrics
from neptune_jax.runs.weights import read_weights
from neptune_jax.training import compiled
from tests.fields import regression

EARLIER_RUNS = Path(__file__).parents[1] / 'inference/earlier_runs'

shapes = []  # of the logits that the loss below was traced with


def recorded_loss(logits, labels, label_smoothing=0.0):
    shapes.append(logits.shape)
    return losses.cross_entropy(logits, labels, label_smoothing)


@pytest.mark.usefixtures('standard_promotion')
@pytest.mark.parametrize(
    ('fields', 'driver', 'train', 'evaluate'),
    [
        ({}, 'jit', 20, 40),
        ({'parallel.num_devices': 4}, 'pmap', 5, 10),
        ({'parallel.num_devices': 4, 'parallel.driver': 'shard_map'}, 'shard_map', 5, 10),
        ({'parallel.num_devices': 2, 'parallel.driver': 'jit'}, 'jit', 20, 40),
        ({'train.accumulate': 5}, 'jit', 4, 40),
    ],
    ids=lambda value: ','.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_a_step_sees_the_batch_or_the_share_of_its_device(
    create, monkeypatch, fields, driver, train, evaluate
):
    mapped, pmap = [], jax.pmap

    def recorded_pmap(*args, **options):
        mapped.append(len(options['devices']))
        return pmap(*args, **options)

    monkeypatch.setattr(jax, 'pmap', recorded_pmap)
    fields = {'loss.name': f'{__name__}:recorded_loss', 'eval.batch_size': 40} | fields
    experiment = create(fields)
    assert experiment.parallel.driver == driver
    feed = feeds.create(experiment.dataset, experiment.parallel)
    for compile_step, size in (
        (compiled.compile_train_step, train),
        (compiled.compile_evaluate, evaluate),
    ):
        shapes.clear()
        compile_step(experiment, feed)
        assert set(shapes) == {(size, 10)}
    assert mapped == ([4, 4] if driver == 'pmap' else [])


@pytest.mark.usefixtures('standard_promotion')
@pytest.mark.parametrize('synchronised', [True, False])
def test_batch_statistics_are_those_of_all_devices_or_of_each(create, synchronised):
    fields = {'parallel.num_devices': 2, 'parallel.sync_batch_norm': synchronised}
    experiment = create(fields, {'features': (2,), 'norm': 'batch'})
    feed = feeds.create(experiment.dataset, experiment.parallel)
    step = compiled.compile_train_step(experiment, feed)
    state = experiments.init_state(experiment)
    kernel = np.asarray(state.params['Conv_0']['kernel'], np.float64)
    examples = experiment.order[0]
    state, _ = step(state, feed.data, experiment.parallel.shard(examples))
    images = regression.standardized(examples).reshape(-1, 5, 4)
    convolved = np.array(
        [
            [signal.correlate2d(image, kernel[:, :, 0, i], 'same') for image in images]
            for i in range(2)
        ]
    )
    if synchronised:
        variance = convolved.var(axis=(1, 2, 3))
    else:
        variance = convolved.reshape(2, 2, -1).var(axis=-1).mean(axis=-1)
    found = state.batch_stats['BatchNorm_0']['var']
    np.testing.assert_allclose(found, 0.9 + 0.1 * variance, rtol=1e-5)


@pytest.mark.usefixtures('standard_promotion')
@pytest.mark.parametrize('loss', ['cross_entropy', 'bce'])
def test_an_evaluation_is_that_of_numpy(create, loss):
    # Neither smoothing nor class weights count in an evaluation; 8 does not divide 20.
    fields = {'loss.name': loss, 'loss.label_smoothing': 0.3, 'loss.class_weights': 'balanced'}
    experiment = create(fields | {'eval.batch_size': 8, 'augment.flip': 'random'})
    evaluate = compiled.compile_evaluate(
        experiment, feeds.create(experiment.dataset, experiment.parallel)
    )
    state = experiments.init_state(experiment)
    examples = experiment.dataset.splits['test']
    np.testing.assert_array_equal(examples, np.arange(80, 100))
    totals, outputs = evaluate(state, examples)
    kernel, bias = (np.float64(state.params['Dense_0'][name]) for name in ('kernel', 'bias'))
    logits = regression.standardized(examples) @ kernel + bias
    labels = regression.LABELS[examples]
    values, _ = regression.losses(logits, labels, bce=loss == 'bce')
    np.testing.assert_allclose(outputs['loss'], values, rtol=1e-4)
    np.testing.assert_array_equal(outputs['prediction'], logits.argmax(axis=1))
    summary = metrics.summarize(totals)
    assert summary['loss'] == pytest.approx(values.mean(), rel=1e-4)
    assert summary['accuracy'] == (logits.argmax(axis=1) == labels).mean()
    assert summary['count'] == 20


def test_a_run_starts_from_parameters_statistics_and_averages_of_another(data_dir):
    config = defaults.get_config()
    config.data.update(name='fashion_mnist_mini', dir=str(data_dir))
    config.update_from_flattened_dict({'train.steps': 2, 'parallel.num_devices': 1})
    config.model = ConfigDict({'name': 'resnet', 'depth': 8, 'width': 2})
    config.optim.ema_decay = 0.9
    config.checkpoint.restore_from = str(EARLIER_RUNS / 'resnet')
    experiment = experiments.create(config)
    state = experiments.init_state(experiment, experiments.read_initial_weights(experiment))
    expected = read_weights(EARLIER_RUNS / 'resnet')  # whose predictions are tested
    assert np.abs(expected.batch_stats['BatchNorm_3']['mean']).max() > 0.01
    for found, saved in (
        (state.params, expected.params),
        (state.batch_stats, expected.batch_stats),
        (state.ema, expected.params),
        (state.variables['batch_stats'], expected.batch_stats),  # averaged ones
    ):
        jax.tree.map(np.testing.assert_array_equal, found, saved)
    assert int(state.step) == 0


@pytest.mark.parametrize('deterministic', [True, False])
def test_a_deterministic_run_asks_the_compiler_for_it(create, monkeypatch, deterministic):
    asked, compile_lowered = [], compiling.compile_lowered

    def recorded(lowered, options):
        asked.append(options)
        return compile_lowered(lowered, {})  # the CPU's compiler does not know the option

    monkeypatch.setattr(compiling, 'compile_lowered', recorded)
    experiment = create({'train.deterministic': deterministic})
    with jax.numpy_dtype_promotion('standard'):
        compiled.compile_train_step(
            experiment, feeds.create(experiment.dataset, experiment.parallel)
        )
    assert asked == [{'xla_gpu_deterministic_ops': True} if deterministic else {}]
