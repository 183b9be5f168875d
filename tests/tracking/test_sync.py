"""Runs that are sent by the real client to a server on this machine."""

import io
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neptune_jax.runs import files
from neptune_jax.testing import neptune_server as server
from tests.stress import tracking as stress
from tests.stress.tracking import expected_series
from tests.tracking import programs


def write_rows(run, steps):
    for step in steps:
        values = {f'train/{name}': (i + 1) / step for i, name in enumerate('abcd')}
        run.write(step, values | {'val/accuracy': 1 - 1 / step})


def test_all_of_a_run_arrives_once(make_run, sync_command):
    config = {
        'model': {'features': [32, 64], 'dropout': 0.5, 'name': 'cnn'},
        'train': {'steps': None, 'examples': 2**40, 'ema': True, 'epochs': 10},
        'neptune': {'tags': ['baseline', 'cnn'], 'description': 'größer', 'project': 'lab/other'},
    }
    run = make_run(config=config)
    write_rows(run, range(1, 2001))
    run.write(2001, {'train/a': float('nan'), 'train/b': float('inf'), 'train/c': float('-inf')})
    pixels = np.random.default_rng(0).integers(256, size=(50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run.path('artifacts/confusion_matrix.png'))
    run.path('artifacts/confusion_matrix.csv').write_text('label,a\na,3\n')
    run.write_artifact('data_report.json', {'unreadable': ['holiday.jpg']})
    run.update_summary(status='failed', test={'accuracy': 0.5, 'loss': float('nan')}, error='no')
    with server.serve() as tracker:
        status, output, errors = sync_command(tracker.token, run.workdir)
        assert (status, errors) == (0, '')
        assert output == (
            f'{run.workdir}: sent 15 values, 10,000 points, 3 files to '
            f'{tracker.address}/lab/other/e/KEY-1; 4 non-finite numbers stay in '
            f'{run.workdir}\n'
        )
        (sent,) = tracker.runs.values()
        assert sent.series == expected_series(run.workdir)
        assert sum(map(len, sent.series.values())) == 10_000
        assert sent.attributes == {
            'config/seed': 0,
            'config/model/features': '[32, 64]',
            'config/model/dropout': 0.5,
            'config/model/name': 'cnn',
            'config/train/steps': 'null',
            'config/train/examples': float(2**40),
            'config/train/ema': True,
            'config/train/epochs': 10,
            'config/neptune/tags': '["baseline", "cnn"]',
            'config/neptune/description': 'größer',
            'config/neptune/project': 'lab/other',
            'environment/python': '3.12.1',
            'summary/status': 'failed',
            'summary/test/accuracy': 0.5,
            'summary/error': 'no',
            'sys/name': 'run',
            'sys/description': 'größer',
            'sys/tags': ['baseline', 'cnn'],
            'sys/failed': True,
            # The client adds the name of the script that it runs in.
            'source_code/entrypoint': 'sync.py',
        }
        assert sent.kinds['config/train/examples'] == 'float'
        assert sent.files == {
            f'artifacts/{path.name}': path.read_bytes()
            for path in (
                run.path('config.json'),
                run.path('artifacts/confusion_matrix.png'),
                run.path('artifacts/confusion_matrix.csv'),
            )
        }
        assert not sent.rejected
        (custom_id,) = tracker.runs
        assert len(custom_id) <= 36

        # It goes on: what was an error is none any more.
        del run.summary['error']
        run.update_summary(status='finished')
        write_rows(run, range(2002, 2004))
        status, output, errors = sync_command(tracker.token, run.workdir)
        assert (status, errors) == (0, '')
        assert 'sent 2 values, 10 points to' in output
        assert sent.series == expected_series(run.workdir)
        assert sent.attributes['summary/status'] == 'finished'
        assert sent.attributes['summary/error'] == 'null'
        assert sent.attributes['sys/failed'] is False
        assert list(tracker.runs) == [custom_id]
        assert not sent.rejected


def test_a_text_stays_a_text_and_a_number_that_is_not_finite_stays_here(make_run, sync):
    config = {
        'neptune': {'name': 'NaN', 'tags': ['Infinity', 'NaN'], 'description': '-Infinity'},
        'optim': {'clip_norm': math.inf},
        'model': {'name': 'cnn', 'slopes': [math.nan, 0.5]},
    }
    run = make_run(config=config)
    run.write(1, {'train/a': math.nan, 'train/b': 0.5})
    run.update_summary(status='finished', test={'loss': math.nan, 'accuracy': 0.5})
    with server.serve() as tracker:
        status, output, errors = sync(tracker.token, run.workdir)
        assert (status, errors) == (0, '')
        assert output.endswith(f'; 3 non-finite numbers stay in {run.workdir}\n')
        (sent,) = tracker.runs.values()
        assert (
            sent.attributes.items()
            >= {
                'sys/name': 'NaN',
                'sys/tags': ['Infinity', 'NaN'],
                'sys/description': '-Infinity',
                'config/neptune/name': 'NaN',
                'config/neptune/tags': '["Infinity", "NaN"]',
                'config/neptune/description': '-Infinity',
                'config/model/slopes': '["NaN", 0.5]',
                'summary/test/accuracy': 0.5,
            }.items()
        )
        assert not {'config/optim/clip_norm', 'summary/test/loss', 'train/a'} & sent.kinds.keys()
        _, output, _ = sync(tracker.token, run.workdir)
        assert f'{run.workdir}: sent nothing new to' in output


def test_killed_at_random_moments_and_sent_again_it_arrives_once(tmp_path):
    result = stress.kill_often(tmp_path, kills=3, seed=0)
    assert result == {'points': 30_000, 'points_wrong': 0, 'runs_on_the_server': 1}


def test_what_a_silent_server_was_asked_is_sent_again_after_a_kill(make_run, start_sync, sync):
    """Only what a server has confirmed counts as sent: values, rows and files."""
    run = make_run()
    os.utime(run.path('config.json'), (0, 0))  # an artifact that nobody writes any more

    def write_file():
        run.path('artifacts/notes.txt').write_text('of the run')
        os.utime(run.path('artifacts/notes.txt'), (0, 0))

    changes = (
        ('executeOperations', lambda: run.update_summary(epochs=1)),
        ('executeOperations', lambda: write_rows(run, range(1, 11))),
        ('fileAtomUpload', write_file),
    )
    with server.serve() as tracker:

        def has_all():
            exists = run.path('metrics.jsonl').exists()
            keys = expected_series(run.workdir).keys() if exists else set()
            return any(
                'artifacts/config.json' in sent.files and keys <= sent.series.keys()
                for sent in tracker.runs.values()
            )

        with files.locked(run.path('.lock')):
            for request, change in changes:
                process = start_sync(tracker.token, run.workdir, '--follow')
                assert tracker.wait_for(has_all, 60)
                time.sleep(0.5)
                before = tracker.requests[request]
                tracker.set_faults(**{request: 'silence'})
                change()
                assert tracker.wait_for(lambda r=request, b=before: tracker.requests[r] > b, 60)
                time.sleep(0.5)  # a sender that does not wait would now note what it has sent
                process.kill()
                tracker.set_faults()
        status, _, errors = sync(tracker.token, run.workdir)
        (sent,) = tracker.runs.values()
    assert (status, errors) == (0, '')
    assert sent.attributes['summary/epochs'] == 1
    assert sent.series == expected_series(run.workdir)
    assert sent.files['artifacts/notes.txt'] == b'of the run'


def test_an_artifact_that_is_being_written_waits_until_it_is_complete(make_run, start_sync):
    run = make_run()
    with server.serve() as tracker:
        with files.locked(run.path('.lock')):
            run.path('artifacts/log.txt').write_text('the first half, ')
            process = start_sync(tracker.token, run.workdir, '--follow')
            for step in (1, 2):  # one look at the run each
                write_rows(run, [step])
                assert tracker.wait_for(
                    lambda s=step: any(
                        len(sent.series.get('val/accuracy', ())) == s
                        for sent in tracker.runs.values()
                    ),
                    60,
                )
            time.sleep(0.5)
            (sent,) = tracker.runs.values()
            assert 'artifacts/log.txt' not in sent.files
            with run.path('artifacts/log.txt').open('a') as file:
                file.write('the second')
        status, _, errors = process.wait()
    assert (status, errors) == (0, '')
    assert sent.files['artifacts/log.txt'] == b'the first half, the second'


def test_a_frozen_server_costs_no_time_of_the_processor(make_run, start_sync, tmp_path):
    run, record = make_run(), tmp_path / 'record.json'
    with server.start(record) as tracker, files.locked(run.path('.lock')):
        process = start_sync(tracker.token, run.workdir, '--follow')
        while not run.path('sync/neptune.json').is_file():
            assert process.status is None
            time.sleep(0.05)
        tracker.send_signal(signal.SIGSTOP)
        write_rows(run, range(1, 11))
        time.sleep(3)  # it sends the rows, and waits
        before, began = cpu_seconds(process), time.monotonic()
        write_rows(run, range(11, 21))
        time.sleep(3)
        assert (cpu_seconds(process) - before) / (time.monotonic() - began) < 0.02


def cpu_seconds(process):
    fields = Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_a_server_that_has_it_all_already_is_content(make_run, sync):
    run = make_run()
    write_rows(run, range(1, 11))
    with server.serve() as tracker:
        assert sync(tracker.token, run.workdir)[0] == 0
        run.path('sync/neptune.json').unlink()
        status, _, errors = sync(tracker.token, run.workdir)
        (sent,) = tracker.runs.values()
    assert (status, errors) == (0, '')
    assert sent.series == expected_series(run.workdir)
    assert sent.rejected.total() == 50


def test_what_a_server_has_lost_is_sent_again(make_run, sync):
    run = make_run()
    write_rows(run, range(1, 11))
    with server.serve() as tracker:
        assert sync(tracker.token, run.workdir)[0] == 0
        tracker.runs.clear()
        assert sync(tracker.token, run.workdir)[0] == 0
        (sent,) = tracker.runs.values()
    assert sent.series == expected_series(run.workdir)
    assert sent.attributes['config/seed'] == 0
    assert list(sent.files) == ['artifacts/config.json']


def test_a_single_series_that_a_server_has_lost_is_sent_again(make_run, sync):
    run = make_run()
    write_rows(run, range(1, 11))
    with server.serve() as tracker:
        assert sync(tracker.token, run.workdir)[0] == 0
        (sent,) = tracker.runs.values()
        del sent.series['val/accuracy'], sent.kinds['val/accuracy']
        assert sync(tracker.token, run.workdir)[0] == 0
    assert sent.series == expected_series(run.workdir)


def test_a_run_is_followed_until_its_writer_ends(make_run, start_sync):
    run = make_run()
    with server.serve() as tracker:
        with files.locked(run.path('.lock')):
            write_rows(run, range(1, 11))
            process = start_sync(tracker.token, run.workdir, '--follow')

            def has_steps(count):
                return lambda: any(
                    len(sent.series.get('val/accuracy', ())) == count
                    for sent in tracker.runs.values()
                )

            assert tracker.wait_for(has_steps(10), 60)
            run.rewind(5)  # the run was killed, and resumed
            write_rows(run, range(6, 21))
            assert tracker.wait_for(has_steps(20), 60)
            assert process.status is None
            run.update_summary(status='finished')
        status, _, errors = process.wait()
        (sent,) = tracker.runs.values()
    assert (status, errors) == (0, '')
    values = {key: [point[2] for point in points] for key, points in sent.series.items()}
    expected = expected_series(run.workdir)
    assert values == {key: [point[2] for point in points] for key, points in expected.items()}
    assert sent.attributes['summary/status'] == 'finished'
    assert not sent.rejected


def test_the_best_checkpoint_and_the_load_are_sent_where_the_config_asks(make_run, start_sync):
    fields = {'upload_checkpoint': True, 'capture_hardware': True}
    run = make_run(config={'neptune': fields})
    for step in (10, 20):
        run.path(f'checkpoints/{step}').mkdir(parents=True)
        run.path(f'checkpoints/{step}/params').write_text(f'of step {step}')
        run.write(step, {'val/accuracy': 1 / step})
    with server.serve() as tracker:
        with files.locked(run.path('.lock')):
            process = start_sync(tracker.token, run.workdir, '--follow')
            assert tracker.wait_for(
                lambda: any(sent.series.get('monitoring/cpu') for sent in tracker.runs.values()),
                60,
            )
        status, _, errors = process.wait()
        (sent,) = tracker.runs.values()
    assert (status, errors) == (0, '')
    with zipfile.ZipFile(io.BytesIO(sent.files['artifacts/best_checkpoint.zip'])) as archive:
        assert archive.read('params') == b'of step 10'


def test_of_several_runs_one_that_cannot_be_sent_does_not_keep_the_others(make_run, sync, tmp_path):
    run = make_run()
    (tmp_path / 'empty').mkdir()
    with server.serve() as tracker:
        status, output, errors = sync(tracker.token, tmp_path / 'empty', run.workdir)
        assert len(tracker.runs) == 1
    assert status == 2
    assert errors == (
        f'error: {tmp_path}/empty: it holds no run: there is no config.json; to go on: '
        f'python -m neptune_jax.sync {tmp_path}/empty\n'
    )
    assert f'{run.workdir}: sent' in output


def test_what_the_client_left_behind_is_imported_and_sent(sync, tmp_path):
    script = """
import neptune
off = 'git_ref capture_stdout capture_stderr capture_hardware_metrics capture_traceback'
run = neptune.init_run(mode='offline', source_files=[], name='old', tags=['a', 'b'],
                       **dict.fromkeys(off.split(), False))
run['parameters/lr'] = 0.1
run['loss'].extend([3.0, 2.0, 1.0], steps=[1, 2, 5], timestamps=[10.0, 11.0, 12.5])
run['best'] = 1.0
run['notes'].upload(neptune.types.File.from_content('hello', extension='txt'))
run.stop()
"""
    status, output, errors = programs.Program(tmp_path, script).wait()
    assert status == 0, errors
    status, output, errors = sync(None, '--import-offline', '.neptune', '--out', 'imported')
    assert (status, errors) == (0, '')
    (workdir,) = tmp_path.glob('imported/*')
    assert output == (f'imported {workdir}; to send it: python -m neptune_jax.sync {workdir}\n')
    with server.serve() as tracker:
        status, _, errors = sync(tracker.token, workdir)
        (sent,) = tracker.runs.values()
    assert (status, errors) == (0, '')
    assert sent.series == {'loss': [(1, 10_000, 3.0), (2, 11_000, 2.0), (5, 12_500, 1.0)]}
    expected = {'config/lr': 0.1, 'summary/best': 1.0, 'summary/status': 'finished'}
    assert expected.items() <= sent.attributes.items()
    assert (sent.attributes['sys/name'], sent.attributes['sys/tags']) == ('old', ['a', 'b'])
    assert sent.files['artifacts/notes.txt'] == b'hello'


def test_a_run_that_another_process_sends_is_left_to_it(make_run, sync):
    run = make_run()
    run.path('sync').mkdir()
    with server.serve() as tracker, files.locked(run.path('sync/neptune.lock')):
        status, _, errors = sync(tracker.token, run.workdir)
    assert status == 2
    assert 'sends it already; wait for it; to go on: python -m neptune_jax.sync' in errors
    assert errors.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'no run directory given; try: python -m neptune_jax.sync runs/cnn'),
        (
            ('--to=wandb', '.'),
            "--to='wandb' is unknown; choose one of: neptune, tensorboard, mlflow",
        ),
        (('--to=os:nothing', '.'), "--to='os:nothing': os has no 'nothing'"),
        (('--fast',), "Unknown command line flag 'fast'"),
    ],
)
def test_a_wrong_command_line_is_one_line(sync_command, arguments, message):
    status, output, errors = sync_command(None, *arguments)
    assert (status, output) == (2, '')
    assert message in errors
    assert errors.count('\n') == 1


def test_nothing_that_trains_imports_a_tracker_or_tensorflow():
    code = (
        'import sys, neptune_jax.training.loop; '
        'print({"neptune", "tensorflow"} & sys.modules.keys())'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ('set()\n', '')


def test_the_client_is_imported_with_its_settings_and_without_what_it_does_not_need():
    code = """
import sys, neptune_jax.sync
from neptune_jax.tracking.sinks import neptune
neptune._import_client(is_loopback=False)
from neptune.common.backends.utils import retries_timeout  # seconds; read at the import
print(retries_timeout, {'jax', 'rfc3987_syntax.syntax_helpers'} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '10 set()\n'


def test_a_tracker_that_is_not_installed_is_named(make_run):
    arguments = ['sync', str(make_run().workdir), '--to=tensorboard']
    code = 'import runpy, sys; sys.modules["tensorboardX"] = None; '
    code += f'sys.argv = {arguments}; runpy.run_module("neptune_jax.sync", run_name="__main__")'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    message = '--to=tensorboard needs a package that is not installed (tensorboardX); pip install'
    assert message in done.stderr
