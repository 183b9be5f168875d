"""Sweeps through the command line, with real trainings of a few steps."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from neptune_jax.runs import reader
from neptune_jax.testing import xla
from tests.stress import kills, sweeps

STEPS = 6
SHORT = {
    'train.steps': STEPS,
    'eval.every': '3 steps',
    'checkpoint.every': '2 steps',
    'log.every': '2 steps',
}


@pytest.fixture
def flags(data_dir):
    return kills.FLAGS | SHORT | {'data.dir': str(data_dir), 'optim.warmup': '1 step'}


def run(out, flags, *more, config='configs/cnn.py', **env):
    command = [sys.executable, '-m', 'neptune_jax.sweep', f'--config={config}', f'--out={out}']
    command += [f'--config.{name}={value}' for name, value in flags.items()] + list(more)
    env = os.environ | {'XLA_FLAGS': xla.flags(1), 'COLUMNS': '200'} | env
    return subprocess.run(
        command, cwd=kills.ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_sweep_that_is_interrupted_and_killed_ends_with_the_bits_of_a_single_training(
    flags, tmp_path
):
    """First Ctrl-C, then SIGKILL of the sweep alone: its training ends by itself."""
    steps = 200
    flags |= {'train.steps': steps, 'checkpoint.every': '10 steps', 'eval.every': '50 steps'}
    kills.finish(tmp_path / 'single', flags | {'seed': 1})
    out, workdir = tmp_path / 'out', tmp_path / 'out/seed=1'
    arguments = {'grid': ['seed=1'], 'workers': 1}

    process = sweeps.start(out, flags, **arguments)
    wait_for(workdir / 'checkpoints/10', process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert 'ended by Ctrl-C; the same command continues from here' in output
    assert 'Traceback' not in output
    assert reader.read_summary(workdir)['status'] == 'preempted'
    assert sweeps.session(process) == []
    step = reader.checkpoint_steps(workdir)[-1]

    process = sweeps.start(out, flags, **arguments)
    wait_for(workdir / f'checkpoints/{(step // 10 + 1) * 10}', process)
    assert len(sweeps.trainings(process)) == 1
    process.kill()
    process.communicate()
    sweeps.wait_for_all([process])
    assert reader.read_summary(workdir)['status'] == 'preempted'
    step = reader.checkpoint_steps(workdir)[-1]
    assert step < steps

    output = sweeps.finish(out, flags, **arguments)
    assert 'seed=1  goes on' in output
    assert f'resuming after step {step}' in (workdir / 'trial.log').read_text()
    assert kills.end(workdir, steps) == kills.end(tmp_path / 'single', steps)


def test_a_file_of_points_with_two_workers_compiles_once_and_can_be_extended(flags, tmp_path):
    """Trials that differ in numbers share their programs: later ones add none to the cache."""
    file = tmp_path / 'mine.py'
    file.write_text(
        'from configs.cnn import get_config\n'
        'def get_sweep():\n'
        '    yield {"seed": 1, "optim.learning_rate": 0.01}\n'
    )
    cache = tmp_path / 'compiled'
    env = {'JAX_COMPILATION_CACHE_DIR': str(cache), 'PYTHONPATH': str(kills.ROOT)}
    env['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    done = run(tmp_path / 'out', flags, config=file, **env)
    assert done.returncode == 0, done.stderr
    programs = {path.name for path in cache.glob('*-cache')}
    assert len(programs) > 3
    grid = '--grid=optim.learning_rate=0.01,0.1'
    done = run(tmp_path / 'out', flags, grid, '--workers=2', '--keep=best', config=file, **env)
    assert done.returncode == 0, done.stderr
    assert '2 trials: 2 finished' in done.stdout
    assert {path.name for path in cache.glob('*-cache')} == programs
    names = sorted(path.parent.name for path in (tmp_path / 'out').glob('*/config.json'))
    assert names == ['optim.learning_rate=0.1', 'seed=1,optim.learning_rate=0.01']
    for name in names:
        assert reader.read_summary(tmp_path / 'out' / name)['status'] == 'finished'
        assert len(reader.checkpoint_steps(tmp_path / 'out' / name)) == 1
        report = json.loads((tmp_path / 'out' / name / 'environment.json').read_text())
        assert '--config.seed=1' in report['command']


def test_a_mistake_in_the_last_trial_is_found_before_the_first_one_trains(flags, tmp_path):
    """A field that no config has, and a value that only the data can refuse."""
    del flags['train.batch_size']
    sizes = ','.join(map(str, range(64, 142, 2)))
    for grid, message in (
        (f'train.batch_size={sizes},3000', 'trial train.batch_size=3000: train.batch_size=3000'),
        ('model.activation=relu,gelu,rel', 'trial model.activation=rel'),
    ):
        done = run(tmp_path / 'out', flags, f'--grid={grid}')
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert done.stderr.count('\n') == 1
        assert not (tmp_path / 'out').exists()
