import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from neptune_jax.errors import UserError
from neptune_jax.runs import reader
from neptune_jax.tracking.offline import importing
from tests.tracking import programs

ROOT = Path(__file__).parents[2]

# The real client writes the queues, in processes of its own: it is never imported here.
START = """
import datetime, os, signal
import neptune
from neptune.types import File, FloatSeries

def init(**options):
    return neptune.init_run(
        mode='offline', capture_stdout=False, capture_stderr=False, capture_hardware_metrics=False,
        capture_traceback=False, git_ref=False, source_files=[], **options)
"""

EVERYTHING = """
run = init(name='baseline', tags=['cnn', 'mnist'])
run['config'] = {'optim': {'lr': 0.1}, 'seed': 7, 'amp': False, 'notes': 'a/b \\u00e9'}
run['parameters/batch_size'] = 128
run['parameters/seed'] = 8
run['started'] = datetime.datetime(2026, 1, 2, 3, 4, 5, 678900)
run['status'] = 'mine'
run['test/accuracy'] = 0.75
run['big_int'] = 2**40  # beyond 32 bits: the client drops it
run['deleted'] = 1
del run['deleted']
run['models'].add(['a', 'b', 'c'])
run['models'].remove('b')
run['train/loss'].append(0.5, step=1, timestamp=1790000000.125)
run['train/loss'].append(float('nan'), step=2, timestamp=1790000001)  # dropped, too
run['train/loss'].append(0.25, step=3, timestamp=1790000003.5)
run['train/loss'].append(0.125, step=3.5, timestamp=1790000004)
run['train/loss'].append(9.0, step=3, timestamp=1790000005)  # goes back
run['train/loss'].append(9.0, step=3.5, timestamp=1790000005)  # stays
run['val/accuracy'].extend(
    [0.1, 0.75], steps=[1, 3], timestamps=[1789999999.5, 1790000009])
run['time'].append(5.0, step=1, timestamp=1790000000.5)
run['counted'].extend([4.0, 5.0], timestamps=[1790000020, 1790000021])
run['written_again'].append(1.0, step=9, timestamp=1790000000)
run['written_again'] = FloatSeries(
    [2.0], steps=[4], timestamps=[1790000030], min=0, max=3, unit='m')
run['lines'].extend(['one', 'two\\n'], steps=[1, 5], timestamps=[1790000000, 1790000001])
run['figures/curve'].upload('curve.png')
run['figures/array'].upload(File('array.png'))
run['notes'].upload(File.from_content('h\\u00e9llo', extension='txt'))
run['gone'].upload('gone.txt')
run['source'].upload_files(['code/**/*.py', '*.nothing'])
run['elsewhere'].upload_files('../elsewhere')
run['samples'].append(File('curve.png'), step=3, timestamp=1790000000.5, name='n', description='d')
run['data'].track_files('curve.png')
run.stop()
second = init(name='baseline')
second['x'] = 1
second.stop()
nameless = init()
nameless['x'] = 2
nameless.stop()
"""

SERIES = "    run['train/loss'].append(i / 7, step=i, timestamp=1790000000 + i)\n"


def run_client(folder, code, status=0):
    """Runs a program with the client in a folder, which ends with an exit status."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(('NEPTUNE', 'PYTHONWARN'))}
    program = programs.Program(folder, START + code, env=environ | {'TZ': 'Asia/Tokyo'})
    ended = program.wait()
    assert ended[0] == status, ended


def make_queue(folder, *operations, put=None, end=''):
    """Writes a queue as the client does, without it."""
    folder.mkdir(parents=True)
    lines = [
        json.dumps({'obj': operation, 'version': i, 'at': 1790000000.0 + i})
        for i, operation in enumerate(operations, 1)
    ]
    (folder / 'data-1.log').write_text(''.join(line + '\n' for line in lines) + end)
    (folder / 'last_put_version').write_text(str(len(lines) if put is None else put))
    (folder / 'last_ack_version').write_text('')
    return folder


def assign(key, value, kind='String'):
    return {'type': f'Assign{kind}', 'path': key.split('/'), 'value': value}


def log(key, *points):
    values = [{'step': step, 'ts': ts, 'value': value} for step, ts, value in points]
    return {'type': 'LogFloats', 'path': key.split('/'), 'values': values}


def upload(key, path, ext=''):
    return {'type': 'UploadFile', 'path': key.split('/'), 'ext': ext, 'file_path': str(path)}


def load(path):
    return json.loads(path.read_text())


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A folder in which the client wrote three runs, imported into `runs`."""
    folder = tmp_path_factory.mktemp('written') / 'home'
    (folder / 'code/inner').mkdir(parents=True)
    (folder.parent / 'elsewhere').mkdir()
    Image.new('RGB', (4, 3), (1, 2, 3)).save(folder / 'curve.png')
    Image.new('L', (2, 2), 9).save(folder / 'array.png')
    (folder / 'gone.txt').write_text('soon gone')
    (folder / 'code/a.py').write_text('a = 1')
    (folder / 'code/inner/b.py').write_text('b = 1')
    (folder.parent / 'elsewhere/c.py').write_text('c = 1')
    run_client(folder, EVERYTHING)
    (folder / 'gone.txt').unlink()
    os.utime(folder / 'array.png')
    before = contents(folder / '.neptune')
    targets = importing.import_offline(folder / '.neptune', folder / 'runs')
    assert contents(folder / '.neptune') == before
    assert sorted(targets) == sorted((folder / 'runs').iterdir())
    return folder


@pytest.fixture
def baseline(written):
    """The directory of the run that has everything."""
    (path,) = (path.parent for path in written.glob('runs/baseline-*/artifacts/notes.txt'))
    return path.parent


def test_points_of_one_step_become_one_row(baseline):
    assert reader.read_rows(baseline) == [
        {'step': 0, 'time': 1790000020, 'counted': 4.0},
        {
            'step': 1,
            'time': 1789999999.5,
            'train/loss': 0.5,
            'val/accuracy': 0.1,
            'time_': 5.0,
            'counted': 5.0,
        },
        {'step': 3, 'time': 1790000003.5, 'train/loss': 0.25, 'val/accuracy': 0.75},
        {'step': 3.5, 'time': 1790000004, 'train/loss': 0.125},
        {'step': 4, 'time': 1790000030, 'written_again': 2.0},
    ]
    assert load(baseline / 'import.json')['points_left_out'] == {'train/loss': 2}


def test_values_become_the_config_or_the_summary(baseline):
    assert load(baseline / 'config.json') == {
        'neptune': {'name': 'baseline', 'description': '', 'tags': ['cnn', 'mnist']},
        'optim': {'lr': 0.1},
        'seed': 7,
        'amp': False,
        'notes': 'a/b \u00e9',
        'batch_size': 128,
        'parameters': {'seed': 8},
    }
    assert load(baseline / 'summary.json') == {
        'status': 'finished',
        'status_': 'mine',
        'test': {'accuracy': 0.75},
        'started': '2026-01-01T18:04:05.678+00:00',
        'models': ['a', 'c'],
    }


def test_files_images_and_texts_become_artifacts(baseline, written):
    files = contents(baseline / 'artifacts')
    del files['samples/3.png']
    with Image.open(baseline / 'artifacts/samples/3.png') as sample:
        assert sample.getpixel((3, 2)) == (1, 2, 3)
    lines = files.pop('lines.jsonl').splitlines()
    assert [json.loads(line) for line in lines] == [
        {'step': 1, 'time': 1790000000, 'value': 'one'},
        {'step': 5, 'time': 1790000001, 'value': 'two\n'},
    ]
    elsewhere = (written.parent / 'elsewhere/c.py').relative_to('/')
    assert files == {
        'figures/curve.png': (written / 'curve.png').read_bytes(),
        'figures/array.png': (written / 'array.png').read_bytes(),
        'notes.txt': 'h\u00e9llo'.encode(),
        'source/code/a.py': b'a = 1',
        'source/code/inner/b.py': b'b = 1',
        f'elsewhere/{elsewhere}': b'c = 1',
    }


def test_the_import_says_what_is_lost_and_where_the_rest_comes_from(baseline, written):
    found = load(baseline / 'import.json')
    (queue,) = found['queues']
    folder = Path(queue['folder'])
    assert folder.parent == written / '.neptune/offline'
    assert folder.name.split('__')[1] == found['container']
    assert queue['operations'] == len((folder / 'data-1.log').read_text().splitlines())
    assert queue['operations_lost'] == queue['lines_repeated'] == queue['lines_unreadable'] == 0
    assert found['operations_left_out'] == {'ConfigFloatSeries': 1, 'TrackFilesToArtifact': 1}
    assert [(lost['attribute'], lost['file'], lost['reason']) for lost in found['files_lost']] == [
        ('gone', str(written / 'gone.txt'), 'there is no such file'),
        ('source', str(written / '*.nothing'), 'there is no such file'),
    ]
    artifacts = found['artifacts']
    assert artifacts.keys() == contents(baseline / 'artifacts').keys()
    assert [name for name in artifacts if 'changed_since' in artifacts[name]] == [
        'figures/array.png'
    ]
    assert artifacts['samples/3.png'] == {
        'attribute': 'samples',
        'step': 3,
        'time': 1790000000.5,
        'name': 'n',
        'description': 'd',
    }
    environment = load(baseline / 'environment.json')
    assert environment['packages']['neptune'].startswith('1.')
    assert sys.version.startswith(environment['python'])


def test_runs_of_one_name_and_a_run_without_one_have_directories(baseline, written):
    names = {load(path / 'summary.json').get('x'): path.name for path in written.glob('runs/*')}
    ids = {
        x: load(written / 'runs' / name / 'import.json')['container'] for x, name in names.items()
    }
    assert names == {
        None: f'baseline-{ids[None][:8]}',
        1: f'baseline-{ids[1][:8]}',
        2: f'run-{ids[2][:8]}',
    }
    assert load(written / 'runs' / names[2] / 'config.json')['neptune']['name'] == names[2]


def test_importing_again_changes_nothing(baseline, written, tmp_path):
    before = contents(written / 'runs')
    importing.import_offline(written / '.neptune', written / 'runs')
    assert contents(written / 'runs') == before
    # What was copied stays where its original is gone; another import misses it.
    shutil.copytree(written / 'runs', tmp_path / 'runs')
    moved = ('curve.png', 'code')
    for name in moved:
        (written / name).rename(tmp_path / name)
    try:
        importing.import_offline(written / '.neptune', tmp_path / 'runs')
        importing.import_offline(written / '.neptune', tmp_path / 'late')
    finally:
        for name in moved:
            (tmp_path / name).rename(written / name)
    assert contents(tmp_path / 'runs') == before
    lost = load(tmp_path / 'late' / baseline.name / 'import.json')['files_lost']
    assert [os.path.relpath(entry['file'], written) for entry in lost] == [
        'curve.png',
        'gone.txt',
        'code/**/*.py',
        '*.nothing',
    ]


def test_a_fork_leaves_two_queues_of_one_run(tmp_path):
    code = f"""
run = init()
for i in range(200):
{SERIES}
run['counted'].append(1.0, timestamp=1790000000)
child = os.fork()
if not child:
    run['child/loss'].append(0.5, step=2, timestamp=1790000002)
    run['counted'].append(2.0, timestamp=1790000000.5)
    run.stop()
    os._exit(0)
os.waitpid(child, 0)
run['counted'].append(3.0, timestamp=1790000003)
run.stop()
"""
    run_client(tmp_path, code)
    assert len(list((tmp_path / '.neptune/offline').iterdir())) == 2
    (target,) = importing.import_offline(tmp_path / '.neptune', tmp_path / 'runs')
    rows = [{'step': i, 'time': 1790000000 + i, 'train/loss': i / 7} for i in range(200)]
    rows[0] |= {'counted': 1.0}
    rows[1] |= {'counted': 2.0, 'time': 1790000000.5}
    rows[2] |= {'counted': 3.0, 'child/loss': 0.5}
    assert reader.read_rows(target) == rows
    found = load(target / 'import.json')
    parent, child = found['queues']
    assert found['points_left_out'] == found['operations_left_out'] == {}
    # The child wrote once more, into its parent's queue, what the parent had not flushed. How much
    # that is depends on when the client last flushed.
    assert parent['lines_repeated'] > 0
    assert child['operations'] == 2
    assert load(target / 'summary.json')['status'] == 'finished'

    before = contents(target)
    with pytest.raises(UserError, match='an earlier import had more of'):
        importing.import_offline(child['folder'], tmp_path / 'runs')
    assert contents(target) == before


@pytest.mark.parametrize(('lost_in', 'status'), [('child', 'finished'), ('parent', 'failed')])
def test_a_forked_run_ended_as_the_process_that_wrote_last(tmp_path, lost_in, status):
    # The child wrote until second 2, its parent until second 5.
    lasts = {'parent': 5, 'child': 2}
    for number, (name, last) in enumerate(lasts.items()):
        points = [log(f'{name}/loss', (step, 0, 0.5)) for step in range(last)]
        folder = make_queue(
            tmp_path / f'.neptune/offline/run__one__{number}__{name}',
            *points,
            put=last + 4 * (name == lost_in),
        )
        metadata = {'containerId': 'one', 'createdAt': f'2026-01-01 00:00:0{number}'}
        (folder / 'metadata.json').write_text(json.dumps(metadata))
    (target,) = importing.import_offline(tmp_path / '.neptune', tmp_path / 'runs')
    assert [queue['operations'] for queue in load(target / 'import.json')['queues']] == [5, 2]
    summary = load(target / 'summary.json')
    assert summary['status'] == status
    if status == 'failed':
        assert summary['error'].endswith('operations that never reached the disk: 4')


def test_a_killed_run_ends_where_its_queue_does(tmp_path):
    code = f"""
run = init(name='killed')
for i in range(1000):
{SERIES}
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_client(tmp_path, code, status=-signal.SIGKILL)
    (queue,) = (tmp_path / '.neptune/offline').iterdir()
    (target,) = importing.import_offline(tmp_path / '.neptune', tmp_path / 'runs')
    rows = reader.read_rows(target)
    lost = 1000 - len(rows)
    assert 0 < lost < 100
    assert rows == [
        {'step': i, 'time': 1790000000 + i, 'train/loss': i / 7} for i in range(len(rows))
    ]
    assert load(target / 'summary.json') == {
        'status': 'failed',
        'error': f'killed, or still running; operations that never reached the disk: {lost}',
    }
    # The last line is torn, as a system that is cut off tears it.
    data = (queue / 'data-1.log').read_bytes()
    (queue / 'data-1.log').write_bytes(data[:-50])
    with pytest.raises(UserError, match='an earlier import had more of'):
        importing.import_offline(queue, tmp_path / 'runs')
    assert reader.read_rows(target) == rows
    (target,) = importing.import_offline(queue, tmp_path / 'others')
    assert reader.read_rows(target) == rows[:-1]
    (found,) = load(target / 'import.json')['queues']
    assert found['operations_lost'] == lost + 1
    assert found['lines_unreadable'] == 1


def test_a_run_that_raised_is_failed(tmp_path):
    code = """
run = neptune.init_run(mode='offline', capture_hardware_metrics=False, git_ref=False)
raise ValueError('no such\\n  layer')
"""
    # How Python itself ends is part of this.
    fast = "import sys; sys.modules['rfc3987_syntax'] = None\n"  # halves the time of the import
    command = [sys.executable, '-c', fast + START + code]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    (target,) = importing.import_offline(tmp_path / '.neptune', tmp_path / 'runs')
    summary = load(target / 'summary.json')
    assert (summary['status'], summary['error']) == ('failed', 'no such layer')


def test_a_queue_in_several_logs_that_a_server_had_begun_to_take(tmp_path):
    folder = tmp_path / '.neptune/async/run__some-id__12__abc'
    folder.mkdir(parents=True)
    code = f"""
import threading
from pathlib import Path
from neptune.core.components.queue.disk_queue import DiskQueue
from neptune.internal.operation import LogFloats, Operation
queue = DiskQueue(
    Path({str(folder)!r}), lambda op: op.to_dict(), Operation.from_dict, threading.RLock(), 2000)
for i in range(150):
    queue.put(LogFloats(['loss'], [LogFloats.ValueType(i / 7, i, 1790000000 + i)]))
queue.flush()
queue.ack(70)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_client(tmp_path, code, status=-signal.SIGKILL)
    logs = sorted(int(path.stem[5:]) for path in folder.glob('data-*.log'))
    assert 1 < logs[0] <= 70 < logs[1] < 100 < logs[-1]
    (target,) = importing.import_offline(tmp_path / '.neptune', tmp_path / 'runs')
    assert [(row['step'], row['loss']) for row in reader.read_rows(target)] == [
        (i, i / 7) for i in range(logs[0] - 1, 150)
    ]
    (queue,) = load(target / 'import.json')['queues']
    assert queue['operations_sent'] == 70
    assert queue['operations_lost'] == 0


def test_what_is_not_understood_is_counted(tmp_path):
    queue = make_queue(
        tmp_path / 'queue',
        {'type': 'Teleport', 'path': ['a']},
        {'type': 'AssignFloat', 'path': 7, 'value': 1},
        assign('b', ['list']),
        {'type': 'AssignInt', 'path': ['c']},
        log('e', (0, 1.0, 2.0), (1, 1.5, 3), (2, 2.0, math.inf), (3, 3.0, math.nan)),
        log('e', (4, None, 2.0)),
        log('e', (math.nan, 3.0, 1)),
        {'type': 'CopyAttribute', 'path': ['f'], 'container_id': 'x'},
        assign('g', 10**400, 'Datetime'),
        {'type': 'LogImages', 'path': ['h'], 'values': [{'ts': 1, 'value': {'data': ''}}]},
        assign('i', 'kept'),
        end='null\n{"obj": {"type": "AssignInt", "pa\n' + '[' * 100_000 + '\n{"obj": ',
        put=14,
    )
    (target,) = importing.import_offline(queue, tmp_path / 'runs')
    assert (target / 'metrics.jsonl').read_text() == (
        '{"step": 0, "time": 1.0, "e": 2.0}\n'
        '{"step": 1, "time": 1.5, "e": 3.0}\n'
        '{"step": 2, "time": 2.0, "e": "Infinity"}\n'
        '{"step": 3, "time": 3.0, "e": "NaN"}\n'
    )
    assert load(target / 'summary.json') == {
        'status': 'failed',
        'error': 'killed, or still running; operations that never reached the disk: 3',
        'i': 'kept',
    }
    found = load(target / 'import.json')
    assert found['operations_left_out'] == {
        'Teleport': 1,
        'AssignString': 1,
        'AssignInt': 1,
        'LogFloats': 2,
        'CopyAttribute': 1,
        'AssignDatetime': 1,
        'LogImages': 1,
    }
    assert found['queues'][0]['lines_unreadable'] == 5


def test_a_run_killed_early_leaves_how_much_it_lost(tmp_path):
    queue = make_queue(tmp_path / 'queue', put=27)
    (target,) = importing.import_offline(queue, tmp_path / 'runs')
    assert target == tmp_path / 'runs/run-queue'
    assert reader.read_rows(target) == []
    assert load(target / 'summary.json')['status'] == 'failed'
    assert load(target / 'import.json')['queues'][0]['operations_lost'] == 27


def test_names_from_a_queue_stay_inside(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('a')
    queue = make_queue(
        tmp_path / 'run__..__1__x',
        assign('sys/name', '../../up/my run'),
        upload('../../x', path, '../y'),
        upload('/etc/x', path),
        upload('a', path, 'b'),
        upload('a.b', path),
        upload('.b/\0\ud800\n', path),
        upload('x' * 300, path),
        upload('zero', '/dev/zero'),
        upload('nul', '\0'),
        assign('v', 1, 'Int'),
        assign('v/w/x', 2, 'Int'),
        assign('config/neptune', 'mine'),
    )
    (target,) = importing.import_offline(queue, tmp_path / 'runs')
    assert target == tmp_path / 'runs/__.._up_my run-_'
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name, 'run__..__1__x', 'runs']
    assert contents(target / 'artifacts').keys() == {
        '_/_/x.../y',
        '_/etc/x',
        'a.b',
        'a_.b',
        '_b/___',
    }
    lost = [entry['attribute'] for entry in load(target / 'import.json')['files_lost']]
    assert lost == ['x' * 300, 'zero', 'nul']
    assert load(target / 'summary.json') == {'status': 'finished', 'v': 1, 'v/w/x': 2}
    config = load(target / 'config.json')
    assert config['neptune_'] == 'mine'
    assert config['neptune']['name'] == '../../up/my run'


def test_a_directory_of_something_else_is_refused(tmp_path):
    queue = make_queue(tmp_path / 'queue', assign('sys/name', 'taken'))
    taken = tmp_path / 'runs/taken-queue'
    taken.mkdir(parents=True)
    (taken / 'config.json').write_text('{}')
    with pytest.raises(UserError, match=r'taken-queue exists and is no import of .*queue; move'):
        importing.import_offline(queue, tmp_path / 'runs')
    assert contents(taken) == {'config.json': b'{}'}


def test_a_queue_that_grows_is_brought_up_to_date(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('then')
    operations = [log('loss', (0, 1.0, 2.0)), upload('a', path, 'txt')]
    importing.import_offline(make_queue(tmp_path / 'queue', *operations), tmp_path / 'runs')
    shutil.rmtree(tmp_path / 'queue')
    path.write_text('now')
    operations += [log('loss', (1, 2.0, 3.0)), assign('sys/name', 'named at last')]
    make_queue(tmp_path / 'queue', *operations)
    (target,) = importing.import_offline(tmp_path / 'queue', tmp_path / 'runs')
    assert target == tmp_path / 'runs/run-queue'
    assert [row['loss'] for row in reader.read_rows(target)] == [2.0, 3.0]
    assert contents(target / 'artifacts') == {'a.txt': b'then'}


def test_neither_imports_nor_queues_are_files_of_a_run(tmp_path):
    (tmp_path / 'a.txt').write_text('a')
    everything = {'type': 'UploadFileSet', 'path': ['all'], 'file_globs': [str(tmp_path)]}
    queue = make_queue(tmp_path / '.neptune/offline/run__id__1__x', everything)
    for _ in range(2):
        (target,) = importing.import_offline(queue, tmp_path / 'runs')
        assert contents(target / 'artifacts') == {'all/a.txt': b'a'}


@pytest.mark.parametrize(
    ('source', 'out', 'message'),
    [
        (
            'nowhere',
            'runs',
            'nowhere holds no queue of the Neptune client .*; give a .neptune folder',
        ),
        ('empty', 'runs', 'empty holds no queue of the Neptune client'),
        ('queue', 'queue/runs', 'runs is inside of .*queue, which is only read'),
        (
            'queue',
            'file/runs',
            'the import ended at .*file/runs/run-queue: Not a directory; correct',
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, source, out, message):
    make_queue(tmp_path / 'queue', assign('a', 'b'))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=message) as caught:
        importing.import_offline(tmp_path / source, tmp_path / out)
    assert '\n' not in str(caught.value)


def test_the_import_is_light():
    code = (
        'import sys, neptune_jax.tracking.offline.importing\n'
        "print({'jax', 'neptune', 'tensorflow', 'numpy'} & sys.modules.keys())"
    )
    command = [sys.executable, '-W', 'error', '-c', code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == 'set()'
