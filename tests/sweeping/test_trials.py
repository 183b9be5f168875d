"""Trials: their states, claims of several processes, and the disk that they take."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from neptune_jax.errors import UserError
from neptune_jax.runs import files, reader
from neptune_jax.sweeping import trials
from neptune_jax.sweeping.trials import Trial

HOLD = """
import sys, time
from neptune_jax.sweeping.trials import Trial
claim = Trial(sys.argv[1], 'a', 0, {}).claim()
print('claimed' if claim else 'refused', flush=True)
time.sleep(60)
"""


def hold(folder):
    """Starts a process that claims trial 'a'; returns it with what it says."""
    command = [sys.executable, '-c', HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_one_process_has_the_claim_and_a_dead_one_has_none(tmp_path):
    trial = Trial(tmp_path, 'a', 0, {})
    process, answer = hold(tmp_path)
    try:
        assert answer == 'claimed'
        assert trial.claim() is None
        assert Trial(tmp_path, 'b', 1, {}).claim() is not None
    finally:
        process.kill()
        process.communicate()
    began = time.perf_counter()
    claim = trial.claim()  # a stale lock costs no time
    assert claim is not None
    assert time.perf_counter() - began < 0.1
    assert trial.claim() is None  # not twice in one process either
    claim.close()
    assert trial.claim() is not None


def test_the_claim_lasts_as_long_as_the_training_that_inherits_it(tmp_path):
    trial = Trial(tmp_path, 'a', 0, {})
    claim = trial.claim()
    child = subprocess.Popen(['sleep', '60'], pass_fds=[claim.descriptor])
    claim.close()  # as if the sweep had been killed
    try:
        assert trial.claim() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert trial.claim() is not None


def test_a_directory_that_is_removed_and_made_again_is_claimed_once(tmp_path):
    trial = Trial(tmp_path, 'a', 0, {})
    old = trial.claim()
    shutil.rmtree(trial.directory)
    new = trial.claim()
    assert old is not None
    assert new is not None
    assert trial.claim() is None


def test_a_directory_that_is_removed_during_a_claim_is_claimed_once(tmp_path, monkeypatch):
    trial = Trial(tmp_path, 'a', 0, {})
    lock, claims = fcntl.flock, []

    def remove_and_lock(*args):
        monkeypatch.setattr(fcntl, 'flock', lock)
        shutil.rmtree(trial.directory)
        claims.append(trial.claim())  # as another process may do at this moment
        lock(*args)

    monkeypatch.setattr(fcntl, 'flock', remove_and_lock)
    claims.append(trial.claim())
    assert [claim is not None for claim in claims] == [True, False]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be used'):
        Trial(tmp_path / 'file', 'a', 0, {}).claim()
    with pytest.raises(UserError, match='cannot be used'), trials.planning(tmp_path / 'file/x'):
        pass


def test_states_are_those_of_the_run_directory(tmp_path):
    trial = Trial(tmp_path, 'a', 3, {'seed': 1})
    assert trial.status == 'waiting'
    trial.directory.mkdir()
    trial.describe()
    assert files.read_json(trial.path('trial.json')) == {
        'sweep': tmp_path.name,
        'number': 3,
        'overrides': {'seed': 1},
    }
    trial.note_failure('no data', final=True)
    assert not trial.path('summary.json').exists()  # else the run could not start there
    assert trial.status == 'failed'
    for status in ('running', 'preempted', 'failed', 'finished'):
        trial.path('summary.json').write_text(json.dumps({'status': status}))
        assert trial.status == status
    trial.path('summary.json').write_text(json.dumps({'status': 'running', 'step': 7}))
    trial.note_failure('ended by SIGKILL', final=False)
    assert trial.summary == {'status': 'failed', 'step': 7, 'error': 'ended by SIGKILL'}
    assert [each['error'] for each in trial.failures] == ['no data', 'ended by SIGKILL']
    trial.prune('too bad')
    assert trial.status == 'pruned'
    trial.path('summary.json').write_text('{"stat')
    assert trial.status == 'failed'  # a damaged one says nothing


def with_checkpoints(tmp_path, status):
    trial = Trial(tmp_path, status, 0, {})
    rows = []
    for step, accuracy in ((10, 0.5), (20, 0.9), (30, 0.7)):
        folder = trial.path('checkpoints') / str(step)
        folder.mkdir(parents=True)
        (folder / 'state').write_text('x')
        (folder.parent / f'{step}.crc32').write_text('x')
        rows.append({'step': step, 'val/accuracy': accuracy, 'val/loss': 1.0})
    trial.path('checkpoints/5.crc32').write_text('')  # of one that the training has removed
    trial.path('metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    trial.path('summary.json').write_text(json.dumps({'status': status}))
    return trial


@pytest.mark.parametrize(
    ('keep', 'left'), [('all', [10, 20, 30]), ('best', [20]), ('last', [30]), ('none', [])]
)
def test_checkpoints_of_trials_that_are_done_are_removed(tmp_path, keep, left):
    for status in ('finished', 'pruned'):
        trial = with_checkpoints(tmp_path, status)
        trial.remove_checkpoints(keep)
        assert reader.checkpoint_steps(trial.directory) == left
        names = {path.name for path in trial.path('checkpoints').iterdir()}
        if keep != 'all':
            assert names == {*map(str, left), *(f'{step}.crc32' for step in left)}


def test_checkpoints_of_unfinished_trials_stay(tmp_path):
    for status in ('running', 'preempted', 'failed'):
        trial = with_checkpoints(tmp_path, status)
        trial.remove_checkpoints('none')
        assert reader.checkpoint_steps(trial.directory) == [10, 20, 30]


def test_a_removal_that_is_killed_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    trial = with_checkpoints(tmp_path, 'finished')
    with monkeypatch.context() as patched:
        patched.setattr(shutil, 'rmtree', lambda *args, **kwargs: os.kill(os.getpid(), 0) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trial.remove_checkpoints('best')
    assert reader.checkpoint_steps(trial.directory) == [20]
    trial.remove_checkpoints('best')
    assert not list(trial.path('checkpoints').glob('.removed*'))
