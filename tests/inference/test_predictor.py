"""Predictions from a run directory, against the training's own and those of older versions."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from neptune_jax.data import dataset
from neptune_jax.errors import UserError
from neptune_jax.inference.predictor import Predictor
from neptune_jax.runs import reader
from neptune_jax.training import loop

# Runs of the version before models/layers.py, with the probabilities that it computed.
EARLIER_RUNS = Path(__file__).parent / 'earlier_runs'


@pytest.mark.parametrize('name', ['cnn', 'resnet'])
def test_checkpoints_of_an_earlier_version_predict_the_same(name):
    predictor = Predictor.from_run(EARLIER_RUNS / name)
    with np.load(EARLIER_RUNS / name / 'expected.npz') as expected:
        found = predictor(expected['images'])
        np.testing.assert_allclose(found, expected['probabilities'], rtol=1e-5)
    assert predictor.classes[9] == 'Ankle boot'
    assert predictor.step == 12


@pytest.fixture
def trained(config, tmp_path, standard_promotion):
    """The directory of a run with averaged parameters, and its test images with their labels."""
    config.optim.ema_decay = 0.5
    loop.train_and_evaluate(config, tmp_path / 'run')
    data = dataset.load(config.data)
    test = data.splits['test']
    return tmp_path / 'run', data.read_images(test), data.labels[test]


def test_a_run_directory_is_enough_to_repeat_the_test(trained, tmp_path, monkeypatch):
    workdir, images, labels = trained
    alone = tmp_path / 'elsewhere'
    shutil.move(workdir, alone)
    monkeypatch.setattr(dataset, 'load', None)  # no data set is opened
    predictor = Predictor.from_run(alone)
    probabilities = predictor(images, batch_size=64)  # which does not divide the 500 images
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    predictions = probabilities.argmax(axis=1)
    assert (predictions == labels).mean() == reader.read_summary(alone)['test']['accuracy']
    with np.load(alone / 'artifacts/predictions.npz') as stored:
        np.testing.assert_array_equal(stored['label'], labels)
        np.testing.assert_array_equal(stored['prediction'], predictions)
        np.testing.assert_allclose(stored['confidence'], probabilities.max(axis=1), rtol=1e-5)
        loss = -np.log(probabilities[np.arange(500), labels])
        np.testing.assert_allclose(stored['loss'], loss, rtol=1e-3)


def test_one_vs_rest_probabilities_are_sigmoids():
    predictor = Predictor.from_run(EARLIER_RUNS / 'cnn')
    with np.load(EARLIER_RUNS / 'cnn/expected.npz') as expected:
        images, softmax = expected['images'], expected['probabilities']
    found = Predictor(**vars(predictor) | {'loss': _bce(), '_programs': {}})(images)
    # The ratio of two classes' odds is that of their softmax probabilities.
    odds = found / (1 - found)
    np.testing.assert_allclose(odds[:, 1] / odds[:, 0], softmax[:, 1] / softmax[:, 0], rtol=1e-4)


def _bce():
    from neptune_jax.learning import losses

    return losses.bce


@pytest.mark.parametrize(
    'images', [np.zeros((2, 28, 28, 3), np.uint8), np.zeros((2, 28, 28, 1), np.float32)]
)
def test_other_images_are_refused(images):
    with pytest.raises(UserError, match=r'this model takes uint8 \[n, 28, 28, 1\]'):
        Predictor.from_run(EARLIER_RUNS / 'cnn')(images)


def test_no_image_is_no_prediction():
    images = np.zeros((0, 28, 28, 1), np.uint8)
    assert Predictor.from_run(EARLIER_RUNS / 'cnn')(images).shape == (0, 10)


def test_a_directory_without_a_run_or_with_a_damaged_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'holds no run: there is no config\.json'):
        Predictor.from_run(tmp_path)
    shutil.copytree(EARLIER_RUNS / 'cnn', tmp_path / 'run')
    largest = max(
        (tmp_path / 'run/checkpoints/12').rglob('*'), key=lambda path: path.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:-1] + b'?')
    with pytest.raises(UserError, match=r'is damaged \(.*is not as it was written\)'):
        Predictor.from_run(tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run/checkpoints')
    with pytest.raises(UserError, match='holds no run with a checkpoint'):
        Predictor.from_run(tmp_path / 'run')


def test_a_predictor_computes_the_probabilities_of_the_test_to_the_bit(finished_run, config):
    data = dataset.load(config.data)
    predictor = Predictor.from_run(finished_run)
    with np.load(finished_run / 'artifacts/predictions.npz') as stored:
        images = data.read_images(stored['index'])
        np.testing.assert_array_equal(predictor(images, batch_size=200), stored['probabilities'])
        np.testing.assert_allclose(predictor(images, 7), stored['probabilities'], atol=1e-5)


def test_a_checkpoint_is_chosen_by_name_or_step(finished_run):
    found = {which: Predictor.from_run(finished_run, which).step for which in ('last', 30, '60')}
    assert found == {'last': 60, 30: 30, '60': 60}
    with pytest.raises(UserError, match=r"no checkpoint 'frist'; choose best, last, or .* 30, 60"):
        Predictor.from_run(finished_run, 'frist')


def test_a_saved_temperature_belongs_to_its_checkpoint(finished_run, tmp_path, config):
    run = shutil.copytree(finished_run, tmp_path / 'run')
    (run / 'calibration.json').write_text('{"step": 60, "temperature": 2.0}')
    images = dataset.load(config.data).read_images(np.arange(4))
    plain, cooled = Predictor.from_run(run, 30), Predictor.from_run(run, 60)
    assert (plain.temperature, cooled.temperature) == (1, 2)
    assert 'temperature 2' in cooled.notes[-1]
    logits = np.log(Predictor.from_run(finished_run, 60)(images))  # up to a constant
    halved = np.exp(logits / 2)
    expected = halved / halved.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cooled(images), expected, rtol=1e-4)
