"""Images given to a finished run: classes by name, all images of known ones, what is left out."""

import numpy as np
import pytest
from PIL import Image

from neptune_jax import defaults
from neptune_jax.data import given
from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError

CLASSES = ('owl', 'cat', 'dog')  # not sorted, as those of standard data sets
CONVERSION = Conversion(size=(4, 4), channels=1, resize='stretch')


def save(path, level, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, level, np.uint8)).save(path)


def read(name='image_folder', path='', splits=(), classes=CLASSES, **fields):
    config = defaults.get_config().data
    config.name, config.path = name, str(path)
    for field, value in fields.items():
        config[field] = value
    return given.read(config, splits, classes, CONVERSION)


def levels(images):
    """The grey level of each image, with its name and its class."""
    found = images.read_images(np.arange(len(images.labels)))
    assert (found == found[:, :1, :1]).all()
    return {
        name: (int(image[0, 0, 0]), images.class_names[label])
        for name, image, label in zip(images.names, found, images.labels, strict=True)
    }


def test_folders_are_matched_by_name(tmp_path, capsys):
    save(tmp_path / 'dog/1.png', 10)
    save(tmp_path / 'dog/deep/er.png', 20, (8, 8))
    save(tmp_path / 'cat/1.png', 30)
    save(tmp_path / 'cat/same.png', 30)  # a copy counts too
    save(tmp_path / 'hen/1.png', 40)
    save(tmp_path / 'loose.png', 50)
    (tmp_path / 'cat/broken.png').write_bytes(b'no picture')
    (tmp_path / 'cat/notes.txt').write_text('x')
    images = read(path=tmp_path)
    assert levels(images) == {
        'cat/1.png': (30, 'cat'),
        'cat/same.png': (30, 'cat'),
        'dog/1.png': (10, 'dog'),
        'dog/deep/er.png': (20, 'dog'),
    }
    assert images.labels.tolist() == [1, 1, 2, 2]
    report = images.report
    assert report['classes_unknown_to_the_run'] == {'hen': 1}
    assert report['classes_without_images'] == ['owl']
    assert report['unreadable']['count'] == report['resized'] == 1
    assert report['unreadable']['examples'][0].startswith('cat/broken.png (')
    said = capsys.readouterr().out
    for note in (
        'left out: hen (1)',
        'no images of 1 of the 3 classes of the run: owl;',
        '1 image(s) cannot be read, left out; the first: cat/broken.png',
        "1 image(s) are not of 4x4 pixels, and were changed by the rule 'stretch'",
        'not used: 1 outside the folders, 1 .txt',
    ):
        assert note in said


def test_every_split_is_read_or_the_one_asked_for(tmp_path):
    save(tmp_path / 'test/cat/1.png', 10)
    save(tmp_path / 'val/owl/1.png', 20)
    assert levels(read(path=tmp_path)) == {
        'test/cat/1.png': (10, 'cat'),
        'val/owl/1.png': (20, 'owl'),
    }
    assert read(path=tmp_path).report['splits'] == {'test': 1, 'val': 1}
    assert list(levels(read(path=tmp_path, splits=['val']))) == ['val/owl/1.png']
    with pytest.raises(UserError, match=r'--split=train: .* has test, val splits'):
        read(path=tmp_path, splits=['train'])


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    save(tmp_path / 'test/1.png', 10)
    save(tmp_path / 'test/more/2.png', 20)
    images = read(path=tmp_path, classes=('good', 'test'))
    assert levels(images) == {'test/1.png': (10, 'test'), 'test/more/2.png': (20, 'test')}


def test_a_name_in_two_characters_is_the_same_class(tmp_path):
    save(tmp_path / 'cafe\u0301/1.png', 10)  # as macOS writes it
    assert list(levels(read(path=tmp_path, classes=('caf\u00e9',))).values()) == [(10, 'café')]


@pytest.mark.parametrize('suffix', ['npz', 'npy', 'csv'])
def test_labels_of_arrays_are_numbers_of_classes(tmp_path, suffix):
    pixels = np.full((4, 4, 4), [[[10]], [[20]], [[30]], [[40]]], np.uint8)
    labels, fields = np.array([2.0, 0.0, np.nan, 7.0]), {}
    path = tmp_path / f'images.{suffix}'
    if suffix == 'npz':
        np.savez(path, x_test=pixels, y_test=labels)
    elif suffix == 'npy':
        np.save(path, pixels)
        np.save(tmp_path / 'labels.npy', labels)
        fields = {'labels_path': str(tmp_path / 'labels.npy')}
    else:
        header = ','.join(['label', *(f'p{i}' for i in range(16))])
        table = np.column_stack([labels, pixels.reshape(4, -1)])
        np.savetxt(path, table, delimiter=',', header=header, comments='')
    images = read('arrays', path, **fields)
    split = 'test' if suffix == 'npz' else 'train'
    assert levels(images) == {f'{split}[0]': (10, 'dog'), f'{split}[1]': (20, 'owl')}
    assert images.report['without_label'] == 1
    assert images.report['classes_unknown_to_the_run'] == {'7': 1}


def test_labels_of_arrays_are_names_if_the_classes_are_numbers(tmp_path):
    np.savez(tmp_path / 'a.npz', images=np.zeros((2, 4, 4), np.uint8), labels=[3, 8])
    images = read('arrays', tmp_path / 'a.npz', classes=('1', '3', '8'))
    assert images.labels.tolist() == [1, 2]


def test_white_of_arrays_is_decided_for_all_of_them(tmp_path):
    """The second image alone would be taken for one from 0 to 1."""
    pixels = np.stack([np.full((4, 4), 255.0), np.full((4, 4), 1.0)])
    np.savez(tmp_path / 'a.npz', images=pixels, labels=[0, 1])
    found = levels(read('arrays', tmp_path / 'a.npz'))
    assert [level for level, _ in found.values()] == [255, 1]


def test_a_data_set_by_its_name(data_dir):
    config = defaults.get_config().data
    config.name, config.dir = 'fashion_mnist_mini', str(data_dir)
    classes = ('Bag', 'Coat', 'Hat')
    conversion = Conversion(size=(14, 14), channels=3, resize='stretch')
    images = given.read(config, ['test'], classes, conversion)
    assert images.image_shape == (14, 14, 3)
    assert np.bincount(images.labels, minlength=3).tolist() == [50, 50, 0]
    assert sum(images.report['classes_unknown_to_the_run'].values()) == 400


def test_nothing_to_evaluate_is_refused(tmp_path):
    with pytest.raises(UserError, match='is not a folder'):
        read(path=tmp_path / 'none')
    with pytest.raises(UserError, match='no images in folders named like classes; found: nothing'):
        read(path=tmp_path)
    save(tmp_path / 'hen/1.png', 0)
    message = 'none of the 1 images is of a class of the run; their classes are hen, those of the'
    with pytest.raises(UserError, match=message):
        read(path=tmp_path)
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/1.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'none of the 1 images can be read: cat/1\.png'):
        read(path=tmp_path)
