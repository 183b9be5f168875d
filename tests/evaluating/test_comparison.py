"""Two runs on the same images: their paired difference, the picture, and what is refused."""

import csv
import io
import shutil

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from PIL import Image

from neptune_jax.errors import UserError
from neptune_jax.evaluating import evaluation
from neptune_jax.evaluating.requests import Request
from neptune_jax.reporting import differences
from neptune_jax.runs import files


def compare(workdir, other, **request):
    request = {'workdir': str(workdir), 'compare': str(other)} | request
    return evaluation.run(Request(**request))


def change(path, **arrays):
    with np.load(path) as found:
        np.savez(path, **dict(found) | arrays)


@pytest.fixture
def runs(finished_run, tmp_path):
    """A run, and a copy of it that predicts class 0 for every tenth test image."""
    for name in ('one', 'two'):
        shutil.copytree(finished_run, tmp_path / name)
    path = tmp_path / 'two/artifacts/predictions.npz'
    with np.load(path) as found:
        prediction = found['prediction'].copy()
        prediction[::10] = 0
        change(path, prediction=prediction, loss=found['loss'] + (np.arange(500) % 10 == 0))
    return tmp_path / 'one', tmp_path / 'two'


def test_a_comparison_is_that_of_its_definitions(runs, capsys):
    found = compare(*runs, form='csv')
    with np.load(runs[0] / 'artifacts/predictions.npz') as one:
        labels, a = one['label'], one['prediction']
    b = np.where(np.arange(500) % 10 == 0, 0, a)
    only_a, only_b = ((a == labels) & (b != labels)).sum(), ((b == labels) & (a != labels)).sum()
    assert only_a > 10
    assert (found['only_a_correct'], found['only_b_correct']) == (only_a, only_b)
    assert found['accuracy'] == [(a == labels).mean(), (b == labels).mean()]
    assert found['difference'] == pytest.approx((a == labels).mean() - (b == labels).mean())
    expected = scipy.stats.binomtest(int(only_a), int(only_a + only_b)).pvalue
    assert found['mcnemar_p_value'] == pytest.approx(expected)
    low, high = found['interval']
    assert 0 < low < found['difference'] < high
    loss = found['other_metrics']['loss']
    assert loss['difference'] == pytest.approx(-0.1, abs=1e-5)
    # The loss differs by 1 on one example in ten: a binomial share.
    assert loss['interval'] == pytest.approx([-0.128, -0.074], abs=3e-3)
    f1 = [sklearn.metrics.f1_score(labels, run, average='macro') for run in (a, b)]
    assert found['other_metrics']['f1_macro']['difference'] == pytest.approx(f1[0] - f1[1])

    folder = runs[0] / 'evaluations/compare_two'
    assert files.read_json(folder / 'comparison.json') == files.encode(found)
    with Image.open(folder / 'differences.png') as picture:
        assert picture.width > 500
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(printed[printed.index('metric,difference') :])))
    assert float(rows[0]['difference']) == found['difference']


def test_without_the_data_there_is_no_picture(runs, tmp_path, capsys):
    config = files.read_json(runs[0] / 'config.json')
    (tmp_path / 'file').write_text('')
    config['data']['dir'] = str(tmp_path / 'file/data')
    files.write_json(runs[0] / 'config.json', config)
    compare(*runs)
    assert 'no picture of the images on which they differ' in capsys.readouterr().out
    assert [path.name for path in (runs[0] / 'evaluations/compare_two').iterdir()] == [
        'comparison.json'
    ]


def test_runs_that_agree_have_no_picture(runs):
    found = compare(runs[0], runs[0])
    assert found['mcnemar_p_value'] == 1
    assert found['difference'] == 0
    assert not (runs[0] / 'evaluations/compare_one/differences.png').exists()


def test_other_images_or_classes_are_refused(runs):
    environment = files.read_json(runs[1] / 'environment.json')
    shirt = environment['data']['classes'][0]
    environment['data']['classes'][0] = 'Hat'
    files.write_json(runs[1] / 'environment.json', environment)
    with pytest.raises(UserError, match='were tested on other classes'):
        compare(*runs)
    environment['data']['classes'][0] = shirt
    environment['data']['sha256']['test'] = 'ab' * 32
    files.write_json(runs[1] / 'environment.json', environment)
    with pytest.raises(UserError, match=r'one and .*two were tested on other images .*abababab'):
        compare(*runs)
    del environment['data']['sha256']['test']
    files.write_json(runs[1] / 'environment.json', environment)
    with pytest.raises(UserError, match=r'two/environment\.json does not name its test images'):
        compare(*runs)
    assert not (runs[0] / 'evaluations').exists()


def test_runs_without_a_test_are_refused(runs, tmp_path):
    path = runs[1] / 'artifacts/predictions.npz'
    path.write_bytes(b'damaged')
    with pytest.raises(UserError, match=r'predictions.npz cannot be read'):
        compare(*runs)
    path.unlink()
    with pytest.raises(UserError, match=r'two has no .*predictions.npz: the run was not tested'):
        compare(*runs)
    with pytest.raises(UserError, match='holds no run'):
        compare(runs[0], tmp_path / 'none')


def test_the_picture_has_the_images_that_only_one_gets_right():
    class Data:
        labels = np.zeros(40, int)
        class_names = ('cat', 'dog')

        def read_images(self, examples):
            return np.repeat(examples.astype(np.uint8), 16).reshape(-1, 4, 4, 1)

    outputs = {'confidence': np.full(40, 0.75), 'loss': np.arange(40.0)}
    one = outputs | {'prediction': np.array([0] * 30 + [1] * 10)}
    two = (
        {'prediction': np.array([1] * 30 + [0] * 4 + [1] * 6)}
        | outputs
        | {'loss': np.arange(40.0) + np.r_[np.arange(30), -np.arange(10)]}
    )
    figure = differences.differences(Data(), np.arange(40), one, two, ['runs/a', 'runs/b'])
    (axes,) = figure.axes
    shown = [int(np.asarray(image.get_array()).max()) for image in axes.get_images()]
    # All four that only B gets right; of the thirty of A those with the largest gap of the loss.
    assert shown == [*range(29, 8, -1), 33, 32, 31, 30]
    captions = [text.get_text() for text in axes.texts]
    assert captions[0] == 'A: runs/a, B: runs/b; only A is right: 30, only B: 4; some of them:'
    assert captions[1] == 'A cat 75%\nB dog 75%\nis cat (test #29)'
