"""Numbers that a step gets as arguments: the same results, and one program for all their values."""

import jax
import numpy as np
import pytest

from neptune_jax import experiment as experiments
from neptune_jax.data import feed as feeds
from neptune_jax.devices import compiling
from neptune_jax.learning import numbers
from neptune_jax.training import compiled

pytestmark = pytest.mark.usefixtures('standard_promotion')

SGD = {
    'optim.name': 'sgd',
    'optim.nesterov': True,
    'optim.momentum': 0.8,
    'optim.weight_decay': 0.01,
    'optim.clip_norm': 0.5,
    'optim.schedule': 'step',
    'loss.label_smoothing': 0.1,
    'model.dropout': 0.3,
}
OTHER = {
    'seed': 5,
    'optim.learning_rate': 0.3,
    'optim.momentum': 0.5,
    'optim.weight_decay': 0.2,
    'optim.clip_norm': 3.0,
    'loss.label_smoothing': 0.4,
}


@pytest.fixture
def create(config):
    config.parallel.update(driver='jit', num_devices=1)

    def create(fields):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(fields)
        return experiments.create(changed)

    return create


def program(experiment, monkeypatch):
    """Returns the text of the training step, which is not compiled."""
    texts = []
    with monkeypatch.context() as patched:
        patched.setattr(compiling, 'compile_lowered', lambda low, _: texts.append(low.as_text()))
        feed = feeds.create(experiment.dataset, experiment.parallel)
        compiled.compile_train_step(experiment, feed)
    return texts[0]


@pytest.mark.parametrize(
    'fields', [{}, {'optim.warmup': '2 steps', **SGD}, {'optim.name': 'adamw'}]
)
def test_steps_are_those_of_the_same_numbers_as_constants(create, fields):
    experiment = create({'augment.flip': 'random', 'optim.learning_rate': 0.05, **fields})
    feed = feeds.create(experiment.dataset, experiment.parallel)
    step = compiled.compile_train_step(experiment, feed)
    constant = compiling.jit(
        lambda state, data, item: experiment.train_step(state, feed.unpack(data, item))
    )
    states = [experiments.init_state(experiment) for _ in range(2)]
    for number in range(4):
        item = experiment.parallel.shard(experiment.order[number])
        states[0], values = step(states[0], feed.data, item)
        states[1], expected = constant(states[1], feed.data, item)
        assert values['learning_rate'] == pytest.approx(float(expected['learning_rate']))
        assert values['loss'] == pytest.approx(float(expected['loss']), rel=1e-5)
    for found, wanted in zip(
        *map(jax.tree.leaves, [state.params for state in states]), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fields', [{}, SGD])
def test_one_program_serves_all_values(create, fields, monkeypatch):
    base = program(create(fields), monkeypatch)
    for name, value in OTHER.items():
        if name in fields or name in ('seed', 'optim.learning_rate'):
            assert program(create(fields | {name: value}), monkeypatch) == base, name
    assert program(create(fields | {'optim.ema_decay': 0.5}), monkeypatch) != base


def test_a_number_that_is_0_leaves_its_part_out(create, monkeypatch):
    with_decay = program(create({'optim.weight_decay': 0.1}), monkeypatch)
    assert program(create({}), monkeypatch).count('\n') < with_decay.count('\n')


def test_numbers_of_own_optimizers_and_losses_are_left_to_them(create):
    experiment = create({'optim.weight_decay': 0.1, 'optim.momentum': 0.0})
    config = experiment.config
    assert set(numbers.of(config)) == {'seed', 'optim.learning_rate', 'optim.weight_decay'}
    config.optim.name, config.loss.name = 'package.module:own', 'package.module:own'
    config.loss.label_smoothing = 0.1
    assert set(numbers.of(config)) == {'seed'}
