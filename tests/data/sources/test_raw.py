"""Raw images are read to prepare a data set, and never again."""

import os
import shutil
import sys
import types
import weakref
from pathlib import Path

import numpy as np
import pytest

from configs import cnn
from neptune_jax.data import dataset
from neptune_jax.data.sources import files, raw
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


_watched: list[str] = []  # the files that Python opened since a test began to watch
_is_watched = False


def _watch(event, args):
    if _is_watched and event == 'open':
        _watched.append(os.fsdecode(args[0]) if isinstance(args[0], (str, bytes)) else '')


@pytest.fixture
def opened(monkeypatch):
    """Returns a function that gives the names of the files in a folder that have been opened."""
    if not _watched:
        sys.addaudithook(_watch)  # stays as long as the process lives
        _watched.append('')
    monkeypatch.setattr(sys.modules[__name__], '_is_watched', True)
    start = len(_watched)
    return lambda folder: {Path(name).name for name in _watched[start:] if str(folder) in name}


def save_npz(folder):
    np.savez(folder / 'raw.npz', images=IMAGES, labels=LABELS)
    return {'path': str(folder / 'raw.npz')}


def save_npy(folder):
    np.save(folder / 'images.npy', IMAGES)
    np.save(folder / 'labels.npy', LABELS)
    return {'path': str(folder / 'images.npy'), 'labels_path': str(folder / 'labels.npy')}


def save_csv(folder):
    table = np.column_stack([LABELS, IMAGES.reshape(12, 30)])
    header = ','.join(['digit', *map(str, range(30))])
    np.savetxt(folder / 'raw.csv', table, fmt='%d', delimiter=',', header=header, comments='')
    return {'path': str(folder / 'raw.csv'), 'label_column': 'digit', 'image_size': (6, 5)}


@pytest.mark.parametrize('save', [save_npz, save_npy, save_csv])
def test_a_prepared_array_is_not_read_again(read, tmp_path, save, request):
    raw = tmp_path / 'raw'
    raw.mkdir()
    fields = {'name': 'arrays'} | save(raw)
    first = read(**fields)
    opened = request.getfixturevalue('opened')
    again = read(**fields)
    assert opened(raw) == set()
    assert again.full_name == first.full_name
    assert again.class_names == ('0', '1', '2')
    assert again.name(7) == 'train[7]'
    np.testing.assert_array_equal(again.images()[..., 0], IMAGES)
    # With other settings it must be read, and a file that has changed too.
    for path in raw.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    for other in ({}, {'resize': 'crop'}, {'clean.unreadable': 'error'}):
        with pytest.raises(UserError, match=r'cannot be read|no column'):
            read(**fields, **other)


def change(path, new):
    """Gives a file the bytes of another one, and keeps its size and its time of change."""
    status = path.stat()
    content = new.read_bytes()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_other_pixels_of_the_same_size_and_time_are_seen(read, write, tmp_path):
    write({f'{i % 2}/{i}.bmp': image for i, image in enumerate(IMAGES)})
    np.testing.assert_array_equal(read().images()[0, ..., 0], IMAGES[0])
    change(tmp_path / 'raw/0/0.bmp', tmp_path / 'raw/1/1.bmp')
    np.testing.assert_array_equal(read().images()[0, ..., 0], IMAGES[1])
    # Another file in its place, with all its times: a new inode.
    twin = tmp_path / 'twin.bmp'
    shutil.copy2(tmp_path / 'raw/0/2.bmp', twin)
    twin.replace(tmp_path / 'raw/0/0.bmp')
    np.testing.assert_array_equal(read().images()[0, ..., 0], IMAGES[2])


@pytest.mark.parametrize('field', ['st_size', 'st_mtime_ns', 'st_ctime_ns', 'st_ino'])
def test_each_of_these_alone_says_that_a_file_has_changed(field, monkeypatch):
    status = types.SimpleNamespace(st_size=1, st_mtime_ns=2, st_ctime_ns=3, st_ino=4)
    monkeypatch.setattr(Path, 'exists', lambda path: True)
    monkeypatch.setattr(Path, 'stat', lambda path: status)
    before = raw._fingerprint([Path('a.png')])
    assert raw._fingerprint([Path('a.png')]) == before
    setattr(status, field, 9)
    assert raw._fingerprint([Path('a.png')]) != before


@pytest.mark.parametrize('save', [save_npz, save_npy, save_csv])
def test_other_arrays_of_the_same_size_and_time_are_seen(read, tmp_path, save):
    (tmp_path / 'new').mkdir()
    fields = {'name': 'arrays'} | save(tmp_path)
    np.testing.assert_array_equal(read(**fields).images()[..., 0], IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], 'IMAGES', IMAGES[::-1])
        new = Path(save(tmp_path / 'new')['path'])
    change(Path(fields['path']), new)
    np.testing.assert_array_equal(read(**fields).images()[..., 0], IMAGES[::-1])


@pytest.mark.parametrize('unreadable', ['drop', 'error'])
@pytest.mark.parametrize('place', [0, 5])  # the first image also decides on the size
def test_a_file_that_the_disk_does_not_give_is_no_damaged_one(
    read, write, refused, tmp_path, unreadable, place
):
    write({f'{i % 2}/{i}.png': image for i, image in enumerate(IMAGES)})
    path = tmp_path / f'raw/{place % 2}/{place}.png'
    path.unlink()
    path.symlink_to('/proc/self/mem')  # Linux answers a read of its start with EIO
    refused(
        r'\d.png.*Input/output error|Input/output error.*\d.png', **{'clean.unreadable': unreadable}
    )
    path.unlink()
    write({f'{place % 2}/{place}.png': IMAGES[place]})
    assert read(**{'clean.unreadable': unreadable}).report == {}


def test_a_file_that_may_not_be_read_is_used_once_it_may_be(
    read, write, refused, tmp_path, monkeypatch
):
    write({f'{i % 2}/{i}.png': image for i, image in enumerate(IMAGES)})

    def denied(path, mode):
        if path.endswith('0/10.png'):
            raise PermissionError(13, 'Permission denied', path)
        return open(path, mode)

    with monkeypatch.context() as patch:  # chmod does not keep root out
        patch.setattr(files, 'open', denied, raising=False)
        refused(
            r'^0/10.png cannot be read now \(.*Permission denied: .*/0/10.png.\), and so nothing '
            'was prepared; make it readable, or take it away, and start again$'
        )
    assert read().report == {}


@pytest.mark.parametrize('fields', [{}, {'image_size': (6, 5), 'channels': 1}])
def test_an_image_for_which_memory_is_too_short_is_no_damaged_one(
    read, write, refused, monkeypatch, fields
):
    write({f'{i % 2}/{i}.png': image for i, image in enumerate(IMAGES)})

    def short(*args, **kwargs):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr('PIL.Image.open', short)
        refused(r'cannot be read.*out of memory', **fields)
    assert read(**fields).report == {}


def test_a_prepared_folder_is_listed_but_not_read_again(read, write, tmp_path, request):
    write({f'train/{i % 2}/{i}.png': image for i, image in enumerate(IMAGES)})
    (tmp_path / 'raw/train/1/0.png').write_text('nothing')
    first = read()
    opened = request.getfixturevalue('opened')
    again = read()
    assert opened(tmp_path / 'raw') <= {'raw', 'train', '0', '1'}
    assert again.full_name == first.full_name
    names = [again.name(i) for i in range(12)]
    assert names[:2] == ['train/0/0.png', 'train/0/10.png']
    assert names[6:8] == ['train/1/1.png', 'train/1/11.png']  # without the unreadable one
    assert again.report['unreadable']['count'] == 1
    assert sorted(names) == sorted(f'train/{i % 2}/{i}.png' for i in range(12))


def test_no_array_stays_in_memory_when_batches_are_streamed(tmp_path, monkeypatch):
    loaded, get = [], np.lib.npyio.NpzFile.__getitem__

    def recorded(self, key):
        array = get(self, key)
        if key == 'images':
            loaded.append(weakref.ref(array if array.base is None else array.base))
        return array

    monkeypatch.setattr(np.lib.npyio.NpzFile, '__getitem__', recorded)
    config = cnn.get_config().data
    config.update({'name': 'arrays', 'mode': 'stream', 'dir': str(tmp_path / 'data')})
    config.update({'test_fraction': 0.25, 'val_fraction': 0.25} | save_npz(tmp_path))
    data = dataset.load(config)
    assert loaded
    assert [array() is None for array in loaded] == [True] * len(loaded)
    assert data.images is None
    np.testing.assert_array_equal(data.read_images([7])[0, ..., 0], IMAGES[7])
