"""Data sets that tfds itself prepared, as a user of tfds would have them."""

import importlib.util
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import cnn
from neptune_jax.data import dataset
from neptune_jax.data.sources import catalogue, opening
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
CLASSES = tfds.features.ClassLabel(names=['cat', 'dog', 'cow'])
COLOUR = RNG.integers(0, 256, (12, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


class Animals(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The user's own builder; tfds finds what it prepared by its name."""

    VERSION = tfds.core.Version('1.0.0')
    url_infos = None

    def __init__(self, data_dir, features, splits):
        self.features, self.examples = features, splits
        super().__init__(data_dir=data_dir, file_format='array_record')

    def _info(self):
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(part) for split, part in self.examples.items()}

    def _generate_examples(self, examples):
        yield from enumerate(examples)


@pytest.fixture
def prepare(tmp_path):
    """Prepares `animals` from lists of (image, label)."""

    def prepare(image_feature, splits, label_feature=CLASSES):
        features = {'image': image_feature, 'label': label_feature}
        splits = {
            split: [{'image': image, 'label': int(label)} for image, label in part]
            for split, part in splits.items()
        }
        builder = Animals(tmp_path / 'data', features, splits)
        builder.download_and_prepare()
        return Path(builder.data_path)

    return prepare


@pytest.fixture
def read(tmp_path):
    def read(name='tfds:animals', **fields):
        config = cnn.get_config().data
        config.update(name=name, dir=str(tmp_path / 'data'), **fields)
        return opening.open_source(config)

    return read


@pytest.fixture
def refused(read):
    def refused(match, **fields):
        with pytest.raises(UserError, match=match) as caught:
            read(**fields)
        assert '\n' not in str(caught.value)

    return refused


def png(array):
    content = io.BytesIO()
    Image.fromarray(array).save(content, 'PNG')
    content.seek(0)
    return content


TENSOR = tfds.features.Tensor(shape=(6, 5, 3), dtype=np.uint8)
PAIRS = list(zip(COLOUR, LABELS, strict=True))


def test_the_splits_of_tfds(read, prepare):
    splits = {'test': PAIRS[9:], 'train': PAIRS[:6], 'validation': PAIRS[6:9]}
    prepare(TENSOR, splits | {'unlabelled': PAIRS[:1]})
    source = read()
    np.testing.assert_array_equal(source.images(), COLOUR)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    assert source.class_names == ('cat', 'dog', 'cow')
    sizes = {name: len(part) for name, part in source.splits.items()}
    assert sizes == {'train': 6, 'val': 3, 'test': 3}
    assert source.report == {}


def test_a_data_set_of_12_bits(read, prepare):
    deep = RNG.integers(0, 4096, (12, 6, 5, 1)).astype(np.uint16)
    deep[0, 0, 0] = 4095
    pairs = list(zip(deep, LABELS, strict=True))
    feature = tfds.features.Tensor(shape=(6, 5, 1), dtype=np.uint16)
    prepare(feature, {'train': pairs[:8], 'test': pairs[8:]})
    source = read()
    np.testing.assert_array_equal(source.images(), np.rint(deep * (255 / 4095)))
    assert [note[:21] for note in source.notes] == ['uint16 up to 4095: 40']
    np.testing.assert_array_equal(read(white=65535.0).images(), np.rint(deep / 257))


def test_splits_of_two_scales(refused, prepare):
    unit = list(zip((COLOUR / 255).astype(np.float32), LABELS, strict=True))
    bright = list(zip(COLOUR.astype(np.float32), LABELS, strict=True))
    feature = tfds.features.Tensor(shape=(6, 5, 3), dtype=np.float32)
    prepare(feature, {'train': bright, 'validation': unit})
    refused(r'^tfds:animals: 12 of 12 images of val \(validation\[0\], .* from 0 to 1, the others ')


def test_images_of_several_sizes(read, prepare, refused):
    whites = [np.full((4 + i, 9 - i, 3), 20 * i, np.uint8) for i in range(5)]
    prepare(
        tfds.features.Image(), {'train': [(png(white), i % 2) for i, white in enumerate(whites)]}
    )
    refused(r'^train\[1\]: 5x8 pixels where 4x9 are expected; set --config.data.resize')
    source = read(resize='stretch')
    assert source.image_shape == (4, 9, 3)
    assert source.images().mean(axis=(1, 2, 3)).tolist() == [0, 20, 40, 60, 80]
    source = read(resize='pad', image_size=(10, 10), channels=1)
    assert source.images().max(axis=(1, 2, 3)).tolist() == [0, 20, 40, 60, 80]
    assert source.images().shape == (5, 10, 10, 1)


def test_grey_images_without_a_channel(read, prepare):
    feature = tfds.features.Tensor(shape=(6, 5), dtype=np.uint8)
    prepare(feature, {'train': [(image[..., 0], label) for image, label in PAIRS]})
    np.testing.assert_array_equal(read().images(), COLOUR[..., :1])


def test_examples_without_a_label_are_dropped(read, prepare):
    prepare(TENSOR, {'train': [*PAIRS, (COLOUR[0], -1)]})
    source = read()
    assert len(source) == 12
    assert source.report['missing_labels'] == {'count': 1, 'examples': ['train[12]']}


def test_prepared_anew_it_is_read_anew(read, prepare):
    folder = prepare(TENSOR, {'train': PAIRS})
    np.testing.assert_array_equal(read().images(), COLOUR)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    prepare(TENSOR, {'train': PAIRS[::-1]})
    np.testing.assert_array_equal(read().images(), COLOUR[::-1])


def test_its_records_are_not_read_again(read, prepare, monkeypatch):
    prepare(TENSOR, {'train': PAIRS[:6], 'validation': PAIRS[6:]})
    first = read()
    monkeypatch.setattr(catalogue, '_record', None)  # who reads will fail
    again = read()
    assert again.full_name == first.full_name
    np.testing.assert_array_equal(again.images(), COLOUR)
    assert again.name(7) == 'validation[1]'


def test_damaged_records_are_refused_also_if_their_size_and_time_are_as_before(
    read, prepare, refused
):
    folder = prepare(TENSOR, {'train': PAIRS})
    read()
    (path,) = folder.glob('*array_record*')
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(
        UserError, match=r'animals/1.0.0, record \d+ of train cannot be read'
    ) as error:
        read()
    assert '\n' not in str(error.value)


def test_the_version_that_is_read_is_recorded(prepare, tmp_path):
    prepare(TENSOR, {'train': [(image, label) for image, label in PAIRS * 2]})
    config = cnn.get_config().data
    config.update(name='tfds:animals', dir=str(tmp_path / 'data'))
    config.clean.duplicates = 'keep'
    assert dataset.load(config).describe()['read_from'] == 'animals/1.0.0'


def test_a_data_set_that_is_not_prepared_leaves_no_folder_and_asks_no_bucket(
    read, refused, tmp_path, monkeypatch
):
    def asked(*args):
        raise AssertionError('tfds asks its bucket')

    monkeypatch.setattr('tensorflow_datasets.core.utils.gcs_utils.gcs_dataset_info_files', asked)
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    read('synthetic', examples=60)
    if importlib.util.find_spec('tensorflow') is None:
        refused('tfds:mnist is not prepared', name='tfds:mnist')
    assert list((tmp_path / 'temporary').iterdir()) == []


def test_a_data_set_of_the_catalogue_prepared_elsewhere(read, tmp_path):
    images = np.tile(COLOUR[..., 0], (1, 5, 6))[:, :28, :28]

    class Mnist(tfds.image_classification.MNIST, skip_registration=True):
        name = 'mnist'
        url_infos = None

        def _split_generators(self, dl_manager):
            examples = [{'image': png(image), 'label': i % 10} for i, image in enumerate(images)]
            return {'train': enumerate(examples)}

    Mnist(data_dir=tmp_path / 'data', file_format='array_record').download_and_prepare()
    source = read('tfds:mnist')
    assert source.class_names == tuple('0123456789')
    found = {
        image.tobytes(): label
        for image, label in zip(source.images(), source.index()['label'], strict=True)
    }
    assert found == {image.tobytes(): i % 10 for i, image in enumerate(images)}  # tfds shuffled


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('tfds:no_such_thing', 'tfds:no_such_thing: neither tfds nor .*/data has such a data set'),
        ('tfds:NAME', 'neither tfds nor'),
        ('tfds:no:thing', 'neither tfds nor'),
        ('tfds:', 'tfds:: Parsing builder name string  ?failed'),
        ('tfds:../mnist', 'tfds:../mnist: Parsing builder name string'),
        ('tfds:mnist:9.9.9', 'cannot be loaded at version 9.9.9, only: '),
        ('tfds:mnist/deep', 'BuilderConfig deep not found'),
        ('tfds:mnist/a=1', "unexpected keyword argument 'a'"),
    ],
)
def test_a_name_that_tfds_does_not_know(refused, name, message):
    refused(message, name=name)


@pytest.mark.skipif(importlib.util.find_spec('tensorflow') is not None, reason='it is installed')
@pytest.mark.parametrize('name', ['mnist', 'cifar10_corrupted', 'coco'])
def test_what_tensorflow_must_prepare_is_refused_at_once(refused, tmp_path, name):
    start = time.perf_counter()
    refused(rf'tfds:{name} is not prepared .*pip install tensorflow', name=f'tfds:{name}')
    assert time.perf_counter() - start < 5
    assert not (tmp_path / 'data').exists()


def test_data_sets_without_images_labels_or_a_training_split(prepare, refused):
    prepare(TENSOR, {'test': PAIRS})
    refused('has the features image, label and the splits test; needed are image, label')


def test_labels_that_are_no_classes(prepare, refused):
    prepare(TENSOR, {'train': PAIRS}, label_feature=tfds.features.Scalar(np.int64))
    refused(r'has the features image, label .*needed are image, label \(of one class\)')


def test_records_in_another_format_are_refused(prepare, refused):
    folder = prepare(TENSOR, {'train': PAIRS})
    for path in folder.iterdir():
        if 'array_record' in path.name:
            path.rename(folder / path.name.replace('array_record', 'tfrecord'))
    info = folder / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    refused(r"animals/1.0.0 is not in the format array_record; .*file_format='array_record'")
