"""Fields of `loss`, `optim`, `train` and `seed` by the numbers of the first steps."""

import jax
import numpy as np
import pytest
from scipy import signal

from neptune_jax import experiment as experiments
from tests.fields import regression

BALANCED = 60 / (10 * regression.COUNTS)  # the inverse of a class's frequency; 1 if all are equal


def cosine(steps):
    return (1 + np.cos(np.pi * steps)) / 2


# Fields, learning rates of the five steps, and what NumPy is told of the rest.
TRAININGS = {
    'adam': (
        {'optim.learning_rate': 0.01},
        0.01 * cosine(np.arange(5) / 5),
        {'update': regression.adam()},
    ),
    'adamw': (
        {
            'optim.name': 'adamw',
            'optim.learning_rate': 0.1,
            'optim.weight_decay': 0.5,
            'optim.warmup': '1 step',
            'loss.label_smoothing': 0.3,
        },
        0.1 * np.array([0.5, *cosine(np.arange(4) / 4)]),
        {'update': regression.adam(0.5, decoupled=True), 'smoothing': 0.3},
    ),
    'nesterov': (
        {
            'optim.name': 'sgd',
            'optim.learning_rate': 0.5,
            'optim.momentum': 0.8,
            'optim.nesterov': True,
            'optim.weight_decay': 0.1,
            'optim.schedule': 'step',
            'optim.decay_at': ('2 steps', '80%'),
            'optim.decay_factor': 0.05,
            'loss.class_weights': 'balanced',
        },
        0.5 * np.array([1, 1, 0.05, 0.05, 0.0025]),
        {'update': regression.sgd(0.8, True, 0.1), 'class_weights': BALANCED},
    ),
    'adam, clipped': (
        {
            'optim.learning_rate': 0.1,
            'optim.weight_decay': 0.1,
            'optim.clip_norm': 1.0,
            'optim.schedule': 'linear',
            'optim.warmup': '40%',
            'loss.name': 'bce',
        },
        0.1 * np.array([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        {'update': regression.adam(0.1), 'bce': True, 'clip': 1.0},
    ),
    'sgd, clipped': (
        {
            'optim.name': 'sgd',
            'optim.learning_rate': 1.0,
            'optim.weight_decay': 0.2,
            'optim.clip_norm': 0.5,
            'optim.schedule': 'constant',
            'loss.name': 'bce',
            'loss.label_smoothing': 0.2,
            'data.sampler': 'balanced',
        },
        np.ones(5),
        {'update': regression.sgd(0.9, decay=0.2), 'bce': True, 'smoothing': 0.2, 'clip': 0.5},
    ),
}


@pytest.mark.parametrize('name', TRAININGS)
def test_the_first_steps_are_those_of_numpy(create, train_step, name):
    fields, rates, options = TRAININGS[name]
    experiment = create(fields)
    state = experiments.init_state(experiment)
    layer = state.params['Dense_0']
    params = [np.asarray(layer[name], np.float64) for name in ('kernel', 'bias')]
    rows, batches = [], []
    for _ in range(5):
        taken = train_step(experiment, state)
        state = taken.state
        batches.append(taken.examples)
        rows.append([taken.values[name] for name in ('loss', 'grad_norm', 'learning_rate')])
    expected, params = regression.train(params, batches, rates, **options)
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    for name, param in zip(('kernel', 'bias'), params, strict=True):
        np.testing.assert_allclose(state.params['Dense_0'][name], param, rtol=1e-3, atol=1e-5)


def test_a_class_weighs_the_inverse_of_its_frequency(create, tmp_path):
    arrays = {'x_train': regression.IMAGES[:40], 'y_train': np.tile([0, 0, 0, 1], 10)}
    for split, part in (('val', slice(40, 50)), ('test', slice(50, 60))):
        arrays |= {f'x_{split}': regression.IMAGES[part], f'y_{split}': np.arange(10) % 2}
    np.savez(tmp_path / 'two.npz', **arrays)
    data = {'name': 'arrays', 'path': str(tmp_path / 'two.npz'), 'dir': str(tmp_path / 'data')}
    experiment = create({'loss.class_weights': 'balanced'}, data=data)
    np.testing.assert_allclose(experiment.class_weights, [2 / 3, 2])
    assert create(data=data).class_weights is None


def test_the_decay_ends_with_the_run_not_a_warm_up_later(create, train_step):
    fields = {'optim.schedule': 'linear', 'optim.learning_rate': 0.5, 'optim.warmup': '20%'}
    experiment = create(fields | {'train.steps': 100})
    found = [float(experiment.schedule(step)) for step in (20, 60, 100)]
    np.testing.assert_allclose(found, [0.5, 0.25, 0], atol=1e-7)
    state = experiments.init_state(experiment).replace(step=np.int32(60))
    assert float(train_step(experiment, state).values['learning_rate']) == pytest.approx(0.25)


def test_the_average_of_the_parameters_decays_as_asked(create, train_step):
    experiment = create({'optim.ema_decay': 0.75, 'optim.learning_rate': 0.1})
    state = experiments.init_state(experiment).replace(step=np.int32(90))  # no ramp any more
    state = state.replace(ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    after = train_step(experiment, state).state
    for name, param in after.params['Dense_0'].items():
        expected = 0.75 * state.ema['Dense_0'][name] + 0.25 * param
        np.testing.assert_allclose(after.ema['Dense_0'][name], expected, rtol=1e-5)
    assert experiments.init_state(create()).ema == {}


def test_parts_of_a_batch_are_normalised_one_after_another(create, train_step):
    experiment = create(
        {'train.accumulate': 4}, {'features': (2,), 'norm': 'batch', 'padding': 'SAME'}
    )
    state = experiments.init_state(experiment)
    taken = train_step(experiment, state)
    kernel = np.asarray(state.params['Conv_0']['kernel'], np.float64)
    images = regression.standardized(taken.examples).reshape(-1, 5, 4)
    mean = 0
    for part in range(4):  # part i holds every fourth example, from the i-th on
        convolved = [
            [signal.correlate2d(image, kernel[:, :, 0, i], 'same') for image in images[part::4]]
            for i in range(2)
        ]
        mean = 0.9 * mean + 0.1 * np.mean(convolved, axis=(1, 2, 3))
    found = taken.state.batch_stats['BatchNorm_0']['mean']
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-6)


def test_initial_parameters_depend_on_the_seed_alone(create):
    model = {'features': (4,), 'hidden': (3,)}

    def kernels(**fields):
        fields = {name.replace('__', '.'): value for name, value in fields.items()}
        params = experiments.init_state(create(fields, model)).params
        return [np.asarray(layer['kernel']) for layer in params.values()]

    first, again, other = kernels(), kernels(data__split_seed=1), kernels(seed=1)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != different).all()


def test_the_order_of_the_data_depends_on_the_seed_alone(create):
    orders = [
        np.stack([create({'seed': seed, 'data.split_seed': other}).order[i] for i in range(3)])
        for seed, other in ((0, 0), (0, 1), (1, 0))
    ]
    np.testing.assert_array_equal(orders[0], orders[1])  # the splits are official ones
    assert (orders[0] != orders[2]).mean() > 0.9
    for order in orders:
        np.testing.assert_array_equal(np.sort(order, axis=None), np.arange(60))


def test_a_balanced_sampler_draws_each_class_equally_often(create):
    order = create({'data.sampler': 'balanced', 'train.steps': 600}).order
    drawn = np.concatenate([order[step] for step in range(600)])
    assert drawn.max() < 60  # of the training split
    # 12,000 draws, a tenth of them each: five standard deviations are 165.
    np.testing.assert_allclose(np.bincount(regression.LABELS[drawn]), 1200, atol=165)


@pytest.mark.parametrize(
    ('fields', 'steps'),
    [
        ({'train.epochs': 4.0, 'train.steps': None}, {'total_steps': 12}),
        ({'train.epochs': 1.6, 'train.steps': None}, {'total_steps': 5}),
        ({'train.epochs': 1.0, 'train.steps': 50}, {'total_steps': 50}),
        ({'train.batch_size': 8}, {'steps_per_epoch': 7}),
        ({'log.every': '2 epochs', 'train.steps': 50}, {'log_every': 6}),
        ({'eval.every': '10%', 'train.steps': 50}, {'eval_every': 5}),
        ({'eval.every': '1%'}, {'eval_every': 1}),
        ({'checkpoint.every': '80 examples'}, {'checkpoint_every': 4, 'checkpoint_seconds': None}),
        ({'checkpoint.every': '9 seconds'}, {'checkpoint_every': None, 'checkpoint_seconds': 9}),
    ],
    ids=lambda value: ','.join(f'{name}={each}' for name, each in value.items()),
)
def test_lengths_are_those_of_the_data_and_the_batch(create, fields, steps):
    experiment = create(fields)
    assert {name: getattr(experiment, name) for name in steps} == steps
