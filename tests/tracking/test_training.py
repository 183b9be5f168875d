"""Training, whatever happens to the server: it ends well, in time, with all its records here."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neptune_jax import defaults
from neptune_jax.data import feed as feeds
from neptune_jax.devices.preemption import Preemption
from neptune_jax.errors import Preempted
from neptune_jax.runs import files, reader, writer
from neptune_jax.testing import neptune_server as server
from neptune_jax.tracking import follow, replay
from neptune_jax.training import loop
from tests.stress.tracking import expected_series

pytestmark = pytest.mark.usefixtures('standard_promotion')

ROOT = Path(__file__).parents[2]
SHORT_WAIT = 1  # neptune.final_wait_seconds where a server never answers


def token(address):
    content = {'api_address': address, 'api_url': address, 'api_key': 'a key'}
    return base64.b64encode(json.dumps(content).encode()).decode()


@pytest.fixture
def tracked_config(config, monkeypatch):
    """A config whose records go to the server that $NEPTUNE_API_TOKEN will name."""
    monkeypatch.setenv('NEPTUNE_PROJECT', 'lab/images')
    config.neptune.final_wait_seconds = 60
    config.train.steps = 12
    return config


@pytest.fixture
def at_step(monkeypatch):
    """Makes a training do something before it takes a step."""

    def at_step(step, action):
        create_feed = feeds.create

        def create_feed_that_acts(dataset, parallel):
            feed = create_feed(dataset, parallel)

            def batches(order, start, *args):
                for number, item in enumerate(feed.batches(order, start, *args), start + 1):
                    if number == step:
                        action()
                    yield item

            return feed._replace(batches=batches)

        monkeypatch.setattr(feeds, 'create', create_feed_that_acts)

    return at_step


def train_and_check(config, workdir, capsys):
    """Trains; checks that all is well here, and in time. Returns the last line it says."""
    loop.train_and_evaluate(config, workdir)
    late = time.time() - (workdir / 'summary.json').stat().st_mtime
    assert late < config.neptune.final_wait_seconds + 3
    assert reader.read_summary(workdir)['status'] == 'finished'
    steps = [row['step'] for row in reader.read_rows(workdir) if 'train/loss' in row]
    assert steps == [2, 3, 4, 6, 8, 9, 10, 12]
    return capsys.readouterr().out.splitlines()[-1]


def closed_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


# $NEPTUNE_API_TOKEN, and the message that says why nothing can be sent.
UNREACHABLE = {
    'no token': ('', 'NEPTUNE_API_TOKEN is not set'),
    'malformed token': ('abc', 'NEPTUNE_API_TOKEN is malformed'),
    'token without a server': (token(''), 'NEPTUNE_API_TOKEN names no server'),
    'hosted': (token('https://app.neptune.ai'), 'hosted Neptune closed on 2026-03-05'),
    'hosted, bare': (token('https://neptune.ai'), 'hosted Neptune closed on 2026-03-05'),
    'no such name': (token('http://neptune.invalid'), 'http://neptune.invalid cannot be reached'),
    'closed port': (token(f'http://127.0.0.1:{closed_port()}'), 'Connection refused'),
}
# The request that a server does not answer properly, how it answers, and the message.
FAULTS = {
    'silence': ('everything', 'silence', 'does not answer'),
    'page': ('everything', 'html', 'does not answer as a Neptune server does'),
    'redirect': ('everything', 'redirect', 'answers with a redirect to'),
    '401': ('everything', 401, 'refuses the account (status 401); check NEPTUNE_API_TOKEN'),
    '403': ('everything', 403, 'refuses the account (status 403); check NEPTUNE_API_TOKEN'),
    '503': ('everything', 503, 'answers with status 503'),
    '401 for the token': ('exchangeApiToken', 401, 'refuses the account'),
    '403 for the project': ('getProject', 403, 'refuses the account (Forbidden)'),
    'silence after hello': ('getProject', 'silence', 'not all is sent'),
    'refused points': ('executeOperations', 'reject', 'must be strictly increasing for series'),
}


def open_case(case, stack):
    """Returns the token and the message of a case; its server runs until the stack is closed."""
    if case in UNREACHABLE:
        return UNREACHABLE[case]
    request, fault, message = FAULTS[case]
    return stack.enter_context(server.serve(**{request: fault})).token, message


def test_servers_that_do_not_take_the_run(tmp_path, monkeypatch, capsys):
    """All cases at once, because they wait most of the time; with rows instead of a training."""
    config = defaults.get_config().neptune
    config.mode = 'online'
    monkeypatch.setenv('NEPTUNE_PROJECT', 'lab/images')
    messages, waits, followers = {}, {}, {}
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as writing:
            for case in (*UNREACHABLE, *FAULTS):
                token, messages[case] = open_case(case, stack)
                run = writer.Run(tmp_path / case)
                run.path('artifacts').mkdir(parents=True)
                files.write_json(run.path('config.json'), {'seed': 0})
                writing.enter_context(files.locked(run.path('.lock')))
                writing.callback(run.close)
                monkeypatch.setenv('NEPTUNE_API_TOKEN', token)
                waits[case] = SHORT_WAIT if messages[case] == 'not all is sent' else 60
                config.final_wait_seconds = waits[case]
                followers[case] = stack.enter_context(contextlib.ExitStack())
                followers[case].enter_context(
                    follow.tracked(config.copy_and_resolve_references(), run.workdir, Preemption())
                )
                for step in range(1, 11):
                    run.write(step, {'train/loss': 1 / step})
        capsys.readouterr()
        for case, follower in followers.items():
            began = time.monotonic()
            follower.close()
            assert time.monotonic() - began < waits[case] + 3, case
            (printed,) = capsys.readouterr().out.splitlines()
            assert messages[case] in printed, case
            assert printed.endswith(f'; to go on: {replay.command(tmp_path / case)}'), case


@pytest.mark.parametrize('case', ['closed port', 'silence after hello', 'refused points'])
def test_a_training_whose_server_does_not_take_the_run(
    tracked_config, tmp_path, monkeypatch, capsys, case
):
    with contextlib.ExitStack() as stack:
        token, message = open_case(case, stack)
        if message == 'not all is sent':
            tracked_config.neptune.final_wait_seconds = SHORT_WAIT
        monkeypatch.setenv('NEPTUNE_API_TOKEN', token)
        last = train_and_check(tracked_config, tmp_path / 'run', capsys)
    assert message in last
    assert last.endswith(f'; to go on: python -m neptune_jax.sync {tmp_path}/run')


def points_of(tracker):
    """How many points a server has of its only run."""
    return sum(len(points) for run in tracker.runs.values() for points in run.series.values())


@pytest.mark.parametrize(
    ('fault', 'message'),
    [(401, 'refuses the account'), (503, 'not all is sent'), ('silence', 'not all is sent')],
)
def test_a_server_that_changes_its_mind_in_mid_run(
    tracked_config, tmp_path, monkeypatch, capsys, at_step, sync, fault, message
):
    if message == 'not all is sent':
        tracked_config.neptune.final_wait_seconds = SHORT_WAIT
    with server.serve() as tracker:
        monkeypatch.setenv('NEPTUNE_API_TOKEN', tracker.token)

        def change_mind():
            assert tracker.wait_for(lambda: points_of(tracker) > 0, 60)
            tracker.set_faults(everything=fault)

        at_step(5, change_mind)
        last = train_and_check(tracked_config, tmp_path / 'run', capsys)
        assert message in last
        assert last.endswith(f'; to go on: python -m neptune_jax.sync {tmp_path}/run')
        tracker.set_faults()
        status, _, errors = sync(tracker.token, tmp_path / 'run')
        assert (status, errors) == (0, '')
        (sent,) = tracker.runs.values()
    assert sent.series == expected_series(tmp_path / 'run')
    assert sent.attributes['summary/status'] == 'finished'


@pytest.mark.parametrize('number', [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_that_is_frozen_or_killed_in_mid_run(
    tracked_config, tmp_path, monkeypatch, capsys, at_step, sync, number
):
    record = tmp_path / 'record.json'
    tracked_config.neptune.final_wait_seconds = SHORT_WAIT
    with server.start(record) as tracker:
        monkeypatch.setenv('NEPTUNE_API_TOKEN', tracker.token)
        at_step(5, lambda: (wait_for_points(record), tracker.send_signal(number)))
        last = train_and_check(tracked_config, tmp_path / 'run', capsys)
        assert (
            last == f'neptune  not all is sent; to go on: python -m neptune_jax.sync {tmp_path}/run'
        )
    with server.start(record, tracker.port) as tracker:
        status, _, errors = sync(tracker.token, tmp_path / 'run')
    assert (status, errors) == (0, '')
    (sent,) = server.read_record(record).values()
    assert sent.series == expected_series(tmp_path / 'run')


def wait_for_points(record):
    """Returns when a server in another process has got points."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if any(run.series for run in server.read_record(record).values()):
                return
        time.sleep(0.05)
    raise AssertionError('the server has got nothing')


def test_a_server_that_comes_late_or_comes_back_gets_it_all(
    tracked_config, tmp_path, monkeypatch, capsys, at_step
):
    record = tmp_path / 'record.json'
    with contextlib.ExitStack() as servers:
        port = closed_port()
        monkeypatch.setenv('NEPTUNE_API_TOKEN', token(f'http://127.0.0.1:{port}'))
        log = tmp_path / 'run/sync/neptune.log'

        def come_and_go():
            wait_until(lambda: log.is_file() and 'trying again' in log.read_text())
            with server.start(record, port):
                wait_for_points(record)
            servers.enter_context(server.start(record, port))

        at_step(5, come_and_go)
        loop.train_and_evaluate(tracked_config, tmp_path / 'run')
    assert ': sent ' in capsys.readouterr().out.splitlines()[-1]
    (sent,) = server.read_record(record).values()
    assert sent.series == expected_series(tmp_path / 'run')
    assert sent.attributes['summary/status'] == 'finished'


def wait_until(predicate):
    deadline = time.monotonic() + 60
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_offline_and_disabled_start_nothing(tracked_config, tmp_path, capsys, monkeypatch):
    loop.train_and_evaluate(tracked_config, tmp_path / 'auto')
    line = f'neptune  offline; to send the records: python -m neptune_jax.sync {tmp_path}/auto'
    assert line in capsys.readouterr().out.splitlines()
    monkeypatch.setenv('NEPTUNE_API_TOKEN', 'malformed')
    tracked_config.neptune.mode = 'offline'
    with follow.tracked(tracked_config.neptune, tmp_path / 'offline', Preemption()):
        assert 'neptune  offline' in capsys.readouterr().out
    tracked_config.neptune.mode = 'disabled'
    with follow.tracked(tracked_config.neptune, tmp_path / 'disabled', Preemption()):
        pass
    assert capsys.readouterr().out == ''
    assert not list(tmp_path.glob('*/sync'))


def test_what_the_config_asks_for_is_kept_and_sent_and_nothing_else(
    tracked_config, tmp_path, monkeypatch, capsys
):
    fields = ('capture_stdout', 'capture_source', 'capture_git_diff')
    tracked_config.neptune.update(dict.fromkeys(fields, True) | {'name': 'first', 'tags': ('a',)})
    with server.serve() as tracker:
        monkeypatch.setenv('NEPTUNE_API_TOKEN', tracker.token)
        loop.train_and_evaluate(tracked_config, tmp_path / 'run')
        (sent,) = tracker.runs.values()
    printed = capsys.readouterr().out
    artifacts = {'stdout.txt', 'source.zip', 'git.diff', 'config.json', 'worst_mistakes.png'}
    artifacts |= {'confusion_matrix.csv', 'confusion_matrix.png', 'learning_curves.png'}
    artifacts |= {'classification_report.csv', 'predictions.npz', 'reliability_diagram.png'}
    assert {*sent.files} == {f'artifacts/{name}' for name in artifacts}
    text = sent.files['artifacts/stdout.txt'].decode()
    assert [line for line in text.splitlines() if line.startswith('step')] == [
        line for line in printed.splitlines() if line.startswith('step')
    ]
    assert {key.split('/')[0] for key in sent.kinds} == {
        *('config', 'environment', 'summary', 'artifacts', 'train', 'val', 'sys', 'source_code')
    }
    assert (sent.attributes['sys/name'], sent.attributes['sys/tags']) == ('first', ['a'])


def test_where_no_process_can_be_started_the_run_goes_on(
    tracked_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('NEPTUNE_API_TOKEN', token('http://127.0.0.1:9'))
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'no_python'))
    (tmp_path / 'run').mkdir()
    with follow.tracked(tracked_config.neptune, tmp_path / 'run', Preemption()):
        assert 'neptune  offline ([Errno 2]' in capsys.readouterr().out


def test_a_preempted_run_does_not_wait(tracked_config, tmp_path, monkeypatch, capsys, at_step):
    with server.serve(everything='silence') as tracker:
        monkeypatch.setenv('NEPTUNE_API_TOKEN', tracker.token)
        tracked_config.neptune.final_wait_seconds = 1000
        at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            loop.train_and_evaluate(tracked_config, tmp_path / 'run')
    assert 'goes on sending' in capsys.readouterr().out.splitlines()[-1]


def test_the_command_ends_well_and_in_time_and_is_not_heard_of_again(tmp_path, data_dir):
    fields = {  # as in the fixture `config`, whose programs are compiled already
        'data.name': 'fashion_mnist_mini',
        'data.dir': data_dir,
        'model.features': '4,8',
        'train.batch_size': 64,
        'train.steps': 12,
        'eval.batch_size': 200,
        'eval.every': '3 steps',
        'parallel.num_devices': 2,
        'neptune.final_wait_seconds': 1,
    }
    flags = ['--config=configs/cnn.py', f'--workdir={tmp_path}/run']
    flags += [f'--config.{name}={value}' for name, value in fields.items()]
    with server.serve(getProject='silence') as tracker:
        done = subprocess.run(
            [sys.executable, '-m', 'neptune_jax.main', *flags],
            cwd=ROOT,
            env=os.environ | {'NEPTUNE_API_TOKEN': tracker.token, 'NEPTUNE_PROJECT': 'lab/images'},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, '')
        last = done.stdout.splitlines()[-1]
        assert (
            last == f'neptune  not all is sent; to go on: python -m neptune_jax.sync {tmp_path}/run'
        )
        # Nobody is left that sends.
        with files.locked(tmp_path / 'run/sync/neptune.lock'):
            pass
