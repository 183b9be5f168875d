"""Runs that are killed, asked to end, or moved, and end as if nothing had happened."""

import os
import random
import signal
import subprocess
import time

import pytest

from neptune_jax.runs import reader
from tests.stress import kills

STEPS = 120


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """How a run that is left alone ends, and the flags to train like it."""
    folder = tmp_path_factory.mktemp('whole')
    flags = {'data.dir': f'{folder}/data', 'train.steps': STEPS}
    kills.finish(folder / 'run', flags)
    return kills.end(folder / 'run', STEPS), flags


def stop(workdir, flags, until, number):
    """Starts a run, sends it a signal after a line that holds `until`; returns it ended."""
    process = kills.start(workdir, flags)
    for line in process.stdout:
        if until in line:
            break
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.parametrize('until', ['step     70/120', 'step 120  val'])
def test_killed_at_any_moment_it_ends_with_the_same_bits_and_rows(whole, tmp_path, until):
    expected, flags = whole
    status, _ = stop(tmp_path / 'run', flags, until, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert reader.read_summary(tmp_path / 'run')['status'] == 'running'
    output = kills.finish(tmp_path / 'run', flags)
    assert 'resuming after step' in output
    assert kills.end(tmp_path / 'run', STEPS) == expected


def test_asked_to_end_it_saves_and_says_so_and_goes_on(whole, tmp_path):
    expected, flags = whole
    for number, until in ((signal.SIGTERM, 'compiled'), (signal.SIGINT, 'step     70/120')):
        status, output = stop(tmp_path / 'run', flags, until, number)
        assert status == 75
        assert f'ended by {number.name}; the same command continues from here' in output
        assert 'Traceback' not in output
        assert reader.read_summary(tmp_path / 'run')['status'] == 'preempted'
    step = reader.read_summary(tmp_path / 'run')['step']
    assert step >= 70
    output = kills.finish(tmp_path / 'run', flags)
    assert f'resuming after step {step}' in output  # not a step was lost
    assert kills.end(tmp_path / 'run', STEPS) == expected


def test_killed_at_random_times(whole, tmp_path):
    expected, flags = whole
    assert kills.interrupt(tmp_path / 'run', flags, random.Random(3), seconds=10)
    assert kills.end(tmp_path / 'run', STEPS) == expected


def test_a_directory_that_a_live_run_writes_is_refused(tmp_path):
    flags = {'data.dir': f'{tmp_path}/data', 'train.steps': 100000}
    process = kills.start(tmp_path / 'run', flags)
    for line in process.stdout:
        if line.startswith('step'):
            break
    process.send_signal(signal.SIGSTOP)  # it holds the directory, and no processor
    other = subprocess.run(
        kills.command(tmp_path / 'run', flags), cwd=kills.ROOT, capture_output=True, text=True
    )
    assert other.returncode == 2
    assert f'is being written by process {process.pid} on ' in other.stderr
    assert other.stderr.count('\n') == 1
    assert process.poll() is None
    process.kill()
    process.communicate()


@pytest.mark.parametrize('until', ['compiled', 'step'])  # they start, and import; they read
def test_ctrl_c_reaches_the_processes_that_read_too_and_only_the_run_answers(
    command, tmp_path, until
):
    flags = ('--config=configs/cnn.py', '--config.data.name=fashion_mnist_mini')
    flags += ('--config.data.mode=stream', '--config.model.features=4', '--config.train.epochs=999')
    process = subprocess.Popen(
        **command(*flags, f'--workdir={tmp_path}/run'),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith(until):
            break
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors == 'ended by SIGINT; the same command continues from here\n'
