"""Raw images are read to prepare a data set, and never again."""

import os
import weakref

import numpy as np
import pytest

from configs import cnn
from neptune_jax.data import dataset
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


def destroy(path):
    """Overwrites a file and keeps its size and time of change. Who reads it will fail."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


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
def test_a_prepared_array_is_not_read_again(read, tmp_path, save):
    raw = tmp_path / 'raw'
    raw.mkdir()
    fields = {'name': 'arrays'} | save(raw)
    first = read(**fields)
    for path in raw.iterdir():
        destroy(path)
    again = read(**fields)
    assert again.full_name == first.full_name
    assert again.class_names == ('0', '1', '2')
    assert again.name(7) == 'train[7]'
    np.testing.assert_array_equal(again.images()[..., 0], IMAGES)
    # With other settings it must be read, and a file that has changed too.
    for other in ({'resize': 'crop'}, {'clean.unreadable': 'error'}):
        with pytest.raises(UserError, match=r'cannot be read|no column'):
            read(**fields, **other)
    os.utime(next(raw.iterdir()))
    with pytest.raises(UserError, match=r'cannot be read|no column'):
        read(**fields)


def test_a_prepared_folder_is_listed_but_not_read_again(read, write, tmp_path):
    write({f'train/{i % 2}/{i}.png': image for i, image in enumerate(IMAGES)})
    (tmp_path / 'raw/train/1/0.png').write_text('nothing')
    first = read()
    for path in (tmp_path / 'raw').rglob('*.png'):
        destroy(path)
    again = read()
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
