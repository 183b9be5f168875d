"""Runs in one program: equal to single runs, resumed to the bit, failing alone, refused."""

import functools
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from neptune_jax import experiment as experiments
from neptune_jax.errors import UserError
from neptune_jax.runs import reader
from neptune_jax.runs.weights import read_weights
from neptune_jax.testing import xla
from neptune_jax.training import compiled, loop, one_run, together
from tests.stress import kills

pytestmark = pytest.mark.usefixtures('standard_promotion')


@pytest.fixture
def config(config):
    config.parallel.num_devices = 1
    config.model.norm = 'batch'
    config.model.dropout = 0.2
    config.augment.flip = 'random'
    config.optim.ema_decay = 0.9
    return config


def rows(workdir):
    return [
        {name: value for name, value in row.items() if name != 'time'}
        for row in reader.read_rows(workdir)
    ]


def arrays(workdir):
    return read_weights(str(workdir))


@pytest.mark.parametrize('vmapped', [False, True])
def test_runs_in_one_program_are_equal_to_single_runs(config, tmp_path, monkeypatch, vmapped):
    compile_steps = functools.partial(compiled.compile_steps_together, vmapped=vmapped)
    monkeypatch.setattr(compiled, 'compile_steps_together', compile_steps)
    seeds = {3: tmp_path / 'a', 5: tmp_path / 'b'}
    found = together.train_and_evaluate(config, list(seeds.items()))
    assert [summary['status'] for summary in found] == ['finished', 'finished']

    config.seed = 5
    single = loop.train_and_evaluate(config, tmp_path / 'single')
    assert found[1]['best']['step'] == single['best']['step']
    for split in ('val', 'test'):
        assert found[1][split] == pytest.approx(single[split], rel=1e-4)
        assert found[0][split] != pytest.approx(single[split], rel=1e-4)
    there, here = rows(tmp_path / 'single'), rows(seeds[5])
    assert [row.keys() for row in here] == [row.keys() for row in there]
    for row, other in zip(here, there, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    weights = [arrays(path) for path in (seeds[5], tmp_path / 'single')]
    assert weights[0].step == weights[1].step
    for name in ('params', 'batch_stats'):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, *(getattr(each, name) for each in weights))
    predictions = [np.load(path / 'artifacts/predictions.npz') for path in (seeds[5], seeds[3])]
    assert len(predictions[0]['index']) == len(predictions[1]['index']) == found[0]['test']['count']
    assert reader.read_run_config(str(seeds[3]))['seed'] == 3


def run_processes(out, data_dir, kill=False):
    """Trains two runs through the command line; with `kill`, kills it after a checkpoint."""
    flags = kills.FLAGS | {
        'train.steps': 24,
        'eval.every': '8 steps',
        'checkpoint.every': '5 steps',
    }
    flags |= {'data.dir': str(data_dir)}
    settings = [f'--config.{name}={value}' for name, value in flags.items()]
    command = [sys.executable, '-m', 'neptune_jax.together', '--config=configs/cnn.py', *settings]
    command += [f'--run={seed}:{out}/{seed}' for seed in (0, 1)] + ['--run=2:']
    env = os.environ | {'XLA_FLAGS': xla.flags(1)}
    process = subprocess.Popen(
        command, cwd=kills.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if kill:
        while not (out / '1/checkpoints/10').exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == (-signal.SIGKILL if kill else 0), output


def test_a_group_that_is_killed_goes_on_to_the_bits_of_one_that_is_not(tmp_path, data_dir):
    run_processes(tmp_path / 'whole', data_dir)
    run_processes(tmp_path / 'killed', data_dir, kill=True)
    run_processes(tmp_path / 'killed', data_dir)
    assert sorted(path.name for path in (tmp_path / 'whole').iterdir()) == ['0', '1']
    for seed in '01':
        whole, killed = tmp_path / 'whole' / seed, tmp_path / 'killed' / seed
        assert rows(killed) == rows(whole)
        assert reader.read_summary(killed)['test'] == reader.read_summary(whole)['test']
        weights = [arrays(path) for path in (whole, killed)]
        jax.tree.map(np.testing.assert_array_equal, *(each.params for each in weights))


def test_a_run_that_is_ahead_waits_for_the_others(config, tmp_path, train_until):
    """As after a kill between the checkpoints of two runs."""
    runs = [(0, tmp_path / 'a'), (1, tmp_path / 'b')]
    together.train_and_evaluate(config, [(seed, tmp_path / f'whole{seed}') for seed, _ in runs])
    train_until(config, tmp_path / 'a', step=3)  # a single run, of seed 0
    together.train_and_evaluate(config, runs)
    for seed, workdir in runs:
        whole = rows(tmp_path / f'whole{seed}')
        assert [row['step'] for row in rows(workdir)] == [row['step'] for row in whole]
        for row, other in zip(rows(workdir), whole, strict=True):
            assert row == pytest.approx(other, rel=1e-4)


def test_a_run_that_fails_ends_alone(config, tmp_path, monkeypatch):
    validate = one_run.OneRun.validate

    def fail(self, *args):
        if self.run.workdir.name == 'a':
            raise UserError('the loss is nan')
        return validate(self, *args)

    monkeypatch.setattr(one_run.OneRun, 'validate', fail)
    with pytest.raises(UserError, match='a: the loss is nan'):
        together.train_and_evaluate(config, [(0, tmp_path / 'a'), (1, tmp_path / 'b')])
    summaries = [reader.read_summary(tmp_path / name) for name in 'ab']
    assert [each['status'] for each in summaries] == ['failed', 'finished']
    assert summaries[0]['error'] == 'the loss is nan'
    assert 'test' in summaries[1] and 'test' not in summaries[0]


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('data.mode', 'host', 'data.mode=host'),
        ('parallel.num_devices', 2, '2 devices: set parallel.num_devices=1'),
        ('parallel.driver', 'pmap', 'parallel.driver=pmap'),
        ('train.debug_nans', True, 'train.debug_nans=True'),
    ],
)
def test_what_cannot_be_trained_together_is_refused(config, field, value, message, tmp_path):
    group, name = field.split('.')
    config[group][name] = value
    with pytest.raises(UserError, match=message):
        together.train_and_evaluate(config, [(0, tmp_path / 'a'), (1, tmp_path / 'b')])
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        experiments.check_together(experiments.create(config))
