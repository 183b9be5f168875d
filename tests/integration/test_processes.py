"""Several processes on this machine, with real sockets between them."""

import signal

import numpy as np

from neptune_jax.runs import reader
from tests.stress import processes as hosts


def test_two_processes_end_like_one(tmp_path):
    flags = (f'--config.data.dir={tmp_path}/data',)
    ends = []
    for processes, devices in ((2, 2), (1, 4)):
        workdir = tmp_path / str(processes)
        results = hosts.finish(hosts.start(workdir, *flags, processes=processes, devices=devices))
        assert [status for status, _, _ in results] == [0] * processes, results
        assert 'devices  4 x cpu, driver pmap' in results[0][1]
        ends.append(hosts.final(workdir))
    (two, arrays), (one, others) = ends
    assert two['test']['accuracy'] == one['test']['accuracy']
    for found, expected in zip(arrays, others, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    rows = [reader.read_rows(tmp_path / name) for name in ('1', '2')]
    assert [row['step'] for row in rows[0]] == [row['step'] for row in rows[1]]


def run_until(processes, text):
    for line in processes[0].stdout:
        if text in line:
            return
    raise AssertionError(f'process 0 never said {text!r}')


def test_a_process_that_dies_takes_the_other_down_and_the_run_resumes(tmp_path):
    flags = (f'--config.data.dir={tmp_path}/data', '--config.data.mode=host')
    flags += ('--config.checkpoint.every=5 steps', '--config.train.steps=100')
    processes = hosts.start(tmp_path / 'run', *flags)
    run_until(processes, 'step     20/100')
    processes[1].kill()
    results = hosts.finish(processes)
    assert [status for status, _, _ in results] == [75, -signal.SIGKILL], results
    assert 'error: process 1 of 2 has ended early' in results[0][2]
    ((status, output, errors),) = hosts.finish(
        hosts.start(tmp_path / 'run', *flags, processes=1, devices=4)
    )
    assert status == 0, errors
    assert 'resuming after step' in output
    steps = [row['step'] for row in reader.read_rows(tmp_path / 'run') if 'train/loss' in row]
    assert steps == sorted(set(steps))
    assert set(range(10, 101, 10)) <= set(steps)


def test_a_signal_to_one_process_of_slurm_ends_all_of_them_after_the_same_step(tmp_path):
    flags = (f'--config.data.dir={tmp_path}/data', '--config.train.steps=40000')
    processes = hosts.start(tmp_path / 'run', *flags, launcher=hosts.slurm)
    run_until(processes, 'step     20/')
    processes[1].send_signal(signal.SIGTERM)
    results = hosts.finish(processes)
    assert [status for status, _, _ in results] == [75, 75], results
    summary = reader.read_summary(tmp_path / 'run')
    assert summary['status'] == 'preempted'
    assert (tmp_path / f'run/checkpoints/{summary["step"]}').is_dir()


def test_processes_that_nobody_tells_of_each_other_are_refused(run, tmp_path):
    flags = ('--config=configs/cnn.py', '--config.parallel.distributed=True')
    result = run(*flags, f'--workdir={tmp_path}/run')
    assert result.returncode == 2
    assert result.stderr.startswith('error: parallel.distributed: the processes did not find each')
    assert result.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()
