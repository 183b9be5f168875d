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


def test_a_sweep_that_is_killed_goes_on_to_the_bits_of_a_single_training(flags, tmp_path):
    """SIGKILL of the sweep alone: its training ends by itself, in good order."""
    long = flags | {'train.steps': 400, 'checkpoint.every': '10 steps'}
    kills.finish(tmp_path / 'single', long | {'seed': 1})
    process = sweeps.start(tmp_path / 'out', long, grid=['seed=1'], workers=1)
    workdir = tmp_path / 'out/seed=1'
    wait_for(workdir / 'checkpoints/10', process)
    assert len(sweeps.trainings(process)) == 1
    process.kill()
    process.communicate()
    sweeps.wait_for_all([process])
    assert reader.read_summary(workdir)['status'] == 'preempted'
    step = reader.checkpoint_steps(workdir)[-1]
    assert step < 400
    output = sweeps.finish(tmp_path / 'out', long, grid=['seed=1'], workers=1)
    assert 'seed=1  goes on' in output
    assert f'resuming after step {step}' in (workdir / 'trial.log').read_text()
    assert kills.end(workdir, 400) == kills.end(tmp_path / 'single', 400)


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
    assert names == ['optim.learning_rate=0.01,seed=1', 'optim.learning_rate=0.1']
    for name in names:
        assert reader.read_summary(tmp_path / 'out' / name)['status'] == 'finished'
        assert len(reader.checkpoint_steps(tmp_path / 'out' / name)) == 1
        report = json.loads((tmp_path / 'out' / name / 'environment.json').read_text())
        assert '--config.seed=1' in report['command']


def test_a_mistake_in_the_last_trial_is_found_before_the_first_one_trains(flags, tmp_path):
    """A field that no config has, and a value that only the data can refuse."""
    names = ','.join(str(size) for size in range(64, 103)) + ',64000'
    for grid, message in (
        (f'train.batch_size={names}', 'trial train.batch_size=64000: train.batch_size=64000'),
        ('model.activation=relu,gelu,rel', 'trial model.activation=rel'),
    ):
        done = run(tmp_path / 'out', flags, f'--grid={grid}')
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert done.stderr.count('\n') == 1
        assert not (tmp_path / 'out').exists()


def test_failed_trials_are_named_and_the_status_is_1(flags, tmp_path):
    done = run(
        tmp_path / 'out', flags | {'optim.clip_norm': 0.0}, '--grid=optim.learning_rate=0.01,1e38'
    )
    assert done.returncode == 1
    assert '2 trials: 1 finished, 1 failed' in done.stdout
    assert 'failed   optim.learning_rate=1e+38: error: the loss is' in done.stdout
    assert 'error: 1 trial failed: optim.learning_rate=1e+38' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--grid=seed'], 'names no values'),
        (['--search=optim.momentum=0:1', '--objective=test/accuracy'], 'no test any more'),
        (['--workers=0'], 'workers'),
    ],
)
def test_mistakes_are_one_line(flags, tmp_path, arguments, message):
    done = run(tmp_path / 'out', flags, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count('\n') == 1


def test_ctrl_c_ends_it_in_good_order(flags, tmp_path):
    long = flags | {'train.steps': 4000}
    process = sweeps.start(tmp_path / 'out', long, grid=['seed=0:2'], workers=1)
    wait_for(tmp_path / 'out/seed=0/checkpoints/2', process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert 'ended by Ctrl-C; the same command continues from here' in output
    assert 'Traceback' not in output
    assert reader.read_summary(tmp_path / 'out/seed=0')['status'] == 'preempted'
    assert not (tmp_path / 'out/seed=1/summary.json').exists()
    assert sweeps.session(process) == []
