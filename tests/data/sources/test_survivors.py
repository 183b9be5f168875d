"""A class of which nothing is left is named, and refused if fewer than two are left."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data import clean
from neptune_jax.errors import UserError


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


THREE_CLASSES = [f'{name}/{i}.png' for name in ('cat', 'cow', 'dog') for i in range(4)]


def empty(path):
    path.write_bytes(b'')


def enlarge(path):
    Image.new('RGB', (60, 50)).save(path)


@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (truncate, r'image file is truncated.*'),
        (empty, r'the file is empty'),
        (enlarge, r'60x50 pixels are more than data.clean.max_pixels=99'),
    ],
)
def test_a_class_whose_files_cannot_be_used_is_named_or_refused(
    read, paste, refused, load, tmp_path, capsys, damage, reason
):
    paste(THREE_CLASSES)
    for i in range(4):
        damage(tmp_path / f'raw/cow/{i}.png')
    fields = {'clean.max_pixels': 99}
    report = load(**fields).report
    assert report['classes']['train'] == {'cat': 4, 'cow': 0, 'dog': 4}
    (example,) = report['rules']['empty_classes']['examples']
    assert re.fullmatch(rf'train: cow \(4 unreadable, the first cow/0.png \({reason}\)\)', example)
    summary = clean.summary(report)
    assert summary.startswith(f'1 empty classes ({example})')
    for i in range(3):  # three of four dogs are left: no empty class
        damage(tmp_path / f'raw/dog/{i}.png')
    assert load(**fields).report['rules']['empty_classes']['count'] == 1
    damage(tmp_path / 'raw/dog/3.png')
    shutil.rmtree(tmp_path / 'data')
    refused(
        rf'of 3 classes, training images are left of cat: .* lost are cow \(4 unreadable, the '
        rf'first cow/0.png \({reason}\)\), dog \(4 unreadable, the first dog/0.png \({reason}\)\)',
        **fields,
    )
    assert list((tmp_path / 'data').iterdir()) == []  # not even an empty folder


def test_a_class_of_copies_is_named_or_refused_at_each_start(paste, load, tmp_path):
    paste([f'train/{name}' for name in THREE_CLASSES])
    paste(['test/cat/1.png', 'test/dog/1.png'])
    for i in range(4):  # the test has all images of cows
        shutil.copy(tmp_path / f'raw/train/cow/{i}.png', tmp_path / f'raw/test/dog/cow{i}.png')
    for _ in ('fresh', 'prepared'):
        report = load().report
        assert report['classes']['train'] == {'cat': 4, 'cow': 0, 'dog': 4}
        assert report['rules']['empty_classes'] == {
            'count': 1,
            'examples': ['train: cow (4 copies of other images, the first train/cow/0.png)'],
        }
    for i in range(4):
        shutil.copy(tmp_path / f'raw/train/dog/{i}.png', tmp_path / f'raw/test/cat/dog{i}.png')
    for _ in ('fresh', 'prepared'):
        with pytest.raises(UserError, match=r'images are left of cat: .*cow .*dog') as error:
            load()
        assert '\n' not in str(error.value)
    assert load(**{'clean.duplicates': 'keep'}).report['classes']['train']['cow'] == 4


def test_a_class_of_the_test_that_is_lost_is_named(paste, load, tmp_path):
    paste([f'train/{name}' for name in THREE_CLASSES])
    paste(['test/cat/1.png', 'test/cow/1.png'])
    truncate(tmp_path / 'raw/test/cow/1.png')
    (example,) = load().report['rules']['empty_classes']['examples']
    assert example.startswith('test: cow (1 unreadable, the first test/cow/1.png (')  # dog had none


def test_a_class_of_an_array_of_which_nothing_is_left(load, tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (12, 7, 6))
    labels = np.arange(12) % 3.0
    images[labels == 1] = np.nan
    np.savez(tmp_path / 'some.npz', images=images, labels=labels)
    fields = {'name': 'arrays', 'channels': 1}
    rule = load(**fields, path=str(tmp_path / 'some.npz')).report['rules']['empty_classes']
    assert rule['examples'] == [
        'train: 1 (4 unreadable, the first train[1] (all pixels are missing))'
    ]
    images[labels == 2] = np.nan
    np.savez(tmp_path / 'one.npz', images=images, labels=labels)
    with pytest.raises(UserError, match=r'left of 0: .* lost are 1 \(4 unr.*, 2 \(4 unreadable, t'):
        load(**fields, path=str(tmp_path / 'one.npz'))
    labels[labels == 2] = np.nan  # images without a label are of no class
    np.savez(tmp_path / 'none.npz', images=images, labels=labels)
    with pytest.raises(UserError, match=r'of 2 classes, .* left of 0: .* lost are 1 \(4 unreadabl'):
        load(**fields, path=str(tmp_path / 'none.npz'))
