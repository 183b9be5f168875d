"""The speedrun on tiny networks: its parts against NumPy, its ways to run against each other."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.speedrun import config as rungs
from experiments.speedrun import net, optimizer, run, training
from neptune_jax import experiment
from neptune_jax.data import feed
from neptune_jax.errors import UserError
from neptune_jax.learning import lengths, state
from neptune_jax.runs import reader
from neptune_jax.training import loop

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


@pytest.fixture(scope='module', autouse=True)
def standard_promotion():
    """optax's Muon raises a float to an int32 power."""
    with jax.numpy_dtype_promotion('standard'):
        yield


@pytest.fixture(scope='module')
def tiny(data_dir, tmp_path_factory):
    """Returns a function from a rung's name to its Experiment at a tiny size, in float32.

    The images are few: the tests train in a loop too, and there convolutions are slow on a CPU.
    They are noise, without the equal pixels that make the gradient of max pooling ambiguous.
    """
    path = tmp_path_factory.mktemp('noise') / 'noise.npz'
    images = RNG.integers(0, 256, (130, 28, 28), np.uint8)
    labels = np.arange(130) % 10
    np.savez(
        path,
        x_train=images[:100],
        y_train=labels[:100],
        x_test=images[100:],
        y_test=labels[100:],
    )

    def create(name, **augment):
        config = rungs.get_config(name)
        config.data.update(name='arrays', path=str(path), dir=str(data_dir), mode='device')
        config.model.update(widths=(4, 6), dtype='float32')
        config.augment.update(augment)
        config.train.update(batch_size=20, epochs=0.6)
        config.eval.batch_size = 20
        config.parallel.update(driver='jit', num_devices=1)
        return experiment.create(config)

    return create


@pytest.fixture(scope='module')
def runner(tiny):
    return training.Runner(tiny('94'))


def test_whitened_patches_have_the_identity_as_covariance():
    smooth = RNG.normal(size=(200, 9, 9, 2)).cumsum(axis=1).cumsum(axis=2).astype(np.float32)
    kernel = np.asarray(net.whitening_kernel(smooth, 2, epsilon=0.0), np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(smooth, (2, 2), axis=(1, 2))
    # From [N, H, W, C, i, j] to rows of (i, j, C).
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 8).astype(np.float64)
    features = rows @ kernel
    np.testing.assert_allclose(np.cov(features[:, :8].T), np.eye(8), atol=0.02)
    np.testing.assert_array_equal(kernel[:, 8:], -kernel[:, :8])


@pytest.mark.parametrize(('size', 'stride'), [(2, 1), (2, 2), (4, 2)])
def test_the_whitening_is_a_convolution_whose_kernel_does_not_learn(size, stride):
    images = RNG.normal(size=(3, 12, 12, 2)).astype(np.float32)
    kernel = RNG.normal(size=(2 * size**2, 4 * size**2)).astype(np.float32)
    bias = RNG.normal(size=4 * size**2).astype(np.float32)
    layer = net.Whitening(size, stride)

    def apply(params):
        return layer.apply({'params': params}, images)

    params = {'kernel': kernel, 'bias': bias}
    expected = jax.lax.conv_general_dilated(
        images,
        kernel.reshape(size, size, 2, -1),
        (stride, stride),
        'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    np.testing.assert_allclose(apply(params), np.asarray(expected) + bias, rtol=1e-4, atol=1e-4)
    grads = jax.grad(lambda params: apply(params).sum())(params)
    assert not grads['kernel'].any()
    assert grads['bias'].all()


@pytest.mark.parametrize('features', [3, 4, 7])
def test_the_first_features_of_a_new_convolution_are_its_input(features):
    kernel = net.partial_dirac(jax.random.key(0), (3, 3, 4, features))
    images = RNG.normal(size=(2, 6, 6, 4)).astype(np.float32)
    found = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    same = min(features, 4)
    np.testing.assert_allclose(found[..., :same], images[..., :same], rtol=1e-6)
    others = np.asarray(kernel[..., 4:])
    assert (np.abs(others) <= 1 / 6).all()  # fan in: 3 * 3 * 4
    assert features <= 4 or np.abs(others).max() > 0.9 / 6


def test_a_third_convolution_adds_to_what_the_first_made():
    block = net.Block(4, 3)
    images = RNG.normal(size=(5, 6, 6, 4)).astype(np.float32)
    variables = block.init(jax.random.key(0), images, False)
    params = dict(variables['params'])
    params['Conv_2'] = {'kernel': np.zeros((3, 3, 4, 4), np.float32)}
    found = block.apply({**variables, 'params': params}, images, False)
    first = net.Block(4, 1)
    kept = {'Conv_0': params['Conv_0'], 'BatchNorm_0': params['BatchNorm_0']}
    stats = {'BatchNorm_0': variables['batch_stats']['BatchNorm_0']}
    branch = first.apply({'params': kept, 'batch_stats': stats}, images, False)
    np.testing.assert_allclose(found, jax.nn.gelu(branch), rtol=1e-4, atol=1e-5)


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    config = rungs.get_config().optim
    config.learning_rate = 3.0
    schedule = optimizer.triangle(config, 50, None)
    found = [float(schedule(step)) for step in range(51)]
    rise = np.linspace(0.6, 3, 11)
    fall = np.linspace(3, 0, 41)
    np.testing.assert_allclose(found, [*rise, *fall[1:]], rtol=1e-5, atol=1e-6)


def test_muon_takes_a_nearly_orthogonal_step_and_holds_the_norm():
    kernel = RNG.normal(size=(3, 3, 4, 6)).astype(np.float32)
    grad = RNG.normal(size=kernel.shape).astype(np.float32)
    chain = optimizer._muon(0.25, lambda step: 2.0)
    updates, _ = chain.update({'a': grad}, chain.init({'a': kernel}), {'a': kernel})
    held = kernel * 6**0.5 / np.linalg.norm(kernel)
    moved = (held - (kernel + np.asarray(updates['a']))).reshape(36, 6) / 0.5
    # The exact polar factor of the gradient has singular values of 1; three iterations come near.
    left, _, right = np.linalg.svd(grad.reshape(36, 6), full_matrices=False)
    values = np.diag(left.T @ moved @ right.T)
    assert ((values > 0.4) & (values < 1.6)).all()
    np.testing.assert_allclose(moved, left * values @ right, atol=1e-3)


def test_each_parameter_learns_in_its_own_way():
    params = {
        'whitening': {'kernel': jnp.ones((4, 8)), 'bias': jnp.ones(8)},
        'block0': {
            'Conv_0': {'kernel': jnp.ones((3, 3, 2, 2))},
            'BatchNorm_0': {'bias': jnp.ones(2)},
        },
        'head': {'kernel': jnp.ones((2, 3))},
    }
    config = rungs.get_config().optim
    config.options.update(kernel_rate=0.1, head_rate=0.2, bias_rate=0.3)
    config.options.update(weight_decay=2e-5, whitening='2 steps')
    in_steps = functools.partial(lengths.in_steps, total_steps=10, steps_per_epoch=5, batch_size=10)
    chain = optimizer.create(config, optimizer.triangle(config, 10, in_steps), in_steps)
    state, moves = chain.init(params), []
    for _ in range(3):
        updates, state = chain.update(jax.tree.map(jnp.ones_like, params), state, params)
        moves.append(updates)

    def nesterov(rate, share):  # its first step, from 1
        return -1.85 * share * (rate + 2e-5)

    first = moves[0]
    np.testing.assert_allclose(first['head']['kernel'], nesterov(0.2, 0.2), rtol=1e-5)
    np.testing.assert_allclose(
        first['block0']['BatchNorm_0']['bias'], nesterov(0.3, 0.2), rtol=1e-5
    )
    np.testing.assert_allclose(first['whitening']['bias'], nesterov(0.3, 1), rtol=1e-5)
    assert [move['whitening']['bias'].any() for move in moves] == [True, True, False]
    assert not any(move['whitening']['kernel'].any() for move in moves)
    assert all(move['block0']['Conv_0']['kernel'].any() for move in moves)


@pytest.mark.parametrize('name', ['94', '96'])
def test_a_run_is_the_same_in_one_program_and_step_by_step(tiny, runner, name):
    runs = []
    by_step = runner if name == '94' else training.Runner(tiny(name))
    for runner in (by_step, training.Runner(tiny(name), in_one_program=True)):
        state = runner.train([3])
        assert int(state.step) == runner.steps == 3
        (accuracy,), seconds = runner([3])
        assert seconds > 0 and runner.compile_seconds > 0
        runs.append((state.params, state.batch_stats, accuracy))
    (*one, accuracy), (*other, other_accuracy) = runs
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), one, other)
    np.testing.assert_allclose(accuracy, other_accuracy, atol=0.01)


def test_seeds_at_once_are_those_one_by_one(tiny, runner):
    together = training.Runner(tiny('94'), together=2)
    states = together.train([5, 8])
    accuracies, _ = together([5, 8])
    for number, seed in enumerate((5, 8)):
        state = runner.train([seed])
        jax.tree.map(
            lambda both, one, number=number: np.testing.assert_allclose(
                both[number], one, rtol=1e-2, atol=1e-3
            ),
            (states.params, states.batch_stats),
            (state.params, state.batch_stats),
        )
        np.testing.assert_allclose(accuracies[number], runner([seed])[0][0], atol=0.01)
    kernels = np.asarray(states.params['block0']['Conv_0']['kernel'])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    with pytest.raises(ValueError, match='3 seeds for a program of 2'):
        together([1, 2, 3])


class Recorder(nn.Module):
    """Keeps the images of the last training step among the batch statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        seen = self.variable('batch_stats', 'images', jnp.zeros_like, images)
        if train:
            seen.value = images
        return nn.Dense(10)(images.reshape(len(images), -1))


def test_every_image_is_mirrored_in_every_second_epoch(tiny):
    created = dataclasses.replace(
        tiny('94', translate=0), model=Recorder(), optimizer=optax.sgd(0.1), steps_per_epoch=2
    )
    data, source = created.dataset, feed.create(created.dataset, created.parallel)
    task = training.create(created, source.unpack)
    rows = data.splits['train'][:40].astype(np.int32)
    start = state.initial(created.model, created.optimizer, (28, 28, 1), jax.random.key(0))
    train_step = jax.jit(task.train_step)

    def images_at(step, seed=0):
        carry = start.replace(step=jnp.int32(step)), jnp.int32(seed)
        after, _ = train_step(carry, source.data, rows)
        return np.asarray(after.batch_stats['images'])

    epochs = [images_at(step) for step in (0, 1, 2, 4)]
    np.testing.assert_array_equal(epochs[0], epochs[1])  # steps of one epoch
    np.testing.assert_array_equal(epochs[0], epochs[3])
    np.testing.assert_array_equal(epochs[0], epochs[2][:, :, ::-1])
    plain = data.standardizer(np.float32(data.images[rows]) / 255)
    mirrored = np.array([np.abs(a - b).max() > 1e-4 for a, b in zip(epochs[0], plain, strict=True)])
    assert 5 < mirrored.sum() < 35
    others = images_at(0, seed=1)
    assert 5 < np.any(others != epochs[0], axis=(1, 2, 3)).sum() < 35  # other images are mirrored
    ordinary, _ = jax.jit(created.train_step)(start, source.unpack(source.data, rows))
    assert created.config.seed == 0
    np.testing.assert_array_equal(ordinary.batch_stats['images'], epochs[0])


def test_a_test_image_is_shown_as_training_images_are():
    shifts = ((0, 0), (-1, -1), (1, 1))
    six = [(*shift, mirror) for shift in shifts for mirror in (False, True)]
    for rung in rungs.RUNGS:
        expected = [(0, 0, False)] if rung == 'cpu90' else six
        assert training.views(rungs.get_config(rung).augment) == expected


def test_views_are_averaged():
    images = RNG.normal(size=(4, 5, 6, 1)).astype(np.float32)
    weights = RNG.normal(size=(30, 3)).astype(np.float32)

    def predict(images):  # nonlinear, so that the mean image would not do
        return jnp.tanh(images.reshape(len(images), -1) @ weights)

    views = [(0, 0, False), (0, 0, True), (-1, -1, False), (1, 2, True)]
    found = training.view_logits(predict, images, views)
    expected = []
    for down, right, mirror in views:
        rows = np.clip(np.arange(5) - down, 0, 4)
        columns = np.clip(np.arange(6) - right, 0, 5)
        view = images[:, rows][:, :, columns]
        expected.append(np.tanh((view[:, :, ::-1] if mirror else view).reshape(4, -1) @ weights))
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)


def test_each_test_image_counts_once(tiny, runner):
    created = tiny('94')
    data, config = created.dataset, created.config
    assert len(data.splits['test']) % config.eval.batch_size  # the last batch is not full
    (accuracy,), _ = runner([0])
    state = runner.train([0])
    model = net.Network(10, (4, 6))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    test = data.splits['test']
    images = data.standardizer(np.float32(data.images[test]) / 255)
    views = training.views(config.augment)
    logits = training.view_logits(lambda x: model.apply(variables, x), images, views)
    expected = np.mean(np.argmax(logits, axis=1) == data.labels[test])
    np.testing.assert_allclose(accuracy, expected, atol=1.5 / len(test))  # a tie may turn


def test_the_command_writes_a_line_for_each_seed(monkeypatch, tmp_path, tiny, capsys):
    monkeypatch.setattr(run, 'create', lambda rung, data_name, data_dir, split: tiny(rung))
    out = tmp_path / 'results.jsonl'
    monkeypatch.setattr('sys.argv', ['run', '--rung=cpu90', '--seeds=2', f'--out={out}'])
    run.main()
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record['seed'] for record in records] == [0, 1]
    for record in records:
        assert (record['rung'], record['split']) == ('cpu90', 'test')
        assert 0 <= record['accuracy'] <= 1
        assert record['seconds'] > 0 and record['compile_seconds'] > 0
        assert record['hardware'] and record['versions']['jax'] == jax.__version__
    assert '2 seeds: accuracy' in capsys.readouterr().out


def test_pytorch_trains_the_same_network(tiny):
    pytest.importorskip('torch')
    from experiments.speedrun import torch_cpu90

    created = tiny('cpu90')
    runner = training.Runner(created)
    state = runner.train([1])
    trainer = torch_cpu90.Trainer(created, runner)
    network = trainer.train(1, runner.init([1]).params)
    for number, (kernel, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        ours = state.params[f'block{number}']
        kernel = kernel.detach().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_allclose(kernel, ours['Conv_0']['kernel'], rtol=1e-2, atol=1e-3)
        bias = norm.bias.detach().numpy()
        np.testing.assert_allclose(bias, ours['BatchNorm_0']['bias'], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(
        network.head.detach().numpy().T, state.params['head']['kernel'], rtol=1e-2, atol=1e-3
    )
    np.testing.assert_allclose(
        network.whitening_bias.detach().numpy(),
        state.params['whitening']['bias'],
        rtol=1e-2,
        atol=1e-3,
    )
    assert trainer(1)[0] == pytest.approx(runner([1])[0][0], abs=0.01)


def test_bfloat16_changes_little_and_leaves_parameters_in_float32():
    images = RNG.normal(size=(16, 28, 28, 1)).astype(np.float32)
    assert rungs.get_config('94').model.dtype == 'bfloat16'
    found = []
    for dtype in ('float32', 'bfloat16'):
        model = net.Network(10, (8, 16), dtype=dtype)
        variables = model.init(jax.random.key(0), images)
        params = variables['params']
        params['whitening']['kernel'] = net.whitening_kernel(images, 2)

        def loss(params, model=model, variables=variables):
            logits, _ = model.apply(
                {**variables, 'params': params}, images, train=True, mutable='batch_stats'
            )
            assert logits.dtype == jnp.float32
            return logits[:, 0].sum(), logits

        grads, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
        assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {jnp.dtype('float32')}
        assert any(leaf.any() for leaf in jax.tree.leaves(grads))
        found.append(logits)
    assert 0 < np.abs(found[0] - found[1]).max() < 0.05 * np.abs(found[0]).max()


@pytest.mark.parametrize('split', ['test', 'val'])
def test_what_is_evaluated_does_not_train(data_dir, split):
    found = run.create('cpu90', 'fashion_mnist_mini', str(data_dir), split).dataset
    assert len(found.splits[split])
    assert not np.intersect1d(found.splits['train'], found.splits[split]).size
    used = sum(len(found.splits[name]) for name in {'train', 'test', split})
    assert used == len(found.labels)


def test_the_ordinary_command_trains_a_rung(data_dir, tmp_path):
    command = [sys.executable, '-m', 'neptune_jax.main', f'--config={rungs.__file__}:cpu90']
    command += ['--config.data.name=fashion_mnist_mini', f'--config.data.dir={data_dir}']
    command += ['--config.train.steps=2', '--config.parallel.num_devices=1']
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    summary = reader.read_summary(tmp_path / 'runs/config_cpu90')
    assert (summary['status'], summary['step']) == ('finished', 2)
    assert 0 <= summary['test']['accuracy'] <= 1


@pytest.mark.parametrize('rung', sorted(rungs.RUNGS.keys() - {'cpu90'}))
def test_each_rung_is_an_ordinary_config(rung, data_dir, tmp_path):
    config = rungs.get_config(rung)
    config.data.update(name='fashion_mnist_mini', dir=str(data_dir), subset=10)
    config.model.widths = (4,)
    config.train.update(steps=2, batch_size=20)
    config.eval.batch_size = 200
    config.parallel.num_devices = 2
    summary = loop.train_and_evaluate(config, tmp_path / 'run')
    assert (summary['status'], summary['step']) == ('finished', 2)
    assert 0 <= summary['test']['accuracy'] <= 1


def test_a_rung_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="rung='97' is unknown; choose one of: 94, 95, 96"):
        rungs.get_config('97')
