import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cnn
from neptune_jax.errors import UserError
from neptune_jax.learning import lengths, optimizers, schedules

TOTAL = 100


def in_steps(length, field):
    return lengths.in_steps(length, field, total_steps=TOTAL, steps_per_epoch=10, batch_size=4)


def rates(**fields):
    config = cnn.get_config().optim
    config.update(fields | {'learning_rate': 0.5})
    schedule = schedules.create_schedule(config, TOTAL, in_steps)
    return np.array([float(schedule(step)) for step in range(TOTAL + 1)])


def test_schedules_follow_their_formulas():
    step = np.arange(TOTAL + 1)
    np.testing.assert_allclose(rates(schedule='constant'), np.full(TOTAL + 1, 0.5))
    cosine = 0.25 * (1 + np.cos(np.pi * step / TOTAL))  # Loshchilov and Hutter, 2017, equation 5
    np.testing.assert_allclose(rates(schedule='cosine'), cosine, atol=1e-7)
    np.testing.assert_allclose(rates(schedule='linear'), 0.5 * (1 - step / TOTAL), atol=1e-7)
    staircase = 0.5 * 0.1 ** ((step >= 50).astype(int) + (step >= 80))
    found = rates(schedule='step', decay_at=('50 steps', '8 epochs'))
    np.testing.assert_allclose(found, staircase, rtol=1e-6)


@pytest.mark.parametrize('schedule', ['constant', 'step', 'cosine', 'linear'])
def test_warm_up_is_a_ramp_to_the_full_rate(schedule):
    found = rates(schedule=schedule, warmup='10%')
    np.testing.assert_allclose(found[:11], 0.5 * np.arange(1, 12) / 11, rtol=1e-5)
    assert found[9] < found[10] == found.max()


def test_boundaries_count_from_the_start_of_the_run():
    found = rates(schedule='step', warmup='20 steps', decay_at=('50%',), decay_factor=0.5)
    assert found[49] == pytest.approx(0.5)
    assert found[50] == pytest.approx(0.25)


def test_a_boundary_beyond_the_run_changes_nothing():
    expected = np.where(np.arange(TOTAL + 1) < 50, 0.5, 0.05)  # 2**40 steps are beyond int32
    found = rates(schedule='step', decay_at=('50%', f'{2**40} steps'))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'schedule': 'exp'}, "optim.schedule='exp' is unknown; choose one of: constant"),
        ({'warmup': '100 steps'}, 'optim.warmup=.* is 100 steps, the whole run only 100'),
        ({'schedule': 'step', 'decay_at': ('60%', '50%')}, 'optim.decay_at=.* must increase'),
        ({'schedule': 'step', 'warmup': '50%', 'decay_at': ('50%',)}, 'optim.decay_at'),
        (
            {'schedule': 'step', 'decay_factor': 1e20},
            r'optim.decay_factor=1e\+20 makes the learning',
        ),
        (
            {'schedule': 'step', 'decay_factor': 1e38},
            r'optim.decay_factor=1e\+38 makes the learning',
        ),
    ],
)
def test_schedules_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        rates(**fields)


PARAMS = {
    'Conv_0': {'kernel': jnp.full((1, 1, 1, 2), 2.0), 'bias': jnp.full(2, 3.0)},
    'BatchNorm_0': {'scale': jnp.full(2, 1.0), 'bias': jnp.full(2, 4.0)},
}
GRADS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), PARAMS)


def updates(steps=1, **fields):
    """The update of the last of some steps with the same gradient, parameters left alone."""
    config = cnn.get_config().optim
    config.update(fields)
    optimizer = optimizers.create_optimizer(config, lambda step: 0.1, in_steps)
    opt_state = optimizer.init(PARAMS)
    with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to an int32 power
        for _ in range(steps):
            found, opt_state = optimizer.update(GRADS, opt_state, PARAMS)
    return jax.tree.map(np.asarray, found)


def assert_updates(found, kernel, others):
    np.testing.assert_allclose(found['Conv_0']['kernel'], np.full((1, 1, 1, 2), kernel), rtol=1e-4)
    for leaf in (found['Conv_0']['bias'], *found['BatchNorm_0'].values()):
        np.testing.assert_allclose(leaf, np.full(2, others), rtol=1e-4)


def test_weight_decay_skips_biases_and_normalisation():
    # L2: the gradient of the kernel is 0.5 + 0.01 * 2.
    assert_updates(updates(name='sgd', weight_decay=0.01), -0.1 * 0.52, -0.1 * 0.5)
    # Decoupled: Adam's first step is the gradient's sign, to which 0.01 * 2 is added.
    assert_updates(updates(name='adamw', weight_decay=0.01), -0.1 * 1.02, -0.1)
    # L2 under Adam: the sign of the gradient again, whatever its size.
    assert_updates(updates(name='adam', weight_decay=0.01), -0.1, -0.1)


def test_momentum_and_nesterov():
    # v = g, then 0.9 g + g; Nesterov looks ahead: g + 0.9 v.
    assert_updates(updates(steps=2, name='sgd'), -0.1 * 0.95, -0.1 * 0.95)
    nesterov = -0.1 * (0.5 + 0.9 * 0.95)
    assert_updates(updates(steps=2, name='sgd', nesterov=True), nesterov, nesterov)
    assert_updates(updates(steps=2, name='sgd', momentum=0.0), -0.05, -0.05)


def test_clipping_scales_the_whole_gradient_to_the_norm():
    norm = 0.5 * np.sqrt(8)  # eight scalars of 0.5
    expected = -0.1 * 0.5 * 0.2 / norm
    assert_updates(updates(name='sgd', clip_norm=0.2), expected, expected)
    assert_updates(updates(name='sgd', clip_norm=100.0), -0.05, -0.05)


def test_optimizers_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match=r"optim.name='lion' is unknown; choose one of: sgd, adam"):
        updates(name='lion')


def test_the_mask_is_true_for_kernels_only():
    mask = optimizers.decay_mask(PARAMS)
    assert mask == {
        'Conv_0': {'kernel': True, 'bias': False},
        'BatchNorm_0': {'scale': False, 'bias': False},
    }
