import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import cnn
from neptune_jax import defaults
from neptune_jax.errors import Preempted, UserError
from neptune_jax.runs import files, reader, writer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    with writer.open_run(tmp_path / 'run', cnn.get_config(), {'python': '3'}) as run:
        yield run


def test_a_new_directory_holds_the_resolved_config_and_the_environment(run):
    config = json.loads(run.path('config.json').read_text())
    assert config['model']['features'] == [32, 64]
    assert config['train']['steps'] is None
    assert json.loads(run.path('environment.json').read_text()) == {'python': '3'}
    assert run.path('artifacts').is_dir()
    assert reader.read_rows(run.workdir) == []


def test_rows_come_back_with_every_kind_of_number(run):
    values = {'train/a': np.float32(0.5), 'train/b': 3, 'train/c': math.inf, 'train/d': -math.inf}
    run.write(7, values | {'train/e': math.nan})
    (line,) = run.path('metrics.jsonl').read_text().splitlines()
    assert '"train/c": "Infinity", "train/d": "-Infinity", "train/e": "NaN"' in line
    (row,) = reader.read_rows(run.workdir)
    assert row['step'] == 7
    assert abs(row['time'] - run.path('metrics.jsonl').stat().st_mtime) < 10
    assert {key: row[key] for key in values} == values
    assert math.isnan(row['train/e'])


def test_a_torn_last_line_is_no_row(run):
    run.write(1, {'train/loss': 0.5})
    with run.path('metrics.jsonl').open('a') as file:
        file.write('{"step": 2, "time": 17')
    assert [row['step'] for row in reader.read_rows(run.workdir)] == [1]


def test_rewinding_removes_later_rows_and_a_torn_line(run):
    for step in (1, 2, 3):
        run.write(step, {'train/loss': math.nan})
    lines = run.path('metrics.jsonl').read_text().splitlines(keepends=True)
    with run.path('metrics.jsonl').open('a') as file:
        file.write('{"st')
    run.rewind(2)
    assert run.path('metrics.jsonl').read_text() == ''.join(lines[:2])


def test_the_same_config_opens_the_directory_again(tmp_path):
    with writer.open_run(tmp_path, cnn.get_config(), {}) as run:
        run.update_summary(step=5)
    config = cnn.get_config()
    config.log.every = '1 step'  # what a run prints, and where it runs, may change
    config.parallel.driver = 'pmap'
    config.data.dir = '/elsewhere'
    with writer.open_run(tmp_path, config, {}) as run:
        assert run.summary == {'step': 5}


def test_a_directory_that_another_process_writes_is_refused(run):
    script = (
        'from configs import cnn\n'
        'from neptune_jax.errors import UserError\n'
        'from neptune_jax.runs import writer\n'
        'try:\n'
        f'    with writer.open_run({str(run.workdir)!r}, cnn.get_config(), {{}}):\n'
        '        pass\n'
        'except UserError as error:\n'
        '    print(error)\n'
    )
    command = [sys.executable, '-c', script]
    before = run.path('environment.json').read_bytes()
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f'is being written by process {os.getpid()} on {socket.gethostname()}' in other.stdout
    assert other.stdout.count('\n') == 1
    assert run.path('environment.json').read_bytes() == before


def test_another_config_is_refused_and_the_differences_are_named(run):
    before = {path: path.read_bytes() for path in run.workdir.rglob('*.json')}
    config = cnn.get_config()
    config.optim.learning_rate = 0.5
    config.model.features = (1, 2)
    with pytest.raises(UserError) as caught, writer.open_run(run.workdir, config, {}):
        pass
    message = str(caught.value)
    assert 'model.features: [32, 64] there, [1, 2] here' in message
    assert 'optim.learning_rate: 0.002 there, 0.5 here' in message
    assert 'choose another --workdir' in message
    assert {path: path.read_bytes() for path in run.workdir.rglob('*.json')} == before


DATA = {
    'source': 'image_folder/abc/1.0.0',
    'mode': 'device',
    'sizes': {'train': 80, 'val': 10, 'test': 10},
    'sha256': {'train': 'a1', 'val': 'b2', 'test': 'c3'},
    'classes': ['cat', 'dog'],
    'image_shape': [28, 28, 1],
}


def data_with(**changes):
    """DATA with some entries changed, and those of a group."""
    data = json.loads(json.dumps(DATA))
    for name, value in changes.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    return data


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'sha256': {'test': 'd4', 'train': 'e5'}, 'sizes': {'train': 83}},
            'train split: 80 images there, 83 here; test split: 10 images there, 10 here, not the '
            'same or in another order',
        ),
        ({'sha256': {'val': 'd4'}, 'sizes': {'val': 9}}, 'val split: 10 images there, 9 here'),
        ({'classes': ['cat', 'cow']}, "classes: 'dog' there, 'cow' here"),
        ({'classes': ['cat', 'dog', 'owl']}, "classes: None there, 'owl' here"),
        ({'image_shape': (28, 28, 3)}, 'image_shape: [28, 28, 1] there, [28, 28, 3] here'),
    ],
)
@pytest.mark.parametrize('status', ['preempted', 'finished'])
def test_other_data_are_refused_and_the_differences_are_named(tmp_path, changes, message, status):
    config = defaults.get_config()
    with writer.open_run(tmp_path, config, {'data': DATA}) as run:
        run.update_summary(status=status)
    before = {
        path: (path.read_bytes(), path.stat()) for path in tmp_path.iterdir() if path.is_file()
    }
    opened = writer.open_run(tmp_path, config, {'data': data_with(**changes)})
    with pytest.raises(UserError) as caught, opened:
        pass
    assert str(caught.value) == (
        f'--workdir={tmp_path} holds a run on other data ({message}); put the data back as they '
        'were to continue it, or choose another --workdir for a new run'
    )
    assert before == {path: (path.read_bytes(), path.stat()) for path in before}
    config.seed = 1  # what is wrong first: one cannot continue with this config on any data
    opened = writer.open_run(tmp_path, config, {'data': data_with(**changes)})
    with pytest.raises(UserError, match=r'a run of another config \(seed: 0 there, 1 here'), opened:
        pass


def test_the_same_data_elsewhere_and_in_another_mode_are_not_refused(tmp_path):
    config = defaults.get_config()
    for changes in ({}, {'source': 'image_folder/other/1.0.0', 'mode': 'host'}):
        data = data_with(image_shape=(28, 28, 1), **changes)
        with writer.open_run(tmp_path, config, {'data': data}):
            pass
        assert (
            json.loads((tmp_path / 'environment.json').read_text())['data']['mode'] == data['mode']
        )


@pytest.mark.parametrize('content', [None, '{}', '[]', '{"da', '{"data": null}', '{"data": {}}'])
def test_a_run_that_does_not_tell_its_data_is_not_refused(tmp_path, content):
    config = defaults.get_config()
    with writer.open_run(tmp_path, config, {}):
        pass
    path = tmp_path / 'environment.json'
    path.unlink() if content is None else path.write_text(content)
    with writer.open_run(tmp_path, config, {'data': DATA}):
        pass
    assert json.loads(path.read_text())['data'] == DATA


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    opened = writer.open_run(tmp_path, cnn.get_config(), {})
    with pytest.raises(UserError, match='holds files but no run; choose another'), opened:
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    opened = writer.open_run(tmp_path / 'file' / 'run', cnn.get_config(), {})
    with pytest.raises(UserError, match=r'--workdir=.* cannot be written'), opened:
        pass


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (None, 'finished'),
        (Preempted('SIGTERM'), 'preempted'),
        (UserError('the loss is nan at step 3'), 'failed'),
        (RuntimeError('a bug'), 'failed'),
        (KeyboardInterrupt(), 'failed'),
    ],
)
def test_the_status_says_how_a_run_ended(run, error, status):
    try:
        with run.status():
            assert reader.read_summary(run.workdir)['status'] == 'running'
            if error:
                raise error
    except type(error) as caught:
        assert caught is error
    assert reader.read_summary(run.workdir)['status'] == status
    with run.status():  # started again
        pass
    assert reader.read_summary(run.workdir) == {'status': 'finished'}


def test_a_full_disk_found_below_orbax_is_told_in_one_line(run):
    with pytest.raises(UserError, match=r'the disk of .* is full; free some space'), run.status():
        raise ValueError('RESOURCE_EXHAUSTED: ... \n No space left on device [os_error_code=28]')
    assert reader.read_summary(run.workdir)['status'] == 'failed'


class Killed(BaseException):
    """What a test raises in place of SIGKILL."""


def test_a_start_that_is_killed_at_any_write_can_be_repeated(tmp_path, monkeypatch):
    """Before each call by which a start changes the disk it is killed; then it is started again."""
    calls = {Path: ('mkdir', 'replace', 'open'), files.fcntl: ('flock',)}
    config, starts = defaults.get_config(), 0
    while True:
        workdir, remaining = tmp_path / f'run{starts}', starts

        def dying(original):
            def call(*args, **kwargs):
                nonlocal remaining
                if not remaining:
                    raise Killed
                remaining -= 1
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patched:
            for owner, names in calls.items():
                for name in names:
                    patched.setattr(owner, name, dying(getattr(owner, name)))
            try:
                with writer.open_run(workdir, config, {}) as run:
                    run.update_summary(status='running')
                survived = True
            except Killed:
                survived = False
        with writer.open_run(workdir, config, {}) as run:
            assert run.path('artifacts').is_dir()
        assert files.read_json(workdir / 'config.json')['seed'] == 0
        if survived:
            break
        starts += 1
    assert starts > 8


@pytest.mark.parametrize(
    'names',
    [['artifacts'], ['artifacts', '.lock', 'environment.json'], ['.config.json.unfinished']],
)
def test_what_an_earlier_version_left_of_a_start_can_be_used(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name == 'artifacts' else (tmp_path / name).write_text('{')
    with writer.open_run(tmp_path, defaults.get_config(), {}):
        pass


def test_an_artifact_without_a_config_is_no_run(tmp_path):
    (tmp_path / 'artifacts').mkdir()
    (tmp_path / 'artifacts/picture.png').touch()
    opened = writer.open_run(tmp_path, defaults.get_config(), {})
    with pytest.raises(UserError, match='holds files but no run'), opened:
        pass


def test_a_run_from_before_a_field_existed_is_not_refused(tmp_path):
    config = defaults.get_config()
    with writer.open_run(tmp_path, config, {}):
        pass
    saved = files.read_json(tmp_path / 'config.json')
    del saved['augment']['extra']
    files.write_json(tmp_path / 'config.json', saved)
    with writer.open_run(tmp_path, config, {}):
        pass
    del saved['augment']['flip']
    files.write_json(tmp_path / 'config.json', saved)
    config.augment.flip = 'random'
    message = r"augment.flip: 'none' there, 'random' here"
    with pytest.raises(UserError, match=message), writer.open_run(tmp_path, config, {}):
        pass


def test_nan_and_infinities_are_numbers_and_equal_texts_stay_texts(tmp_path):
    config = defaults.get_config()
    config.optim.clip_norm = math.inf
    config.neptune.update(name='NaN', tags=('Infinity', 'a'))
    config.optim.options = cnn.ConfigDict({'weights': (1.0, math.nan, -math.inf)})
    for _ in range(2):  # equal to itself
        with writer.open_run(tmp_path, config, {}):
            pass
    found = reader.read_config(tmp_path)
    assert found['optim']['clip_norm'] == math.inf
    assert (found['neptune']['name'], found['neptune']['tags']) == ('NaN', ['Infinity', 'a'])
    one, nan, infinity = found['optim']['options']['weights']
    assert (one, infinity) == (1.0, -math.inf)
    assert math.isnan(nan)
