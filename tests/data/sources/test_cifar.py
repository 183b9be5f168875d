"""The builders on small archives in the publisher's binary format."""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from configs import cnn
from neptune_jax.data.sources import archives, cifar, opening
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)


def record(labels, image):
    """The format as its publisher describes it: the red plane, the green one, the blue one."""
    planes = (image[:, :, channel].tobytes() for channel in range(3))
    return bytes(labels) + b''.join(planes)


def tar_gz(files):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode='w:gz') as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


IMAGES = RNG.integers(0, 256, (14, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(14) % 10
RECORDS = [record([label], image) for label, image in zip(LABELS, IMAGES, strict=True)]
# Two records in each of the five files to train with, four in that of the test. The publisher's
# order in the archive is not that of the numbers.
FILES = {
    'cifar-10-batches-bin/readme.html': b'<html>',
    'cifar-10-batches-bin/test_batch.bin': b''.join(RECORDS[10:]),
} | {
    f'cifar-10-batches-bin/data_batch_{i}.bin': b''.join(RECORDS[2 * i - 2 : 2 * i])
    for i in (5, 3, 4, 1, 2)
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads an archive's bytes as the data set of a builder, whose checksum they have."""

    def read(builder, content, damaged=None):
        (name,) = builder.SHA256

        class Tiny(builder):
            SHA256 = {name: hashlib.sha256(content).hexdigest()}

        (tmp_path / 'archives').mkdir(exist_ok=True)
        (tmp_path / 'archives' / name).write_bytes(content if damaged is None else damaged)
        config = cnn.get_config().data
        config.update(name='cifar10', dir=str(tmp_path / 'data'))
        config.archive_dir = str(tmp_path / 'archives')
        monkeypatch.setitem(opening.SOURCES, 'cifar10', archives.preparation_of(Tiny))
        return opening.open_source(config)

    return read


def test_cifar10(read):
    source = read(cifar.Cifar10, tar_gz(FILES))
    np.testing.assert_array_equal(source.images(), IMAGES)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    assert {name: len(part) for name, part in source.splits.items()} == {'train': 10, 'test': 4}
    assert source.class_names[3] == 'cat'
    assert source.image_shape == (32, 32, 3)


def test_cifar100_has_coarse_labels_before_the_fine_ones(read):
    fine = np.array([19, 99, 0, 47])
    coarse = np.array([11, 13, 4, 17])
    records = [record(pair, image) for *pair, image in zip(coarse, fine, IMAGES[:4], strict=True)]
    files = {
        'cifar-100-binary/train.bin': b''.join(records[:3]),
        'cifar-100-binary/test.bin': records[3],
    }
    source = read(cifar.Cifar100, tar_gz(files))
    np.testing.assert_array_equal(source.images(), IMAGES[:4])
    np.testing.assert_array_equal(source.index()['label'], fine)
    assert [source.class_names[i] for i in fine] == ['cattle', 'worm', 'apple', 'maple_tree']
    assert len(set(source.class_names)) == 100


def test_the_places_of_the_pixels_by_hand(read):
    planes = np.zeros(3072, np.uint8)
    planes[0] = 1  # red, the first row, the first column
    planes[1] = 2  # red, the first row, the second column
    planes[32] = 3  # red, the second row, the first column
    planes[1024] = 4  # green, the first row, the first column
    planes[3071] = 5  # blue, the last row, the last column
    files = FILES | {'cifar-10-batches-bin/test_batch.bin': b'\x07' + planes.tobytes()}
    source = read(cifar.Cifar10, tar_gz(files))
    image = source.images()[-1]
    found = [image[0, 0, 0], image[0, 1, 0], image[1, 0, 0], image[0, 0, 1], image[31, 31, 2]]
    assert found == [1, 2, 3, 4, 5]
    assert np.count_nonzero(image) == 5
    assert source.index()['label'][-1] == 7


@pytest.mark.parametrize('name', ['../evil', 'cifar-10-batches-bin/../../evil', '/tmp/evil.bin'])
def test_a_member_outside_the_archive_is_refused_and_nothing_written(read, tmp_path, name):
    with pytest.raises(UserError, match='tiny: its archive') as caught:
        read(cifar.Cifar10, tar_gz(FILES | {name: b'evil'}))
    assert f'has a member {name!r} outside its own folder; do not trust' in str(caught.value)
    files = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert files == [tmp_path / 'archives/cifar-10-binary.tar.gz']


@pytest.mark.parametrize(
    ('damage', 'problem'),
    [
        (lambda content: content[: len(content) // 2], '(the file is cut short)'),
        (lambda content: content[:-9] + b'x' + content[-8:], 'sha256'),
        (lambda content: gzip.compress(b'another archive'), 'sha256'),
        (lambda content: b'', 'sha256'),
    ],
)
def test_a_damaged_archive_is_refused(read, tmp_path, damage, problem):
    content = tar_gz(FILES)
    with pytest.raises(UserError, match=r'cifar-10-binary.tar.gz is damaged: ') as caught:
        read(cifar.Cifar10, content, damage(content))
    assert problem in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not [path for path in (tmp_path / 'data').rglob('*') if path.is_file()]
