"""Images of one's own, from files that the tests write to a trained network."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from neptune_jax.runs import reader

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images * 255 / 16).astype(np.uint8)  # 1,797 of 8x8, values of 0 to 16
TWO_STEPS = ('--config.train.steps=2', '--config.model.features=4,8')


@pytest.fixture
def digits(tmp_path):
    """The digits of scikit-learn as a folder of PNG files, a folder a class."""
    for i, (image, label) in enumerate(zip(IMAGES, DIGITS.target, strict=True)):
        folder = tmp_path / f'digits/train/{label}'
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f'{i}.png')
    return tmp_path / 'digits'


def test_a_folder_of_digits_is_learned(run, digits, tmp_path):
    flags = (f'--config.data.path={digits}', f'--config.data.dir={tmp_path}/data')
    flags += (f'--workdir={tmp_path}/run',)
    result = run('--config=configs/image_folder.py', *flags, optimized=True)
    assert result.returncode == 0, result.stderr
    summary = reader.read_summary(tmp_path / 'run')
    assert summary['test']['count'] > 150
    assert summary['test']['accuracy'] >= 0.97
    report = json.loads((tmp_path / 'run/artifacts/data_report.json').read_text())
    assert sum(report['before'].values()) == 1797


def test_what_is_wrong_with_a_folder_is_said_in_one_line(run, digits, tmp_path):
    flags = ('--config=configs/image_folder.py', f'--config.data.dir={tmp_path}/data')
    flags += (f'--workdir={tmp_path}/run',)
    (tmp_path / 'empty').mkdir()
    broken = digits / 'train/3/broken.png'
    broken.write_bytes(b'\x89PNG, cut short')
    for i in range(4):  # two classes, of which one has files without bytes
        for name, content in (('a', (digits / f'train/{i}/{i}.png').read_bytes()), ('b', b'')):
            (tmp_path / 'two' / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / 'two' / name / f'{i}.png').write_bytes(content)
    cases = {
        'are left of a: there is nothing to classify; lost are b (4 unreadable, the first b/0.png '
        '(the file is empty))': (f'--config.data.path={tmp_path}/two',),
        f'{tmp_path}/empty has no images': (f'--config.data.path={tmp_path}/empty',),
        'train/3/broken.png: ': (
            f'--config.data.path={digits}',
            '--config.data.clean.unreadable=error',
        ),
        "--config.data.resize to 'stretch', 'crop' or 'pad'": (
            f'--config.data.path={digits}',
            '--config.data.image_size=28,28',
            '--config.data.resize=',
        ),
    }
    for message, more in cases.items():
        result = run(*flags, *more)
        assert result.returncode == 2
        assert message in result.stderr
        assert result.stderr.count('\n') == 1, result.stderr
        assert not (tmp_path / 'run').exists()


def test_arrays_are_trained_on(run, tmp_path):
    arrays = tmp_path / 'digits.npz'
    np.savez(arrays, images=IMAGES / 255, labels=DIGITS.target)
    flags = ('--config=configs/cnn.py', '--config.data.name=arrays', f'--config.data.path={arrays}')
    result = run(
        *flags, *TWO_STEPS, f'--config.data.dir={tmp_path}/data', f'--workdir={tmp_path}/a'
    )
    assert result.returncode == 0, result.stderr
    assert '1,797 from float64' in result.stdout
    assert reader.read_summary(tmp_path / 'a')['test']['count'] > 150


def test_a_csv_is_trained_on(run, tmp_path):
    table = tmp_path / 'digits.csv'
    rows = np.column_stack([DIGITS.target, IMAGES.reshape(len(IMAGES), -1)])
    header = ','.join(['label', *(f'pixel{i}' for i in range(64))])
    np.savetxt(table, rows, fmt='%d', delimiter=',', header=header, comments='')
    flags = ('--config=configs/cnn.py', '--config.data.name=arrays', f'--config.data.path={table}')
    result = run(
        *flags, *TWO_STEPS, f'--config.data.dir={tmp_path}/data', f'--workdir={tmp_path}/c'
    )
    assert result.returncode == 0, result.stderr
    assert 'images of 8x8x1' in result.stdout


def test_synthetic_images_are_trained_on_in_colour_and_streamed(run, tmp_path):
    flags = ('--config=configs/cnn.py', '--config.data.name=synthetic', '--config.data.mode=stream')
    result = run(
        *flags, *TWO_STEPS, f'--config.data.dir={tmp_path}/data', f'--workdir={tmp_path}/s'
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ''
    assert 'images of 32x32x3' in result.stdout
    assert reader.read_summary(tmp_path / 's')['status'] == 'finished'


def test_the_picture_of_what_the_model_sees(command, tmp_path):
    import subprocess

    flags = ('--config=configs/cnn.py', '--config.data.name=fashion_mnist_mini')
    started = command(*flags, '--config.augment.flip=random', f'--out={tmp_path}/seen.png')
    started['args'][2] = 'neptune_jax.show'
    subprocess.run(**started, check=True, capture_output=True)
    with Image.open(tmp_path / 'seen.png') as image:
        assert min(image.size) > 500
