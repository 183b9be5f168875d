"""Losses that are not finite: where they end a run, and which checkpoint is then the best."""

import shutil
import signal
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax.errors import Preempted, UserError
from neptune_jax.runs import reader
from neptune_jax.runs.weights import read_weights
from neptune_jax.training import compiled, loop

pytestmark = pytest.mark.usefixtures('standard_promotion')


@pytest.fixture(autouse=True)
def one_device(config):
    config.parallel.update(driver='jit', num_devices=1)
    config.model.features = (4,)


@pytest.fixture
def diverging(config, monkeypatch):
    """Makes the last step's learning rate infinite: its loss is finite, what it leaves is not."""
    module = types.ModuleType('diverging')

    def schedule(config, decay_steps, in_steps):
        return lambda step: jnp.where(step < config.options.last - 1, 1e-3, jnp.inf)

    module.schedule = schedule
    monkeypatch.setitem(sys.modules, 'diverging', module)
    config.optim.schedule = 'diverging:schedule'
    config.optim.options = ConfigDict({'last': config.train.steps})


def failure(config, workdir):
    """Trains, which must fail; returns the message, which the summary has too."""
    with pytest.raises(UserError) as caught:
        loop.train_and_evaluate(config, workdir)
    summary = reader.read_summary(workdir)
    assert (summary['status'], summary['error']) == ('failed', str(caught.value))
    assert 'test' not in summary
    return str(caught.value)


@pytest.mark.parametrize(
    ('fields', 'split'),
    [
        ({}, 'validation'),
        ({'log.every': '4 steps', 'train.steps_per_call': 3}, 'validation'),
        ({'data.val_fraction': 0.0, 'log.every': '4 steps'}, 'test'),
        ({'data.val_fraction': 0.0, 'data.test_fraction': 0.0, 'data.name': 'arrays'}, 'train'),
    ],
    ids=['validated', 'several steps a call', 'not validated', 'neither validated nor tested'],
)
def test_a_last_step_that_diverges_fails_and_leaves_the_checkpoint_before(
    config, tmp_path, diverging, fields, split
):
    config.checkpoint.keep = 1
    config.update_from_flattened_dict(fields)
    if config.data.name == 'arrays':
        images = np.random.default_rng(0).integers(0, 256, (300, 28, 28)).astype(np.uint8)
        config.data.path = str(tmp_path.with_suffix('.npz'))
        np.savez(config.data.path, images=images, labels=np.arange(300) % 10)
    message = failure(config, tmp_path)
    assert message == (
        'the loss is nan at step 6; try a lower optim.learning_rate, some optim.warmup, or '
        f'optim.clip_norm (this is the loss of the {split} split)'
    )
    trained = [row['train/loss'] for row in reader.read_rows(tmp_path) if 'train/loss' in row]
    assert np.isfinite(trained).all()
    # The same command resumes from the good checkpoint, and says the same.
    assert failure(config, tmp_path) == message
    assert reader.checkpoint_steps(tmp_path) == [3]
    weights = read_weights(tmp_path)
    assert weights.step == 3
    assert np.isfinite(weights.params['Dense_0']['kernel']).all()


def test_a_training_loss_that_is_not_finite_in_the_last_steps_names_its_step(
    config, tmp_path, diverging
):
    # No row holds the last steps: there is no validation, and no log interval ends with them.
    config.optim.options.last = 5
    config.update_from_flattened_dict({'data.val_fraction': 0.0, 'log.every': '4 steps'})
    assert failure(config, tmp_path).startswith('the loss is nan at step 6; try a lower')
    assert 'of the' not in failure(config, tmp_path)
    assert reader.best_step(tmp_path) == 3


@pytest.mark.parametrize('validated', [True, False])
def test_a_state_that_was_saved_before_it_was_evaluated_does_not_stay(
    config, tmp_path, diverging, monkeypatch, validated
):
    if not validated:
        config.data.val_fraction = 0.0
    compile_evaluate = compiled.compile_evaluate

    def compile_interrupted(experiment, feed):
        evaluate = compile_evaluate(experiment, feed)

        def interrupted(state, examples):
            if jax.device_get(state.step) == 6:
                signal.raise_signal(signal.SIGTERM)
            return evaluate(state, examples)

        return interrupted

    monkeypatch.setattr(compiled, 'compile_evaluate', compile_interrupted)
    with pytest.raises(Preempted):
        loop.train_and_evaluate(config, tmp_path / 'run')
    monkeypatch.setattr(compiled, 'compile_evaluate', compile_evaluate)
    assert reader.checkpoint_steps(tmp_path / 'run') == [3, 6]
    # A version before this one could leave such a checkpoint with a row of its validation.
    shutil.copytree(tmp_path / 'run', tmp_path / 'earlier')
    message = failure(config, tmp_path / 'run')
    if validated:
        with (tmp_path / 'earlier/metrics.jsonl').open('a') as file:
            file.write('{"step": 6, "time": 0, "val/loss": "NaN", "val/accuracy": 0.9}\n')
        assert reader.best_step(tmp_path / 'earlier') == 3
        assert failure(config, tmp_path / 'earlier') == message
    assert reader.checkpoint_steps(tmp_path / 'run') == [3]
    assert failure(config, tmp_path / 'run') == message


@pytest.mark.parametrize('loss', [np.nan, np.inf])
def test_a_validation_that_is_not_finite_for_a_while_is_not_the_best(
    config, tmp_path, monkeypatch, loss
):
    config.checkpoint.keep = 1
    compile_evaluate = compiled.compile_evaluate

    def compile_overflowing(experiment, feed):
        evaluate = compile_evaluate(experiment, feed)

        def overflowing(state, examples):
            totals, outputs = evaluate(state, examples)
            if jax.device_get(state.step) == 3:
                correct = np.eye(10, dtype=np.int32) * 25
                totals |= {'loss': np.float32(loss), 'confusion': correct}
            return totals, outputs

        return overflowing

    monkeypatch.setattr(compiled, 'compile_evaluate', compile_overflowing)
    summary = loop.train_and_evaluate(config, tmp_path)
    validated = {row['step']: row for row in reader.read_rows(tmp_path) if 'val/loss' in row}
    assert (validated[3]['val/accuracy'], validated[6]['val/accuracy'] < 1) == (1.0, True)
    np.testing.assert_equal(validated[3]['val/loss'], loss)
    assert summary['status'] == 'finished'
    assert summary['best'] == {'step': 6, 'accuracy': validated[6]['val/accuracy']}
    assert np.isfinite(summary['test']['loss'])
    assert reader.checkpoint_steps(tmp_path) == [6]
