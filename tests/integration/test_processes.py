"""Several processes on this machine, with real sockets between them."""

import signal
import time

import numpy as np

from neptune_jax.runs import reader
from tests.stress import processes as started

# Makes Python say on stderr where it listens. JAX's own sockets are not Python's: no such line.
AUDIT = """
import sys
def hook(event, arguments):
    if event == 'socket.bind':
        print('bind', arguments[1], file=sys.stderr)
sys.addaudithook(hook)
"""


def test_two_processes_end_like_one_and_open_no_socket_but_jaxs(data_dir, tmp_path, monkeypatch):
    (tmp_path / 'sitecustomize.py').write_text(AUDIT)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    flags = (f'--config.data.dir={data_dir}',)
    ends = []
    for processes, devices in ((2, 2), (1, 4)):
        workdir = tmp_path / str(processes)
        results = started.finish(
            started.start(workdir, *flags, processes=processes, devices=devices)
        )
        assert [status for status, _, _ in results] == [0] * processes, results
        assert 'devices  4 x cpu, driver pmap' in results[0][1]
        assert not any('bind' in errors for _, _, errors in results), results
        ends.append(started.final(workdir))
    (two, arrays), (one, others) = ends
    assert two['test']['accuracy'] == one['test']['accuracy']
    for found, expected in zip(arrays, others, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    rows = [reader.read_rows(tmp_path / name) for name in ('1', '2')]
    assert [row['step'] for row in rows[0]] == [row['step'] for row in rows[1]]


def run_until(processes, text):
    """Reads what process 0 prints up to a line that contains `text`; returns it all."""
    lines = []
    for line in processes[0].stdout:
        lines.append(line)
        if text in line:
            return ''.join(lines)
    raise AssertionError(f'process 0 never said {text!r}')


def test_a_process_that_dies_takes_the_other_down_and_the_run_resumes(data_dir, tmp_path):
    flags = (f'--config.data.dir={data_dir}', '--config.data.mode=host')
    flags += ('--config.checkpoint.every=5 steps', '--config.train.steps=200')
    for killed, step, launcher in ((1, 20, started.addresses), (0, 40, started.open_mpi)):
        processes = started.start(tmp_path / 'run', *flags, launcher=launcher)
        output = run_until(processes, f'step     {step}/')
        processes[killed].kill()
        began = time.monotonic()
        results = started.finish(processes)
        assert time.monotonic() - began < 60
        statuses = {killed: -signal.SIGKILL, 1 - killed: -signal.SIGABRT}
        assert [status for status, _, _ in results] == [statuses[0], statuses[1]], results
        assert 'JAX distributed service detected fatal errors' in results[1 - killed][2]
    assert 'resuming after step' in output  # of process 0, before it died
    ((status, output, errors),) = started.finish(
        started.start(tmp_path / 'run', *flags, processes=1, devices=4)
    )
    assert status == 0, errors
    assert 'resuming after step' in output
    steps = [row['step'] for row in reader.read_rows(tmp_path / 'run') if 'train/loss' in row]
    assert steps == sorted(set(steps))
    assert set(range(10, 101, 10)) <= set(steps)


def test_an_error_of_one_process_is_one_line_and_ends_the_other(data_dir, tmp_path):
    (tmp_path / 'file').write_text('No run: an error of process 0, which alone writes here.')
    wrong = ('--config.data.name=arrays', '--config.data.path=/nowhere')
    runs = [
        started.start(tmp_path, f'--config.data.dir={data_dir}'),
        started.start(tmp_path / 'run', f'--config.data.dir={data_dir}', flags_of_process_1=wrong),
    ]
    for failed, processes in enumerate(runs):
        results = started.finish(processes)
        status, _, errors = results[failed]
        assert status == 2, results
        assert errors.startswith('error: ')
        assert errors.count('\n') == 1
        assert results[1 - failed][0] == -signal.SIGABRT, results


def test_a_signal_to_one_process_of_slurm_ends_all_of_them_after_the_same_step(data_dir, tmp_path):
    flags = (f'--config.data.dir={data_dir}', '--config.train.steps=40000')
    processes = started.start(tmp_path / 'run', *flags, launcher=started.slurm)
    run_until(processes, 'step     20/')
    processes[1].send_signal(signal.SIGTERM)
    results = started.finish(processes)
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
