"""Folders of images as people have them."""

import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (12, 7, 6, 3)).astype(np.uint8)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TWO_CLASSES = {
    'cat/1.png': PHOTOS[0],
    'cat/2.png': PHOTOS[1],
    'dog/1.png': PHOTOS[2],
    'dog/2.png': PHOTOS[3],
}


def test_three_splits(read, write):
    write({f'train/{name}': image for name, image in TWO_CLASSES.items()})
    write({'val/dog/1.bmp': PHOTOS[4], 'test/dog/5.PNG': PHOTOS[6], 'test/cat/1.png': PHOTOS[5]})
    source = read()
    assert source.class_names == ('cat', 'dog')
    assert {name: part.tolist() for name, part in source.splits.items()} == {
        'train': [0, 1, 2, 3],
        'val': [4],
        'test': [5, 6],
    }
    np.testing.assert_array_equal(source.images(), PHOTOS[:7])
    assert source.index()['label'].tolist() == [0, 0, 1, 1, 1, 0, 1]
    assert source.report == {}


def test_classes_directly_in_the_path(read, write, tmp_path):
    write(TWO_CLASSES)
    write({'.thumbnails/1.png': PHOTOS[5], 'cat/.1.png': PHOTOS[5], 'cover.png': PHOTOS[5]})
    (tmp_path / 'raw/cat/notes.txt').write_text('two cats')
    source = read()
    np.testing.assert_array_equal(source.images(), PHOTOS[:4])
    assert source.class_names == ('cat', 'dog')
    assert list(source.splits) == ['train']


def test_a_file_name_in_another_encoding(read, write):
    write(TWO_CLASSES)
    write({os.fsdecode(b'cat/caf\xe9.png'): PHOTOS[4]})
    np.testing.assert_array_equal(read().images(), PHOTOS[[0, 1, 4, 2, 3]])


@pytest.mark.parametrize('channels', [1, 3])
def test_mixed_modes_and_sizes(read, write, channels):
    write(
        {
            'a/1.png': Image.new('L', (20, 10), 100),
            'a/2.gif': Image.new('P', (5, 9), 0),  # of an empty palette: black
            'a/3.jpg': Image.new('RGB', (8, 8), (200, 200, 200)),
            'b/1.webp': Image.new('RGB', (30, 40), (60, 60, 60)),
            'b/2.png': Image.new('RGBA', (9, 3), (0, 0, 0, 0)),
            'b/3.png': Image.new('I;16', (4, 4), 257 * 30),
        }
    )
    source = read(image_size=(6, 4), channels=channels, resize='stretch')
    assert source.image_shape == (6, 4, channels)
    flat = np.array([100, 0, 200, 60, 255, 30])
    expected = np.broadcast_to(flat.reshape(-1, 1, 1, 1), (6, 6, 4, channels))
    np.testing.assert_allclose(source.images(), expected, atol=2)
    assert source.report['resized']['count'] == 6
    changed = {'from_p': ['a/2.gif'], 'from_rgba': ['b/2.png'], 'from_uint16': ['b/3.png']}
    changed |= {'from_l': ['a/1.png']} if channels == 3 else {'from_rgb': ['a/3.jpg', 'b/1.webp']}
    for rule, names in changed.items():
        assert set(names) <= set(source.report[rule]['examples'])


@pytest.mark.parametrize(('mode', 'channels'), [('L', 1), ('LA', 1), ('1', 1), ('RGBA', 3)])
def test_the_first_image_decides_on_size_and_channels(read, write, mode, channels):
    write({'a/1.png': Image.new(mode, (4, 5)), 'a/2.png': Image.new('RGB', (6, 7))})
    write({'b/1.png': Image.new('L', (8, 9)), 'b/2.png': Image.new('L', (10, 11))})
    assert read(resize='crop').image_shape == (5, 4, channels)


def test_an_example_is_named_by_its_file_also_after_some_that_were_left_out(read, write, tmp_path):
    write({f'train/{name}': image for name, image in TWO_CLASSES.items()})
    write({'train/cat/0.png': PHOTOS[4], 'train/cat/3.png': PHOTOS[5], 'test/dog/1.png': PHOTOS[6]})
    truncate(tmp_path / 'raw/train/cat/0.png')
    truncate(tmp_path / 'raw/train/cat/2.png')
    expected = [f'train/{name}.png' for name in ('cat/1', 'cat/3', 'dog/1', 'dog/2')]
    for _ in ('fresh', 'prepared'):
        source = read()
        assert [source.name(i) for i in range(5)] == [*expected, 'test/dog/1.png']


def test_a_truncated_file_is_dropped_and_named_or_refused(read, write, refused, tmp_path):
    write(TWO_CLASSES)
    write({'cat/0.png': PHOTOS[:, 0], 'dog/3.png': PHOTOS[4]})
    truncate(tmp_path / 'raw/cat/0.png')  # the first of all, and of another size
    truncate(tmp_path / 'raw/dog/3.png')
    (tmp_path / 'raw/dog/4.png').symlink_to('nowhere.png')
    refused(
        r'^cat/0.png: .*; mend or remove it, or set --config.data.clean.unreadable=drop',
        **{'clean.unreadable': 'error'},
    )
    source = read()
    np.testing.assert_array_equal(source.images(), PHOTOS[:4])
    rule = source.report['unreadable']
    assert rule['count'] == 3
    for name, example in zip(
        ('cat/0.png (', 'dog/3.png (', 'dog/4.png ('), rule['examples'], strict=True
    ):
        assert example.startswith(name)
    # Also now that a prepared data set without them is there.
    with pytest.raises(UserError, match=r'^cat/0.png: '):
        read(**{'clean.unreadable': 'error'})


def test_a_split_of_which_nothing_can_be_used(write, refused, tmp_path):
    write({f'train/{name}': image for name, image in TWO_CLASSES.items()})
    write({'val/cat/1.png': PHOTOS[4]})
    truncate(tmp_path / 'raw/val/cat/1.png')
    refused(r"none of the 1 images of the split 'val' can be used; the last is val/cat/1.png: ")
    truncate(tmp_path / 'raw/train/cat/1.png')
    for path in (tmp_path / 'raw/train').rglob('*.png'):
        path.write_text('nothing')
    refused(r'raw/train: none of the 4 images can be read; the last: cannot identify image file')


def test_a_bomb_is_dropped_and_does_not_decide_on_the_size(read, write):
    write(TWO_CLASSES)
    write({'cat/0.png': Image.new('L', (50, 40))})
    source = read(**{'clean.max_pixels': 1999})
    np.testing.assert_array_equal(source.images(), PHOTOS[:4])
    (example,) = source.report['unreadable']['examples']
    assert example == 'cat/0.png (50x40 pixels are more than data.clean.max_pixels=1999)'


def test_the_prepared_data_are_used_again_until_a_file_changes(read, write, tmp_path):
    def state():
        files = (path for path in (tmp_path / 'data').rglob('*') if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    write(TWO_CLASSES)
    read().images()
    before = state()
    np.testing.assert_array_equal(read().images(), PHOTOS[:4])
    assert state() == before
    write({'dog/1.png': PHOTOS[8]})
    np.testing.assert_array_equal(read().images(), PHOTOS[[0, 1, 8, 3]])
    assert before.items() < state().items()
    assert read(channels=1).image_shape == (7, 6, 1)


def test_different_sizes_need_resize(read, write, refused):
    write(TWO_CLASSES)
    write({'dog/3.png': np.zeros((9, 8, 3), np.uint8)})
    for unreadable in ('drop', 'error'):
        refused(
            r'^dog/3.png: 9x8 pixels where 7x6 are expected; set --config.data.resize to ',
            **{'clean.unreadable': unreadable},
        )
    assert len(read(resize='pad')) == 5


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ([], 'raw has no images; put those of each class into a folder'),
        (['1.png'], 'raw has no images'),
        (['train/'], 'raw/train has no images'),
        (['cat/1.png', 'cat/2.png'], 'raw has only class cat: there is nothing to classify'),
        (['cat/1.png', 'cat/2.png', 'dog/1.png'], 'raw: class dog has one image'),
        (
            ['cat/1.png', 'cat/2.png', 'dog/'],
            r'raw has only class cat \(without images: dog \(nothing\)\): there is nothing',
        ),
        (['cat/1.png', 'cat/2.png', 'dog /1.png', 'dog /2.png'], "rename the folder 'dog '"),
        ([*map('train/{}'.format, TWO_CLASSES), 'test/'], 'raw/test has no images'),
        (
            [*map('train/{}'.format, TWO_CLASSES), 'test/cow/1.png'],
            "raw/test/cow: training has no class 'cow'",
        ),
    ],
)
def test_folders_that_are_refused(write, refused, tmp_path, files, message):
    (tmp_path / 'raw').mkdir()
    for name in files:
        if name.endswith('/'):
            (tmp_path / 'raw' / name).mkdir()
        else:
            write({name: PHOTOS[0]})
    refused(message)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'path': ''}, "data.name='image_folder' needs --config.data.path"),
        ({'path': 'nowhere'}, "data.path='nowhere' is not a folder"),
        ({'resize': 'squeeze'}, "data.resize='squeeze' .* stretch, crop, pad"),
        ({'channels': 2}, 'data.channels=2 must be 1, 3, or 0'),
        ({'image_size': (8,)}, r'data.image_size=\(8,\) must be a height and a width'),
        ({'image_size': (8, 0)}, r'data.image_size=\(8, 0\) must be a height and a width'),
        ({'clean.unreadable': 'keep'}, "data.clean.unreadable='keep' .* drop, error"),
        (
            {'clean.missing_pixels': 'x'},
            "data.clean.missing_pixels='x' .* mean, median, zero, drop",
        ),
    ],
)
def test_options_that_are_refused(write, refused, fields, message):
    write(TWO_CLASSES)
    refused(message, **fields)


def test_a_folder_that_cannot_be_read_is_named(write, refused, tmp_path, monkeypatch):
    write(TWO_CLASSES)

    def denied(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr('os.scandir', denied)  # chmod does not keep root out
    refused(r"data.name='image_folder' cannot be read: .* Permission denied: .*raw")


def test_the_digits_of_scikit_learn_through_worker_processes(read, tmp_path):
    digits = load_digits()
    expected = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for i, (image, label) in enumerate(zip(expected, digits.target, strict=True)):
        path = tmp_path / f'raw/{label}/{i:04}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / 'raw/7/broken.png').write_bytes(path.read_bytes()[:60])
    source = read()
    order = np.argsort(digits.target, kind='stable')
    np.testing.assert_array_equal(source.images()[..., 0], expected[order])
    np.testing.assert_array_equal(source.index()['label'], digits.target[order])
    assert source.report['unreadable']['count'] == 1
    # An error comes out of the worker processes as well.
    Image.new('L', (9, 9)).save(tmp_path / 'raw/3/odd.png')
    with pytest.raises(UserError, match=r'^3/odd.png: 9x9 pixels where 8x8 are expected'):
        read()


def test_a_folder_beside_train_that_is_no_split_is_refused(read, tmp_path):
    for name in ('train/a', 'train/b', 'validation/a'):
        (tmp_path / 'raw' / name).mkdir(parents=True)
    with pytest.raises(UserError, match=r'raw/validation is not a split; name it val or test'):
        read()
