"""The loop of a sweep: what it starts, starts again, waits for, gives up, and leaves.

stand_in.py takes the place of the trainings; test_sweep_command.py has real ones.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from neptune_jax import defaults
from neptune_jax.errors import Preempted
from neptune_jax.sweeping import checking, running, workers
from neptune_jax.sweeping.planning import Plan, Request
from neptune_jax.sweeping.trials import Trial

STAND_IN = Path(__file__).with_name('stand_in.py')
ROOT = Path(__file__).parents[2]


class Command(workers.Command):
    """Starts the stand-in with the behaviours of each trial."""

    behaviours: dict = {}

    def of(self, trials):
        found = self.behaviours.get(trials[0].name, ['ok'])
        return [sys.executable, '-S', '-E', str(STAND_IN), str(trials[0].directory), *found]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Makes a sweep of some seeds whose trainings behave as a dict of lists says."""
    monkeypatch.setattr(workers, 'Command', Command)
    monkeypatch.setattr(running, '_POLL_SECONDS', 0.02)
    monkeypatch.setattr(running, '_SCAN_SECONDS', 0.1)

    def sweep(behaviours=None, count=1, search=(), **more):
        monkeypatch.setattr(Command, 'behaviours', behaviours or {})
        more = {'grid': [] if search else ['seed=0:4'], 'out': str(tmp_path / 'out')} | more
        request = Request(
            config=defaults.get_config(),
            config_file='configs/cnn.py',
            config_arguments=[],
            points=None,
            search=search,
            environ=dict(os.environ),
            **more,
        )
        plan = Plan(request)
        plan.find_trials(write=True)
        return running.Sweep(plan, workers.shares(count, request.environ))

    return sweep


def starts(tmp_path, name):
    path = tmp_path / 'out' / name / 'starts'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def counts(tmp_path):
    return {f'seed={seed}': len(starts(tmp_path, f'seed={seed}')) for seed in range(4)}


def statuses(tmp_path):
    return [Trial(tmp_path / 'out', f'seed={seed}', seed, {}).status for seed in range(4)]


def test_each_trial_is_trained_once_and_finished_ones_are_left(sweep, tmp_path, capsys):
    assert sweep().run() == []
    assert counts(tmp_path) == dict.fromkeys(counts(tmp_path), 1)
    assert statuses(tmp_path) == ['finished'] * 4
    assert sweep(count=2).run() == []
    assert counts(tmp_path) == dict.fromkeys(counts(tmp_path), 1)
    assert '4 trials: 4 finished' in capsys.readouterr().out


def test_it_needs_no_server_and_leaves_no_database(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, 'socket', lambda *_, **__: 1 / 0)
    assert sweep(search=['optim.momentum=0:1'], trials=2).run() == []
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'sweep.json', '.sweep.lock', '0000', '0001'}


def test_deleted_failed_and_interrupted_runs_are_done_again(sweep, tmp_path):
    """And nothing else."""
    sweep().run()
    shutil.rmtree(tmp_path / 'out/seed=0')
    (tmp_path / 'out/seed=1/summary.json').write_text('{"status": "failed"}')
    (tmp_path / 'out/seed=2/summary.json').write_text('{"status": "running"}')  # it was killed
    assert sweep().run() == []
    assert counts(tmp_path) == {'seed=0': 1, 'seed=1': 2, 'seed=2': 2, 'seed=3': 1}


def test_a_failed_trial_is_tried_again_and_does_not_end_the_sweep(sweep, tmp_path, capsys):
    behaviours = {'seed=0': ['crash', 'ok'], 'seed=1': ['crash'], 'seed=2': ['mistake']}
    assert sweep(behaviours).run() == ['seed=1', 'seed=2']
    # A loss that is not finite would be so again.
    assert counts(tmp_path) == {'seed=0': 2, 'seed=1': 2, 'seed=2': 1, 'seed=3': 1}
    printed = capsys.readouterr().out
    assert 'seed=1  failed: ValueError: of the tests' in printed
    assert 'failed   seed=2: error: the loss is nan' in printed
    assert sweep(behaviours, retries=0).run() == ['seed=1', 'seed=2']
    assert counts(tmp_path)['seed=1'] == 2
    assert sweep({'seed=1': ['ok']}).run() == []  # the next command tries again what failed
    assert counts(tmp_path) == {'seed=0': 2, 'seed=1': 3, 'seed=2': 2, 'seed=3': 1}


def test_failed_trials_are_named_and_the_status_is_1(sweep, monkeypatch, capsys):
    made = sweep({'seed=1': ['mistake'], 'seed=3': ['mistake']})
    checked = []
    monkeypatch.setattr(checking, 'check_in_process', lambda configs, *_: checked.append(configs))
    assert running.run(made._request) == 1
    assert capsys.readouterr().err == 'error: 2 trials failed: seed=1, seed=3\n'
    assert len(checked[0]) == 4
    assert running.run(made._request) == 1
    assert len(checked) == 1  # all have started: nothing is left to check


def test_killed_trainings_go_on_as_long_as_they_get_further(sweep, tmp_path):
    behaviours = {'seed=0': ['checkpoint'] * 5 + ['ok'], 'seed=1': ['killed']}
    assert sweep(behaviours).run() == ['seed=1']
    assert counts(tmp_path)['seed=0'] == 6
    assert counts(tmp_path)['seed=1'] == 2
    failures = Trial(tmp_path / 'out', 'seed=1', 1, {}).failures
    assert 'SIGKILL' in failures[0]['error']


def test_a_trial_that_another_process_trains_is_waited_for(sweep, tmp_path):
    other = Trial(tmp_path / 'out', 'seed=1', 1, {'seed': 1})
    other.describe()
    command = [sys.executable, str(STAND_IN), str(other.directory), 'hang', 'ok']
    claim = other.claim()
    process = subprocess.Popen(command, pass_fds=[claim.descriptor])
    claim.close()

    def end():
        while len(list((tmp_path / 'out').glob('*/summary.json'))) < 4:
            time.sleep(0.05)
        time.sleep(0.3)
        assert counts(tmp_path) == dict.fromkeys(counts(tmp_path), 1)  # nobody trains it twice
        process.kill()

    thread = threading.Thread(target=end)
    thread.start()
    assert sweep({'seed=1': ['hang', 'ok']}).run() == []
    thread.join()
    process.wait()
    assert statuses(tmp_path) == ['finished'] * 4
    assert counts(tmp_path)['seed=1'] == 2  # it was taken over


def test_a_run_that_was_started_by_hand_is_not_disturbed(sweep, tmp_path):
    workdir = tmp_path / 'out/seed=0'
    workdir.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, str(STAND_IN), str(workdir), 'hang', 'ok'])
    while not (workdir / 'summary.json').exists():
        time.sleep(0.02)
    timer = threading.Timer(0.8, process.terminate)
    timer.start()
    assert sweep().run() == []
    process.wait()
    assert counts(tmp_path) == {'seed=0': 2, 'seed=1': 1, 'seed=2': 1, 'seed=3': 1}


@pytest.mark.parametrize(
    ('number', 'error'), [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_all_workers_in_good_order(sweep, tmp_path, number, error):
    def interrupt():
        while len(list((tmp_path / 'out').glob('*/summary.json'))) < 2:
            time.sleep(0.02)
        signal.raise_signal(number)

    threading.Thread(target=interrupt).start()
    behaviours = {'seed=0': ['hang', 'ok'], 'seed=1': ['hang', 'ok']}
    with pytest.raises(error):
        sweep(behaviours, count=2).run()
    assert statuses(tmp_path) == ['preempted', 'preempted', 'waiting', 'waiting']
    assert sweep(behaviours, count=2).run() == []
    assert not Trial(tmp_path / 'out', 'seed=0', 0, {}).failures


def test_after_max_hours_it_ends_in_good_order(sweep, tmp_path):
    behaviours = {'seed=0': ['hang', 'ok']}
    began = time.monotonic()
    with pytest.raises(Preempted, match='--max_hours'):
        sweep(behaviours, max_hours=3 / 3600).run()
    assert 3 < time.monotonic() - began < 30
    assert statuses(tmp_path) == ['preempted', 'waiting', 'waiting', 'waiting']
    assert sweep(behaviours, max_hours=1.0).run() == []


def test_an_error_of_the_sweep_ends_its_workers_too(sweep, tmp_path, monkeypatch):
    made = sweep({'seed=0': ['hang', 'ok']})
    monkeypatch.setattr(made, '_show', lambda: 1 / (not starts(tmp_path, 'seed=0')))
    with pytest.raises(ZeroDivisionError):
        made.run()
    assert not Path(f'/proc/{starts(tmp_path, "seed=0")[0]["pid"]}').exists()


def test_hopeless_trials_are_pruned_and_stay_so(sweep, tmp_path, capsys):
    behaviours = {f'seed={seed}': [f'learn:{0.9 - 0.01 * seed}'] for seed in range(3)}
    behaviours['seed=3'] = ['slow:0.1']
    assert sweep(behaviours, prune='asha', grid=['seed=0:3']).run() == []
    assert sweep(behaviours, prune='asha').run() == []
    assert statuses(tmp_path)[0] == 'finished'
    assert statuses(tmp_path)[3] == 'pruned'
    assert 'seed=3  pruned: 0.1000 after ' in capsys.readouterr().out
    assert sweep(behaviours, prune='asha').run() == []
    assert counts(tmp_path)['seed=3'] == 1


def test_workers_have_their_share_of_the_cores_and_trials_run_side_by_side(sweep, tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    sweep(count=2).run()
    used = [starts(tmp_path, f'seed={seed}')[0]['cores'] for seed in range(4)]
    if len(cores) > 1:
        assert {tuple(each) for each in used} == {
            tuple(cores[: len(cores) // 2]),
            tuple(cores[len(cores) // 2 :]),
        }
    assert sorted(os.sched_getaffinity(0)) == cores  # this process has all of them still


def test_shares_of_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 4})
    environ = {'CUDA_VISIBLE_DEVICES': '2,5,7'}

    def found(count, environ):
        return [
            (share.cores, share.environ.get('CUDA_VISIBLE_DEVICES'))
            for share in workers.shares(count, environ)
        ]

    assert found(1, environ) == [((), None)]  # everything
    assert found(2, {'CUDA_VISIBLE_DEVICES': ''}) == [((0, 1), None), ((2, 3, 4), None)]
    assert found(3, environ) == [((0,), '2'), ((1, 2), '5'), ((3, 4), '7')]
    shared = workers.shares(6, environ)
    assert [share.environ['CUDA_VISIBLE_DEVICES'] for share in shared] == list('257257')
    assert {share.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] for share in shared} == {'0.45'}
    assert [share.cores for share in shared] == [(0,), (1,), (2,), (3,), (4,), (0,)]
    assert found(2, environ | {'JAX_PLATFORMS': 'cpu'}) == [((0, 1), None), ((2, 3, 4), None)]


def test_a_search_runs_all_its_trials_and_a_finite_one_ends(sweep, tmp_path, capsys):
    pytest.importorskip('optuna')
    assert sweep(search=['optim.momentum=0:1'], trials=5, count=2).run() == []
    points = [
        json.loads(path.read_text())['overrides']['optim.momentum']
        for path in sorted((tmp_path / 'out').glob('*/trial.json'))
    ]
    assert len(set(points)) == 5
    out = str(tmp_path / 'finite')
    assert sweep(search=['optim.name=sgd,adam'], trials=5, out=out).run() == []
    assert len(list(Path(out).glob('*/summary.json'))) == 2
    assert sorted(path.name for path in Path(out).glob('0*')) == ['0000', '0001']
    assert capsys.readouterr().out.count('no more than 2 configs') == 1


def test_checkpoints_of_finished_trials_are_removed(sweep, tmp_path):
    behaviours = {'seed=0': ['checkpoint', 'checkpoint', 'ok'], 'seed=1': ['checkpoint', 'mistake']}
    sweep(behaviours, keep='last').run()
    assert [path.name for path in (tmp_path / 'out/seed=0/checkpoints').iterdir()] == ['2']
    assert [path.name for path in (tmp_path / 'out/seed=1/checkpoints').iterdir()] == ['1']
    sweep({'seed=1': ['mistake']}, keep='none').run()  # also of those that had finished before
    assert list((tmp_path / 'out/seed=0/checkpoints').iterdir()) == []
    assert [path.name for path in (tmp_path / 'out/seed=1/checkpoints').iterdir()] == ['1']


def test_progress_is_what_the_training_prints(tmp_path):
    trial = Trial(tmp_path, 'a', 0, {})
    assert workers.progress(trial) is None
    trial.directory.mkdir()
    lines = [
        'step     50/1,170  loss 0.9  accuracy 0.7  1,200 images/s  113 s left',
        'epoch 0.2  step 100  val loss 0.9  val accuracy 0.7  best so far',
        'step  1,100/1,170  loss 0.4  accuracy 0.8  1,217 images/s  1,007 s left',
        'a last line',
    ]
    trial.path('trial.log').write_text('\n'.join(lines) + '\n\n')
    assert workers.progress(trial) == (1100, 1170, 1007)
    assert workers.last_line(trial) == 'a last line'
