"""The test server, used by the real client in processes of its own."""

import signal
import time

import numpy as np
import pytest
from PIL import Image

from neptune_jax.testing import neptune_server as server
from tests.tracking import programs

SECONDS = 60

CLIENT = """
import datetime, math
import neptune

def init_run(**options):
    off = 'git_ref capture_stdout capture_stderr capture_hardware_metrics capture_traceback'
    return neptune.init_run(
        project='lab/images', custom_run_id='a run', mode='async', source_files=[],
        flush_period=0.1, **dict.fromkeys(off.split(), False), **options,
    )

def ask(question):
    channel.send(question)
    return channel.recv()
"""


@pytest.fixture
def client(tmp_path, environment):
    """Starts a script that begins with CLIENT, in an empty folder; returns the Program."""
    started = []

    def client(token, script):
        env = environment(token, OAUTHLIB_INSECURE_TRANSPORT='1')
        started.append(programs.Program(tmp_path, CLIENT + script, env=env))
        return started[-1]

    yield client
    for program in started:
        program.kill()


def finish(program):
    """Waits until a client has ended well; returns what it has printed."""
    status, output, errors = program.wait()
    assert status == 0, output + errors
    return output + errors


def test_all_that_is_sent_arrives(client, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'confusion.png')
    (tmp_path / 'model.bin').write_bytes(rng.bytes(int(3.5 * server.PART_SIZE)))
    with server.serve() as tracker:
        program = client(
            tracker.token,
            """
run = init_run(name='first', description='A CNN.', tags=['cnn', 'baseline'])
run['config/learning_rate'] = 0.002
run['config/steps'] = 2**31 - 1
run['config/name'] = 'größer'
run['config/ema'] = True
run['started'] = datetime.datetime(2026, 11, 22, 10, 30, 0, 125000, datetime.timezone.utc)
steps = [10 * k for k in range(1, 2001)]
for scale, key in enumerate(('train/loss', 'train/accuracy', 'val/loss'), start=1):
    values = [scale / step for step in steps]
    run[key].extend(values, steps=steps, timestamps=[1.79e9 + step / 8 for step in steps])
run['artifacts/confusion'].upload('confusion.png')
run['artifacts/model'].upload('model.bin')
run.stop()
""",
        )
        finish(program)
    assert list(tracker.runs) == ['a run']
    run = tracker.runs['a run']
    assert run.attributes == {
        'config/learning_rate': 0.002,
        'config/steps': 2**31 - 1,
        'config/name': 'größer',
        'config/ema': True,
        'started': '2026-11-22T10:30:00.125000+00:00',
        'sys/name': 'first',
        'sys/description': 'A CNN.',
        'sys/tags': ['baseline', 'cnn'],
        'sys/failed': False,
    }
    assert run.kinds['started'] == 'datetime'
    assert type(run.attributes['config/ema']) is bool
    steps = range(10, 20001, 10)
    assert run.series == {
        key: [(step, 1_790_000_000_000 + step * 125, scale / step) for step in steps]
        for scale, key in enumerate(('train/loss', 'train/accuracy', 'val/loss'), start=1)
    }
    assert run.files == {
        'artifacts/confusion': (tmp_path / 'confusion.png').read_bytes(),
        'artifacts/model': (tmp_path / 'model.bin').read_bytes(),
    }
    assert run.extensions == {'artifacts/confusion': 'png', 'artifacts/model': 'bin'}
    assert tracker.requests['fileAtomUpload'] == 1
    assert tracker.requests['fileAtomMultipartUploadPart'] == 4
    assert not run.rejected


def test_a_known_custom_id_continues_its_run_and_repeated_points_are_rejected(client):
    script = """
run = init_run()
steps = list(range({}))
run['train/loss'].extend(
    [1.0 + step for step in steps], steps=steps, timestamps=[100.0 + step for step in steps]
)
run.wait()
ask('now')
run.stop()
"""
    with server.serve() as tracker:
        first = client(tracker.token, script.format(100))
        first.receive()
        first.kill()
        second = client(tracker.token, script.format(150))
        second.receive()
        second.channel.send(None)
        finish(second)
    (run,) = tracker.runs.values()
    assert run.series == {
        'train/loss': [(step, 100_000 + 1000 * step, 1.0 + step) for step in range(150)]
    }
    assert run.rejected == {'train/loss': 100}


def test_the_client_prints_a_line_for_each_rejected_point_and_ends_well(client):
    with server.serve(executeOperations='reject') as tracker:
        program = client(
            tracker.token,
            """
run = init_run()
run['train/loss'].extend([3.0, 2.0, 1.0], steps=[1, 2, 3])
run['config/steps'] = 3
run.stop()
""",
        )
        output = finish(program)
    run = tracker.runs['a run']
    assert run.rejected == {'train/loss': 3}
    assert run.series == {'train/loss': []}
    assert run.attributes['config/steps'] == 3
    assert output.count('must be strictly increasing for series attribute: train/loss.') == 3


def test_what_is_not_finite_or_has_no_type_there_stays_with_the_client(client):
    with server.serve() as tracker:
        program = client(
            tracker.token,
            """
run = init_run()
run['some'].extend([1.0, math.nan, 2.0, math.inf, -math.inf], steps=[1, 2, 3, 4, 5])
run['none'].append(math.nan, step=1)
run['nan'] = math.nan
run['null'] = None
run['list'] = [1, 2]
run['long'] = 2**31
run.stop()
""",
        )
        output = finish(program)
    run = tracker.runs['a run']
    assert [(step, value) for step, _, value in run.series['some']] == [(1, 1.0), (3, 2.0)]
    assert run.kinds.keys() == {'some', 'sys/description', 'sys/failed'}  # not even 'none'
    assert not run.rejected
    # One warning a text: 'nan' in both series is one.
    assert output.count('will be skipped because') == 3
    assert output.count('[neptune] [error') == 0


def test_faults_at_the_start_end_in_exceptions(client):
    faults = {
        'html': 'JSONDecodeError',
        'redirect': 'HTTPFound',
        401: 'Unauthorized',
        403: 'Forbidden',
        503: 'NeptuneConnectionLostException',
    }
    with server.serve() as tracker:
        program = client(
            tracker.token,
            """
neptune.common.backends.utils.retries_timeout = 1  # $NEPTUNE_RETRIES_TIMEOUT at the import
said = ask('which fault')
while said != 'end':
    try:
        init_run().stop()
        said = ask('none')
    except Exception as error:
        said = ask(type(error).__name__)
""",
        )
        program.receive()
        answers = {}
        for fault in faults:
            tracker.set_faults(everything=fault)
            program.channel.send(fault)
            answers[fault] = program.receive()
        tracker.set_faults()
        program.channel.send('none')
        assert program.receive() == 'none'
        program.channel.send('end')
        finish(program)
    assert answers == faults


def test_silence_stops_the_client_until_it_ends(client):
    with server.serve(everything='silence') as tracker:
        program = client(tracker.token, 'init_run().stop()')
        assert tracker.wait_for(lambda: tracker.requests.total() == 1, SECONDS)
        assert not tracker.wait_for(lambda: tracker.requests.total() > 1, timeout=2)
        assert program.status is None
        tracker.set_faults()
        finish(program)
    assert list(tracker.runs) == ['a run']


TWO_VALUES = """
run = init_run()
run['config/steps'] = 1
run.wait()
ask('now')
run['config/steps'] = 2
run.wait()
run.stop()
"""


def test_a_fault_in_mid_run_delays_what_is_sent(client):
    with server.serve() as tracker:
        program = client(tracker.token, TWO_VALUES)
        program.receive()
        tracker.set_faults(executeOperations=503)
        before = tracker.requests['executeOperations']
        program.channel.send(None)
        assert tracker.wait_for(lambda: tracker.requests['executeOperations'] > before, SECONDS)
        assert tracker.runs['a run'].attributes['config/steps'] == 1
        tracker.set_faults()
        finish(program)
    assert tracker.runs['a run'].attributes['config/steps'] == 2


def test_a_server_that_is_killed_and_started_again_goes_on_with_what_it_had(client, tmp_path):
    record = tmp_path / 'record.json'
    with server.start(record) as first:
        program = client(
            first.token,
            """
run = init_run(tags=['cnn'])
run['started'] = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
run['train/loss'].append(2.0, step=1, timestamp=100)
run['artifacts/table'].upload(neptune.types.File.from_content('a,b', extension='csv'))
run.wait()
ask('now')
run['train/loss'].extend([2.0, 1.0], steps=[1, 2], timestamps=[100, 101])
run.wait()
run.stop()
""",
        )
        program.receive()
    before = server.read_record(record)['a run']
    assert before.series == {'train/loss': [(1, 100_000, 2.0)]}
    assert before.attributes['started'] == '2026-11-22T00:00:00+00:00'
    assert before.files == {'artifacts/table': b'a,b'}
    program.channel.send(None)
    with server.start(record, first.port) as second:
        assert second.token == first.token
        finish(program)
    after = server.read_record(record)['a run']
    assert after.series == {'train/loss': [(1, 100_000, 2.0), (2, 101_000, 1.0)]}
    assert after.rejected == {'train/loss': 1}
    after.series, after.rejected = before.series, before.rejected
    assert after == before


def test_a_frozen_server_answers_when_it_thaws(client, tmp_path):
    record = tmp_path / 'record.json'
    with server.start(record) as tracker:
        program = client(tracker.token, TWO_VALUES)
        program.receive()
        tracker.send_signal(signal.SIGSTOP)
        program.channel.send(None)
        time.sleep(2)
        assert program.status is None
        assert server.read_record(record)['a run'].attributes['config/steps'] == 1
        tracker.send_signal(signal.SIGCONT)
        finish(program)
    assert server.read_record(record)['a run'].attributes['config/steps'] == 2
