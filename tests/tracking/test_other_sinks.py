"""Runs in TensorBoard, in MLflow, and in a tracker that is no part of the package."""

import contextlib
import io
import re
import socket
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neptune_jax.tracking import replay
from tests.stress.tracking import expected_series

CONFIG = {
    'model': {'features': [32, 64], 'name': 'cnn'},
    'train': {'steps': None, 'ema': True, 'batch_size': 128},
    'neptune': {'tags': ['baseline'], 'description': 'A CNN.', 'name': 'first'},
}


@pytest.fixture
def run(make_run):
    """A finished run of 500 steps with an image, a table, and a loss that is not finite."""
    run = make_run(config=CONFIG)
    for step in range(1, 501):
        run.write(step, {'train/loss': 1 / step, 'val/accuracy': 1 - 1 / step})
    run.write(501, {'train/loss': float('nan')})
    pixels = np.random.default_rng(0).integers(256, size=(30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run.path('artifacts/confusion_matrix.png'))
    run.path('artifacts/confusion_matrix.csv').write_text('label,a\na,3\n')
    run.update_summary(status='finished', test={'accuracy': 0.75, 'count': 500})
    return run


def test_tensorboard(run, sync):
    folder = run.path('tensorboard')
    for _ in range(2):  # the second time it starts anew
        status, output, errors = sync(None, run.workdir, '--to=tensorboard')
        assert (status, errors) == (0, '')
        assert f' to {folder}; 1 non-finite number stays in' in output
    events = EventAccumulator(str(folder), size_guidance={'scalars': 0, 'images': 0, 'tensors': 0})
    events.Reload()
    expected = expected_series(run.workdir)
    assert set(events.Tags()['scalars']) == set(expected)
    for key, points in expected.items():
        found = events.Scalars(key)
        assert [point.step for point in found] == [step for step, _, _ in points]
        assert [round(1000 * point.wall_time) for point in found] == [time for _, time, _ in points]
        # Event files hold values of 32 bits.
        assert [point.value for point in found] == [np.float32(value) for _, _, value in points]
    (image,) = events.Images('artifacts/confusion_matrix.png')
    with (
        Image.open(io.BytesIO(image.encoded_image_string)) as found,
        Image.open(run.path('artifacts/confusion_matrix.png')) as sent,
    ):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(sent))

    def text(key):
        (event,) = events.Tensors(f'{key}/text_summary')
        return event.tensor_proto.string_val[0].decode()

    assert '| model/features | [32, 64] |' in text('config')
    assert '| test/accuracy | 0.75 |' in text('summary')
    assert 'label,a' in text('artifacts/confusion_matrix.csv')


@pytest.mark.filterwarnings('ignore')  # MLflow's, of what it is built on
def test_mlflow(run, sync_command, tmp_path, monkeypatch, capsys):
    uri = f'sqlite:///{tmp_path}/mlflow.db'
    variables = {'MLFLOW_TRACKING_URI': uri, 'MLFLOW_EXPERIMENT_NAME': 'images'}
    status, output, errors = sync_command(None, run.workdir, '--to=mlflow', **variables)
    assert (status, errors) == (0, '')
    assert f'{run.workdir}: sent 13 values, 1,000 points, 3 files to {uri}, run ' in output
    # The command takes seconds to import MLflow, so the test itself sends the run again.
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert replay.send([run.workdir], 'mlflow') == 0
    assert f'{run.workdir}: sent nothing new to {uri}, run ' in capsys.readouterr().out
    run.path('sync/mlflow.json').unlink()  # all of it is sent again, and is there once
    assert replay.send([run.workdir], 'mlflow') == 0
    assert f'{run.workdir}: sent 13 values, 1,000 points, 3' in capsys.readouterr().out

    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment_ids = [client.get_experiment_by_name('images').experiment_id]
    statuses = {'running': 'RUNNING', 'preempted': 'KILLED', 'failed': 'FAILED'}
    for status, expected in (statuses | {'finished': 'FINISHED'}).items():
        run.update_summary(status=status)
        assert replay.send([run.workdir], 'mlflow') == 0
        (found,) = client.search_runs(experiment_ids)
        assert found.info.status == expected
    assert found.info.run_name == 'first'
    assert found.data.params == {
        'config/model/features': '[32, 64]',
        'config/model/name': 'cnn',
        'config/train/steps': 'None',
        'config/train/ema': 'True',
        'config/train/batch_size': '128',
        'config/neptune/tags': "['baseline']",
        'config/neptune/description': 'A CNN.',
        'config/neptune/name': 'first',
        'config/seed': '0',
    }
    assert found.data.tags['baseline'] == ''
    assert found.data.tags['mlflow.note.content'] == 'A CNN.'
    assert found.data.tags['environment/python'] == '3.12.1'
    assert found.data.metrics['summary/test/accuracy'] == 0.75
    for key, points in expected_series(run.workdir).items():
        history = client.get_metric_history(found.info.run_id, key)
        assert sorted((point.step, point.timestamp, point.value) for point in history) == points
    files = {item.path for item in client.list_artifacts(found.info.run_id, 'artifacts')}
    names = ('config.json', 'confusion_matrix.csv', 'confusion_matrix.png')
    assert files == {f'artifacts/{name}' for name in names}


@pytest.mark.filterwarnings('ignore')
def test_a_server_that_is_not_there_is_one_line(run, monkeypatch, capsys):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        uri = f'http://127.0.0.1:{listener.getsockname()[1]}'
    monkeypatch.setenv('MLFLOW_TRACKING_URI', uri)
    assert replay.send([run.workdir], 'mlflow') == 2
    errors = capsys.readouterr().err
    assert f'{uri} cannot be used' in errors
    assert f'python -m neptune_jax.sync {run.workdir} --to=mlflow' in errors
    assert errors.count('\n') == 1


def test_the_tracker_of_the_documentation(run, sync_command, tmp_path):
    page = (Path(__file__).parents[2] / 'docs/tracking.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    (tmp_path / 'mine.py').write_text(code)
    arguments = (run.workdir, '--to=mine:open_sink')
    for expected in ('sent 13 values, 1,000 points, 3 files', 'sent nothing new'):
        status, output, errors = sync_command(None, *arguments)
        assert (status, errors) == (0, '')
        assert output.startswith(f'{run.workdir}: {expected} to runs.db; 1 non-finite number')
    run.path('sync/mine:open_sink.json').unlink()  # all of it is sent again, and is there once
    assert sync_command(None, *arguments)[0] == 0

    with contextlib.closing(sqlite3.connect(tmp_path / 'runs.db')) as db:
        points = db.execute('SELECT key, step, time, value FROM records WHERE step > 0').fetchall()
        values = dict(db.execute('SELECT key, value FROM records WHERE step = -1').fetchall())
    series = {}
    for key, step, seconds, value in sorted(points):
        series.setdefault(key, []).append((step, round(1000 * seconds), value))
    assert series == expected_series(run.workdir)
    assert values['config/model/features'] == '[32, 64]'
    assert values['summary/status'] == '"finished"'
