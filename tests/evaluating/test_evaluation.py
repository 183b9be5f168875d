"""Evaluations of finished runs: the training's test to the bit, temperature, views, refusals."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from PIL import Image

from neptune_jax.data import dataset
from neptune_jax.errors import UserError
from neptune_jax.evaluating import evaluation, finished
from neptune_jax.evaluating.requests import Request
from neptune_jax.inference import views
from neptune_jax.inference.predictor import Predictor
from neptune_jax.reporting import figures
from neptune_jax.runs import files, reader
from neptune_jax.training import loop

TABLES = ('classification_report.csv', 'confusion_matrix.csv')


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished_run, tmp_path / 'run')


@pytest.fixture
def no_figures(monkeypatch):
    """For what is not about them: they take most of the time."""
    monkeypatch.setattr(figures, 'write', lambda *args, **options: None)


def evaluate(workdir, **request):
    return evaluation.run(Request(workdir=str(workdir), **request))


def same_arrays(one, other):
    with np.load(one) as a, np.load(other) as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_without_flags_the_test_of_the_training_is_repeated_to_the_bit(run):
    found = evaluate(run)
    assert found['metrics'] == reader.read_summary(run)['test']
    folder = run / 'evaluations/test'
    same_arrays(folder / 'predictions.npz', run / 'artifacts/predictions.npz')
    for name in TABLES:
        assert (folder / name).read_bytes() == (run / 'artifacts' / name).read_bytes()
    for name in ('confusion_matrix.png', 'worst_mistakes.png', 'reliability_diagram.png'):
        with Image.open(folder / name) as one, Image.open(run / 'artifacts' / name) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))
    assert files.read_json(folder / 'metrics.json') == files.encode(found)
    for name, (low, high) in found['intervals'].items():
        assert low <= high, name
    assert set(found['metrics']) - set(found['intervals']) == {'classes', 'count'}


def test_averages_batch_norm_bce_and_two_devices_are_repeated_too(
    config, tmp_path, standard_promotion, no_figures
):
    config.optim.ema_decay, config.loss.name, config.model['norm'] = 0.5, 'bce', 'batch'
    config.parallel.driver = 'pmap'
    summary = loop.train_and_evaluate(config, tmp_path / 'run')
    found = evaluate(tmp_path / 'run')
    assert found['metrics'] == summary['test']
    assert len(found['devices']) == 2
    same_arrays(
        tmp_path / 'run/evaluations/test/predictions.npz',
        tmp_path / 'run/artifacts/predictions.npz',
    )
    assert evaluate(tmp_path / 'run', split='val')['metrics'] == summary['val']


def test_another_split_and_checkpoint(run, config, no_figures):
    last = reader.checkpoint_steps(run)[-1]
    found = evaluate(run, split='train', checkpoint='last')
    assert found['step'] == last
    data = dataset.load(config.data)
    train = data.splits['train']
    probabilities = Predictor.from_run(run, 'last')(data.read_images(train))
    labels = data.labels[train]
    assert found['metrics']['count'] == len(train)
    assert found['metrics']['accuracy'] == (probabilities.argmax(axis=1) == labels).mean()
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=float)
    loss = sklearn.metrics.log_loss(labels, probabilities)
    assert found['metrics']['loss'] == pytest.approx(loss, rel=1e-5)
    assert (run / f'evaluations/train_step_{last}/metrics.json').is_file()


def test_other_images_than_those_of_the_training_are_refused(run):
    environment = json.loads((run / 'environment.json').read_text())
    environment['data']['sha256']['test'] = '0' * 64
    files.write_json(run / 'environment.json', environment)
    with pytest.raises(UserError, match=r'the test split has other images .* 000000000000\.\.\.'):
        evaluate(run)
    assert not (run / 'evaluations').exists()


def test_a_split_that_the_data_do_not_have(run):
    config = json.loads((run / 'config.json').read_text())
    config['data']['val_fraction'] = 0
    files.write_json(run / 'config.json', config)
    with pytest.raises(UserError, match='have no val split'):
        evaluate(run, split='val')


def test_data_that_have_moved_are_found_with_a_flag(run, tmp_path, capsys):
    config = json.loads((run / 'config.json').read_text())
    moved = tmp_path / 'nowhere/data'
    (tmp_path / 'nowhere').write_text('a file, not a folder')
    here, config['data']['dir'] = config['data']['dir'], str(moved)
    files.write_json(run / 'config.json', config)
    with pytest.raises(UserError, match=r'the data of .*nowhere.* set --data_dir'):
        evaluate(run)
    recorded = finished.read(run, {'dir': here})
    assert len(finished.examples_of(recorded, finished.load_data(recorded), 'test')) == 500


def test_fewer_devices_than_the_training_had_are_named(run, capsys):
    environment = json.loads((run / 'environment.json').read_text())
    environment['devices'], environment['driver'] = ['TPU v9'] * 16, 'pmap'
    files.write_json(run / 'environment.json', environment)
    parallel = finished.create_parallel(finished.read(run), 12)
    # There are eight; six of them share a batch of 12 evenly.
    assert (parallel.driver, parallel.num_devices) == ('pmap', 6)
    assert 'used 16 x TPU v9; here it is evaluated on 6 x cpu' in capsys.readouterr().out


def test_a_fitted_temperature_is_kept_and_used(run, config, no_figures, capsys):
    plain = Predictor.from_run(run)
    found = evaluate(run, temperature='fit', save=True)
    kept = reader.read_calibration(run, plain.step)
    temperature = kept['temperature']
    assert found['temperature']['value'] == temperature != 1
    assert kept['loss_after'] < kept['loss_before']
    data = dataset.load(config.data)
    test, val = data.splits['test'], data.splits['val']

    # One more fit, of log-probabilities and on a grid: they differ from logits by a constant.
    log = np.log(plain(data.read_images(val)).astype(float))
    own = np.arange(len(val)), data.labels[val]
    grid = np.exp(np.linspace(-1, 1, 2001))
    losses = [-scipy.special.log_softmax(log / t, axis=1)[own].mean() for t in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert kept['loss_before'] == pytest.approx(-log[own].mean(), rel=1e-4)
    assert kept['count'] == len(val)

    # The Predictor has it now, and computes what was evaluated, to the bit.
    calibrated = Predictor.from_run(run)
    assert calibrated.temperature == temperature
    probabilities = calibrated(data.read_images(test), batch_size=200)
    with np.load(run / 'evaluations/test_temperature_fit/predictions.npz') as arrays:
        np.testing.assert_array_equal(arrays['probabilities'], probabilities)
    before = found['temperature']['before']
    assert before == reader.read_summary(run)['test']
    assert before['accuracy'] == found['metrics']['accuracy']

    # Without the flag an evaluation does not use it, and says so.
    capsys.readouterr()
    assert evaluate(run)['metrics'] == before
    assert 'was not used; --temperature=saved uses it' in capsys.readouterr().out
    assert evaluate(run, temperature='saved')['metrics'] == found['metrics']


def test_views_are_averaged_before_the_temperature(run, config, no_figures):
    found = evaluate(run, tta=('shift',), temperature='2')
    assert found['tta'] == {'names': ['shift'], 'views': 5}
    data = dataset.load(config.data)
    images = data.read_images(data.splits['test'])
    predictor = Predictor.from_run(run)
    each = [predictor(np.asarray(view)) for view in views.views(images, ['shift'])]
    expected = scipy.special.softmax(np.log(np.mean(each, axis=0, dtype=float)) / 2, axis=1)
    with np.load(run / 'evaluations/test_tta_shift_temperature_2/predictions.npz') as arrays:
        np.testing.assert_allclose(arrays['probabilities'], expected, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        ({'split': 'tset'}, "--split='tset' is unknown"),
        ({'tta': ('mirror',)}, "--tta='mirror' is unknown"),
        ({'tta': ('flip', 'flip')}, 'names the same views twice'),
        ({'temperature': '0'}, 'must be fit, saved, or a number above 0'),
        ({'temperature': 'hot'}, 'must be fit, saved, or a number above 0'),
        ({'temperature': 'saved'}, r'has no saved temperature of step \d+; fit one'),
        ({'save': True}, 'add --temperature=fit'),
        ({'save': True, 'temperature': 'fit', 'tta': ('flip',)}, 'leave --tta away'),
        ({'checkpoint': '7'}, "has no checkpoint '7'"),
        ({'data': 'image_folder:/none'}, r"--data=image_folder:/none: '/none' is not a folder"),
        ({'data': 'arrays:'}, 'needs a path'),
        ({'data': 'cifar'}, "data.name='cifar' is unknown"),
        ({'compare': 'x', 'tta': ('flip',)}, 'take away --tta'),
        ({'compare': 'x', 'checkpoint': 'last'}, 'take away --checkpoint'),
        ({'out': 'pyproject.toml/results'}, 'results cannot be written; set --out'),
    ],
)
def test_wrong_requests_write_nothing(finished_run, request_, message):
    with pytest.raises(UserError, match=message):
        evaluate(finished_run, **request_)
    assert not (finished_run / 'evaluations').exists()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match=r'holds no run: there is no config\.json'):
        evaluate(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(UserError, match='holds no run: Expecting'):
        evaluate(tmp_path)
    with pytest.raises(UserError, match=r'holds no run: .* Not a directory'):
        evaluate(tmp_path / 'config.json')


def command(*args):
    return subprocess.run(
        [sys.executable, '-m', 'neptune_jax.evaluate', *map(str, args)],
        capture_output=True,
        text=True,
    )


def test_images_of_ones_own_by_the_command_line(run, tmp_path):
    """One class of the run and one that it does not know, a single image each."""
    for name, level in (('Bag', 90), ('Hat', 50)):
        (tmp_path / 'photos' / name).mkdir(parents=True)
        Image.fromarray(np.full((40, 30), level, np.uint8)).save(tmp_path / f'photos/{name}/1.png')
    out = tmp_path / 'out'
    photos = tmp_path / 'photos'
    done = command(run, f'--data=image_folder:{photos}', '--format=csv', f'--out={out}')
    assert done.returncode == 0, done.stderr
    rows = {row['metric']: row for row in csv.DictReader(done.stdout.splitlines())}
    accuracy = rows['accuracy']
    assert rows['count']['value'] == '1'
    assert float(accuracy['value']) in (0, 1)
    assert float(accuracy['low']) < float(accuracy['high'])
    for note in (
        'the run does not know these classes, left out: Hat (1)',
        'no images of 9 of the 10 classes',
        "1 image(s) are not of 28x28 pixels, and were changed by the rule 'pad'",
    ):
        assert note in done.stderr
    with np.load(out / 'predictions.npz') as arrays:
        assert arrays['name'].tolist() == ['Bag/1.png']
        probabilities = arrays['probabilities']
    predictor = Predictor.from_run(run)
    image = predictor.read(photos / 'Bag/1.png')
    np.testing.assert_allclose(probabilities, predictor(image[None]), rtol=1e-5)


def test_results_of_other_images_of_the_same_name_are_kept(run, tmp_path, no_figures):
    for place, level in (('a', 0), ('b', 255), ('a', 0)):
        (tmp_path / place / 'photos/Bag').mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((28, 28), level, np.uint8))
        image.save(tmp_path / place / 'photos/Bag/1.png')
        evaluate(run, data=f'image_folder:{tmp_path / place / "photos"}')
    names = {path.name for path in (run / 'evaluations').iterdir()}
    assert names == {'image_folder_photos', 'image_folder_photos_2'}


def test_a_mistake_is_one_line(run):
    done = command(run, '--split=tset')
    assert done.returncode == 2
    assert done.stderr.startswith("error: --split='tset' is unknown")
    assert done.stderr.count('\n') == 1
    assert done.stdout == ''
