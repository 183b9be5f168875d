"""What a source gives back is what was put in, in any order and in any process."""

import contextlib
import pickle
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from configs import cnn
from neptune_jax import defaults
from neptune_jax.data.sources import builder, images, opening, raw
from neptune_jax.data.sources import source as source_module
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5, 3)).astype(np.uint8)
IMAGES[13] = IMAGES[2]
LABELS = np.arange(20) % 4


@pytest.fixture
def read(tmp_path):
    def read(**fields):
        config = cnn.get_config().data
        config.update({'dir': str(tmp_path / 'data')} | fields)
        return opening.open_source(config)

    return read


@pytest.fixture
def source(read, tmp_path):
    """Twelve images to train, three to validate, five to test."""
    parts = {'train': slice(12), 'val': slice(12, 15), 'test': slice(15, 20)}
    arrays = {f'x_{split}': IMAGES[part] for split, part in parts.items()}
    arrays |= {f'y_{split}': LABELS[part] for split, part in parts.items()}
    np.savez(tmp_path / 'raw.npz', **arrays)
    return read(name='arrays', path=str(tmp_path / 'raw.npz'))


def test_what_a_source_says_of_itself(source):
    assert len(source) == 20
    assert source.nbytes == IMAGES.nbytes
    assert source.image_shape == (6, 5, 3)
    assert source.class_names == ('0', '1', '2', '3')
    assert {split: part.tolist() for split, part in source.splits.items()} == {
        'train': list(range(12)),
        'val': [12, 13, 14],
        'test': [15, 16, 17, 18, 19],
    }
    assert source.before == {'train': 12, 'val': 3, 'test': 5}
    names = [source.name(i) for i in (0, 11, 12, 14, 15, 19)]
    assert names == ['train[0]', 'train[11]', 'val[0]', 'val[2]', 'test[0]', 'test[4]']


@pytest.mark.parametrize(
    'indices', [range(20), [19, 0, 14, 12, 11, 15], [3, 3, 16, 3], [13], np.array([], np.int64)]
)
def test_examples_are_read_in_any_order_also_after_pickling(source, indices):
    reader = source.reader()
    reader.read([0])
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000  # what it has opened is not in it
    for each in (reader, pickle.loads(pickled)):
        pixels, labels = each.read(indices)
        np.testing.assert_array_equal(pixels, IMAGES[list(indices)])
        np.testing.assert_array_equal(labels, LABELS[list(indices)])
        assert (pixels.dtype, labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize('chunk', [1, 3, 7, 100])
def test_all_images_are_those_of_the_records(source, monkeypatch, chunk):
    monkeypatch.setattr(source_module, 'CHUNK', chunk * IMAGES[0].nbytes)
    np.testing.assert_array_equal(source.images(), IMAGES)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    assert source.index()['digest'].shape == (20,)


def test_the_index(source):
    index = source.index()
    wide = IMAGES.astype(np.int64)
    np.testing.assert_array_equal(index['label'], LABELS)
    np.testing.assert_array_equal(index['sum'], wide.sum(axis=(1, 2)))
    np.testing.assert_array_equal(index['squares'], (wide**2).sum(axis=(1, 2)))
    np.testing.assert_array_equal(index['low'], IMAGES.min(axis=(1, 2)))
    np.testing.assert_array_equal(index['high'], IMAGES.max(axis=(1, 2)))
    assert (index['near'] == -1).all()
    same = index['digest'][:, None] == index['digest'][None, :]
    expected = np.eye(20, dtype=bool)
    expected[2, 13] = expected[13, 2] = True
    np.testing.assert_array_equal(same, expected)


def test_an_index_of_an_earlier_version_is_written_anew(source):
    before = source.index()
    del before['near']
    np.savez(source.directory / 'index.npz', **before, perceptual=np.zeros(20, 'V32'))
    index = source.index()
    assert (index['near'] == -1).all()
    np.testing.assert_array_equal(index['digest'], before['digest'])


@pytest.mark.parametrize('name', ['images.npy', 'index.npz'])
def test_a_cache_that_cannot_be_written(source, name):
    (source.directory / name).mkdir()
    with pytest.raises(UserError, match=r'data.dir=.* cannot be used .*--config.data.dir'):
        source.images() if name == 'images.npy' else source.index()
    assert not [path for path in source.directory.iterdir() if path.name.startswith('.')]


@contextlib.contextmanager
def files_up_to(size):
    """Lets no file of this process grow above a size: as on a full disk, a write fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_while_data_are_prepared_leaves_nothing_behind(read, tmp_path):
    for _ in range(2):
        with files_up_to(100_000), pytest.raises(UserError) as error:
            read(name='synthetic', examples=120)
        assert re.fullmatch(
            r'data.dir=.*/data. cannot be used \(File too large, while it was written\); set '
            r'--config.data.dir to a folder that can be written and has room',
            str(error.value),
        )
        assert list((tmp_path / 'data').iterdir()) == []
    assert len(read(name='synthetic', examples=120)) == 120


def test_a_full_disk_while_images_are_unpacked_leaves_nothing_behind(read):
    source = read(name='synthetic', examples=120)
    for size, unpack in ((1000, source.index), (120 * 32 * 32 * 3, source.images)):
        before = sorted(source.directory.iterdir())
        with files_up_to(size), pytest.raises(UserError, match=r'File too large.*has room'):
            unpack()
        assert sorted(source.directory.iterdir()) == before
        source.index()
    assert source.images().shape == (120, 32, 32, 3)
    assert source.images().flags.c_contiguous


SYNTHETIC = {'name': 'synthetic', 'examples': 120, 'classes': 5, 'image_size': (9, 7)}


def test_synthetic_images_depend_on_the_seed_alone(read, tmp_path):
    first = read(**SYNTHETIC)
    again = read(**SYNTHETIC, dir=str(tmp_path / 'again'))
    other = read(**SYNTHETIC, split_seed=1)
    assert first.image_shape == (9, 7, 3)
    assert {split: len(part) for split, part in first.splits.items()} == {'train': 100, 'test': 20}
    assert np.bincount(first.index()['label']).tolist() == [24] * 5
    np.testing.assert_array_equal(first.images(), again.images())
    assert (first.images() != other.images()).mean() > 0.9
    noises = [
        np.concatenate([pixels[label::5] - pixels[label::5].mean(axis=0) for label in range(5)])
        for pixels in (first.images().astype(float), other.images().astype(float))
    ]
    # 22,680 pixels: five standard deviations of the correlation of two noises are 0.033.
    assert abs(np.corrcoef(*map(np.ravel, noises))[0, 1]) < 0.033
    assert noises[0].std() == pytest.approx(32, rel=0.05)


@pytest.mark.parametrize('channels', [1, 3])
def test_synthetic_images_are_separable(read, channels):
    source = read(**SYNTHETIC | {'channels': channels})
    pixels = source.images().reshape(120, -1).astype(float)
    labels, train, test = source.index()['label'], source.splits['train'], source.splits['test']
    means = np.stack([pixels[train][labels[train] == label].mean(axis=0) for label in range(5)])
    distances = ((pixels[test][:, None] - means[None]) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == labels[test]).mean() > 0.95


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'classes': 1}, 'data.classes=1 of data.examples=120: there must be at least two'),
        ({'examples': 29}, 'data.classes=5 of data.examples=29: .* six examples for each'),
        ({'channels': 4}, 'data.channels=4 must be'),
        ({'image_size': (0, 0)}, 'data.image_size'),
        ({'examples': 2**31 - 1, 'image_size': (999, 999)}, r'data.examples=\d+ .* GiB, but there'),
    ],
)
def test_synthetic_images_that_cannot_be(read, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        read(**SYNTHETIC | fields)
    assert not (tmp_path / 'data').exists()


EMPTY = 'data.archive_dir={folder!r} holds no '
IDX = EMPTY + 'train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz'


NEEDED = {
    **dict.fromkeys(('mnist', 'kmnist', 'fashion_mnist', 'fashion_mnist_mini'), IDX),
    'cifar10': EMPTY + 'cifar-10-binary.tar.gz',
    'cifar100': EMPTY + 'cifar-100-binary.tar.gz',
    'image_folder': "data.name='image_folder' needs --config.data.path",
    'arrays': "data.name='arrays' needs --config.data.path",
    'tfds:NAME': 'tfds:NAME: ',
}


@pytest.mark.parametrize('name', NEEDED)
def test_a_source_is_known_by_its_name_and_says_what_it_needs(read, tmp_path, name):
    (tmp_path / 'empty').mkdir()
    fields = {'archive_dir': str(tmp_path / 'empty')} if 'archive_dir' in NEEDED[name] else {}
    with pytest.raises(UserError) as caught:
        read(name=name, **fields)
    assert str(caught.value).startswith(NEEDED[name].format(folder=str(tmp_path / 'empty')))


def test_no_source_is_left_out_above():
    assert {*NEEDED, 'synthetic'} == {*opening.SOURCES}  # synthetic images need nothing


@pytest.mark.parametrize(
    ('name', 'shape', 'classes'),
    [
        ('mnist', (28, 28, 1), ['0', '1', '9']),
        ('kmnist', (28, 28, 1), ['o', 'ki', 'wo']),
        ('fashion_mnist', (28, 28, 1), ['T-shirt/top', 'Trouser', 'Ankle boot']),
        ('fashion_mnist_mini', (28, 28, 1), ['T-shirt/top', 'Trouser', 'Ankle boot']),
        ('cifar10', (32, 32, 3), ['airplane', 'automobile', 'truck']),
        ('cifar100', (32, 32, 3), ['apple', 'aquarium_fish', 'worm']),
    ],
)
def test_the_name_of_an_archive_is_that_of_its_classes(read, tmp_path, name, shape, classes):
    config = cnn.get_config().data
    created = opening.SOURCES[name](config, tmp_path).create_builder()
    found = [created.CLASS_NAMES[i] for i in (0, 1, -1)]
    assert (created.name, created.info.features['image'].shape, found) == (name, shape, classes)


def test_two_that_prepare_one_data_set_at_the_same_time_prepare_it_once(tmp_path):
    directory = tmp_path / 'data/kind/1.0.0'
    both, prepared = threading.Barrier(2, timeout=20), []

    class Slow:
        def download_and_prepare(self):
            prepared.append(directory.exists())
            time.sleep(0.3)
            directory.mkdir(parents=True)
            (directory / 'dataset_info.json').touch()

        def close(self):
            pass

    def create_builder():
        both.wait()  # neither has found it prepared
        return Slow()

    def prepare():
        builder.prepare(builder.Preparation(directory, create_builder), tmp_path / 'data')

    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(prepare) for _ in range(2)]:
            future.result(timeout=60)
    assert prepared == [False]


def test_the_table_of_fields_has_the_same_choices():
    for name, names in {
        'resize': ('', *images.RESIZE),
        'clean.missing_pixels': images.FILL,
        'clean.unreadable': raw.UNREADABLE,
    }.items():
        assert {*defaults.FIELDS[f'data.{name}'].choices} == {*names}


def test_an_unknown_source_is_refused_with_the_list(read):
    with pytest.raises(UserError, match=r"data.name='minst' is unknown; choose one of: ") as caught:
        read(name='minst')
    for name in opening.SOURCES:
        assert name in str(caught.value)


def test_a_data_folder_below_home(read, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    read(**SYNTHETIC, dir='~/images').images()
    assert list((tmp_path / 'images/synthetic').rglob('images.npy'))


@pytest.mark.parametrize(
    ('name', 'fields', 'message'),
    [
        ('synthetic', {'archive_dir': 'here'}, "data.archive_dir='here' is not used by .*'synthe"),
        (
            'arrays',
            {'archive_dir': 'here'},
            "data.archive_dir='here' .* --config.data.archive_dir=",
        ),
        ('tfds:mnist', {'archive_dir': 'here'}, "not used by data.name='tfds:mnist'; set"),
        ('cifar10', {'labels_path': 'y.npy'}, "data.labels_path='y.npy' is not used by .*cifar10"),
        ('image_folder', {'label_column': 'y'}, "data.label_column='y' .* .*label_column=label or"),
        (
            'mnist',
            {'examples': 99},
            'data.examples=99 is not used by .* --config.data.examples=6000',
        ),
        ('mnist', {'classes': 2}, 'data.classes=2 is not used by .* --config.data.classes=10 or'),
    ],
)
def test_what_is_set_for_another_source_is_refused(read, tmp_path, name, fields, message):
    with pytest.raises(UserError, match=message) as caught:
        read(name=name, path='images', **fields)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'data').exists()


def test_what_a_config_for_images_of_ones_own_sets_is_named_for_other_sources(
    read, data_dir, capsys
):
    fields = {'path': 'images', 'image_size': (9, 9), 'channels': 1, 'resize': 'crop'}
    fields |= {'white': 9.0}
    mini = {'name': 'fashion_mnist_mini', 'dir': str(data_dir)}
    read(**mini, **fields)
    assert (
        "note     data.name='fashion_mnist_mini' does not use data.path, data.image_size, "
        'data.channels, data.resize, data.white\n'
    ) in capsys.readouterr().out
    read(**mini)
    read(**SYNTHETIC, channels=1)
    assert 'note' not in capsys.readouterr().out
