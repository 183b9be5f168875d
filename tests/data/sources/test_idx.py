"""The builder on real files in the format, from every place where archives may come from."""

import functools
import gzip
import hashlib
import http.server
import subprocess
import threading

import numpy as np
import pytest
from ml_collections import ConfigDict

from neptune_jax.data.sources import archives as places
from neptune_jax.data.sources import idx, opening
from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 28, 28, 1)).astype(np.uint8)
LABELS = (np.arange(12) % 3).astype(np.uint8)


def idx_bytes(array):
    """The format as its publisher describes it."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b''.join(n.to_bytes(4, 'big') for n in array.shape) + array.tobytes()


CONTENTS = dict(
    zip(
        idx.FILES,
        map(idx_bytes, (IMAGES[:8].squeeze(-1), LABELS[:8], IMAGES[8:].squeeze(-1), LABELS[8:])),
        strict=True,
    )
)


class Tiny(idx.IdxBuilder):
    """Twelve images that no place has until a test puts them there."""

    CLASS_NAMES = ('a', 'b', 'c')
    SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    FOLDER = '/nonexistent'
    URL = 'http://127.0.0.1:9/'  # nobody listens there
    DEBIAN_PACKAGE = 'dataset-that-does-not-exist'


@pytest.fixture
def archives(tmp_path):
    folder = tmp_path / 'archives'
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a builder into arrays, as training does; its data folder is the test's own."""

    def read(builder, **fields):
        monkeypatch.setitem(opening.SOURCES, 'mnist', places.preparation_of(builder))
        fields = {'name': 'mnist', 'dir': str(tmp_path / 'data'), 'archive_dir': ''} | fields
        source = opening.open_source(ConfigDict(fields))
        source.images()
        return source

    return read


def assert_is_tiny(source):
    np.testing.assert_array_equal(source.images(), IMAGES)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    np.testing.assert_array_equal(source.splits['train'], np.arange(8))
    np.testing.assert_array_equal(source.splits['test'], np.arange(8, 12))
    assert source.class_names == ('a', 'b', 'c')


@pytest.mark.parametrize('compressed', [True, False])
def test_archive_dir_then_the_prepared_data(read, archives, capsys, compressed):
    if not compressed:
        for path in archives.iterdir():
            path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    assert_is_tiny(read(Tiny, archive_dir=str(archives)))
    assert f'tiny: reading the archives in {archives}' in capsys.readouterr().out
    for path in archives.iterdir():
        path.unlink()
    assert_is_tiny(read(Tiny))  # from the prepared data: the archives are gone
    assert 'reading' not in capsys.readouterr().out


def test_the_cache_beside_the_prepared_data_is_optional(read, archives, tmp_path):
    read(Tiny, archive_dir=str(archives))
    caches = [*(tmp_path / 'data').rglob('*.npz'), *(tmp_path / 'data').rglob('*.npy')]
    assert {path.name for path in caches} == {'index.npz', 'images.npy'}
    for path in caches:
        path.unlink()
    assert_is_tiny(read(Tiny))


def test_the_folder_where_a_package_installs_them(read, archives):
    class Installed(Tiny):
        FOLDER = str(archives)

    assert_is_tiny(read(Installed))


def test_the_publisher(read, archives, capsys):
    handler = functools.partial(Quiet, directory=archives)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        class Published(Tiny):
            URL = f'http://127.0.0.1:{server.server_port}/'

        assert_is_tiny(read(Published))
        server.shutdown()
    assert 'downloading from http://127.0.0.1' in capsys.readouterr().out


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_nothing_works(read, capsys, tmp_path):
    with pytest.raises(UserError) as caught:
        read(Tiny)
    message = str(caught.value)
    assert '\n' not in message
    for remedy in ('connect to http://', 'install the Debian package', '--config.data.archive_dir'):
        assert remedy in message
    assert 'the publisher cannot be reached' in capsys.readouterr().out
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


def test_a_package_of_debian_is_unpacked_without_installing_it(tmp_path):
    try:
        places.fetch_debian_package('hello', tmp_path)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f'no apt-get, or no mirror within reach: {error}')
    assert (tmp_path / 'usr/bin/hello').is_file()


def flip_a_byte(content):
    plain = bytearray(gzip.decompress(content))
    plain[100] ^= 1
    return gzip.compress(bytes(plain))


@pytest.mark.parametrize(
    ('damage', 'problem'),
    [
        (flip_a_byte, ''),
        (lambda content: content[: len(content) // 2], ' (the file is cut short)'),
        (lambda content: content[:20] + b'xxxx' + content[24:], ' cannot be decompressed'),
        (lambda content: b'<html>Log in to the network</html>', ''),
    ],
)
def test_a_damaged_archive_is_named_with_both_checksums(read, archives, tmp_path, damage, problem):
    path = archives / 'train-images-idx3-ubyte.gz'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        read(Tiny, archive_dir=str(archives))
    message = str(caught.value)
    assert message.startswith(f'{path} is damaged: its contents{problem}')
    assert f'expected {Tiny.SHA256[path.name]}' in message
    assert '\n' not in message
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


def test_a_folder_without_the_archives_is_refused(read, archives):
    (archives / 't10k-labels-idx1-ubyte.gz').unlink()
    with pytest.raises(UserError, match=r'data.archive_dir=.* holds no t10k-labels-idx1-ubyte.gz'):
        read(Tiny, archive_dir=str(archives))


def test_archive_dir_is_checked_although_the_data_are_prepared(read, archives, tmp_path):
    read(Tiny, archive_dir=str(archives))
    assert_is_tiny(read(Tiny, archive_dir=str(archives)))
    with pytest.raises(UserError, match=r"^data.archive_dir='nowhere' is not a folder$"):
        read(Tiny, archive_dir='nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
        UserError, match=r'^data.archive_dir=.* holds no train-images-idx3-ubyte.gz'
    ):
        read(Tiny, archive_dir=str(tmp_path / 'empty'))
    path = archives / 't10k-images-idx3-ubyte.gz'
    content = path.read_bytes()
    path.write_bytes(flip_a_byte(content))
    with pytest.raises(UserError, match=r't10k-images-idx3-ubyte.gz is damaged: '):
        read(Tiny, archive_dir=str(archives))
    path.write_bytes(gzip.compress(gzip.decompress(content), 1))  # other bytes, the same contents
    assert_is_tiny(read(Tiny, archive_dir=str(archives)))
    assert_is_tiny(read(Tiny))


def test_a_data_folder_that_cannot_be_written_is_refused(read, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'data.dir=.* cannot be used .*--config.data.dir'):
        read(Tiny, dir=str(tmp_path / 'file'))
